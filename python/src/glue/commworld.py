"""The other ranks, from Python: `psum(a)` is one all-reduce of the engine's MPI world.

Every function here is also a name in an engine's namespace. What the ranks exchange is NumPy's arrays, read where
they lie; anything else is pickled. All but `rank`, `size`, `send` and `recv` are collective: every rank calls them,
and an error says so if they do not. Every wait can be interrupted. mpi4py works beside them.
"""

import pickle as _pickle
import struct as _struct
import threading as _threading

from commworld import _engine
from commworld._engine import CollectiveError, MPIError
from commworld import _values

__all__ = [
    "CollectiveError",
    "MPIError",
    "allgather",
    "allreduce",
    "alltoall",
    "barrier",
    "bcast",
    "gather",
    "pmax",
    "pmean",
    "pmin",
    "pprod",
    "psum",
    "rank",
    "recv",
    "reduce",
    "scan",
    "scatter",
    "send",
    "size",
]

#: Before what is not an array: no array of numbers begins like this.
_MARK = b"\x93commworld pickle\x00"
_LENGTH = _struct.Struct("<Q")
_SCALARS = {bool: ("bool", "<?"), int: ("i64", "<q"), float: ("f64", "<d"), complex: ("c64", "<dd")}


def rank():
    """This engine's number in its MPI world, from 0."""
    return _world["rank"]


def size():
    """How many engines the MPI world has."""
    return _world["size"]


#: Filled in when the engine starts.
_world = {"rank": 0, "size": 1}


class _Operand:
    """Elements as the ranks exchange them: where they lie, their type and shape, and how to give them back."""

    __slots__ = ("data", "dtype", "shape", "scalar")

    def __init__(self, data, dtype, shape, scalar=None):
        self.data, self.dtype, self.shape, self.scalar = data, dtype, shape, scalar


def _operand(value):
    """The value as an operand, or None if it is neither a number nor an array of numbers."""
    known = _SCALARS.get(type(value))
    if known is not None:
        dtype, layout = known
        parts = (value.real, value.imag) if dtype == "c64" else (value,)
        if dtype == "i64" and not -(2**63) <= value < 2**63:
            return None
        return _Operand(_struct.pack(layout, *parts), dtype, [], scalar=True)
    np = _values.numpy()
    if np is None or not (isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array_interface__")):
        return None
    array = np.asarray(value)
    dtype = _values.dtype_name(array.dtype)
    if dtype is None:
        return None
    if not array.flags.c_contiguous or array.dtype.byteorder == ">":
        array = np.ascontiguousarray(array, dtype=_values.DTYPES[dtype]).reshape(array.shape)
    data = memoryview(array.reshape(-1).view("u1")) if array.size else b""
    return _Operand(data, dtype, list(array.shape))


def _numbers(name, value):
    """An operand that can be reduced."""
    operand = _operand(value)
    if operand is None and isinstance(value, (list, tuple)):
        np = _values.numpy()
        operand = _operand(np.asarray(value)) if np is not None else None
    if operand is None:
        kind = type(value).__name__
        dtype = getattr(value, "dtype", None)
        what = f"an array of dtype {dtype}" if dtype is not None else f"a {kind}"
        raise TypeError(
            f"{name}: {what} cannot be reduced; use numbers or a NumPy array of float64, float32, int64, int32, "
            "uint8, bool or complex128 (x.astype(…) converts)"
        )
    return operand


def _communicate(operation, operand=None, **arguments):
    """One call to the other ranks; its result as an operand, or None."""
    if _threading.current_thread() is not _threading.main_thread():
        raise RuntimeError(f"{operation}: only the main thread speaks with the other ranks")
    buffers = []
    if operand is not None:
        arguments.update(dtype=operand.dtype, shape=operand.shape)
        buffers.append(operand.data)
    answer, frames = _engine.call("communicate", buffers, operation=operation, **arguments)
    if answer is None:
        return None
    return _Operand(_engine.own(frames[0]), answer["dtype"], answer["shape"])


def _given_back(result, scalar):
    """An operand as a number, if the other operand was one, or as a NumPy array."""
    np = None if scalar else _values.numpy()
    if np is not None:
        return np.frombuffer(result.data, dtype=_values.DTYPES[result.dtype]).reshape(result.shape)
    for dtype, layout in _SCALARS.values():
        if dtype == result.dtype and not result.shape:
            parts = _struct.unpack(layout, bytes(result.data))
            return complex(*parts) if dtype == "c64" else parts[0]
    raise ImportError("an array came from another rank, but this engine's Python has no NumPy: pip install numpy")


def _pickled(value):
    data = _pickle.dumps(value, protocol=_pickle.HIGHEST_PROTOCOL)
    return _MARK + _LENGTH.pack(len(data)) + data


def _packed(value):
    """Any value as an operand that can be sent."""
    operand = _operand(value)
    if operand is not None and not _is_marked(operand):
        return operand
    data = _pickled(value)
    return _Operand(data, "u8", [len(data)])


def _is_marked(operand):
    return operand.dtype == "u8" and len(operand.shape) == 1 and bytes(operand.data[: len(_MARK)]) == _MARK


def _values_of(data):
    """All values that were pickled one behind the other; zeros may follow."""
    values, at, data = [], 0, memoryview(data)
    while bytes(data[at : at + len(_MARK)]) == _MARK:
        at += len(_MARK)
        (length,) = _LENGTH.unpack(data[at : at + _LENGTH.size])
        at += _LENGTH.size
        values.append(_pickle.loads(data[at : at + length]))
        at += length
    return values


def _unpacked(result):
    """The value that was sent. A number comes back as a number."""
    if _is_marked(result):
        return _values_of(result.data)[0]
    return _given_back(result, not result.shape)


def _unpacked_all(result):
    """What every rank sent: joined arrays, or a list."""
    return _values_of(result.data) if _is_marked(result) else _given_back(result, False)


def allreduce(x, op="sum"):
    """The elementwise reduction of all ranks' x, on every rank. op: sum, prod, min, max, and, or."""
    operand = _numbers("allreduce", x)
    return _given_back(_communicate("allreduce", operand, op=_op("allreduce", op)), operand.scalar)


def reduce(x, op="sum", root=0):
    """As allreduce, on the root only; None elsewhere."""
    operand = _numbers("reduce", x)
    result = _communicate("reduce", operand, op=_op("reduce", op), root=_rank("reduce", root))
    return None if result is None else _given_back(result, operand.scalar)


def scan(x, op="sum"):
    """The elementwise reduction of ranks 0 to this one."""
    operand = _numbers("scan", x)
    return _given_back(_communicate("scan", operand, op=_op("scan", op)), operand.scalar)


_OPS = ("sum", "prod", "min", "max", "and", "or")


def _op(name, op):
    if op in _OPS:
        return op
    raise ValueError(f"{name}: {op!r} is not a reduction; choose from {', '.join(_OPS)}")


def _rank(name, number):
    number = number.__index__()
    if 0 <= number < size():
        return number
    raise ValueError(f"{name}: rank {number} does not exist; ranks are 0 to {size() - 1}")


def _local(name, x):
    """A number or an array of numbers: its elements, widened so that ranks agree."""
    np = _values.numpy()
    if np is None or type(x) in _SCALARS:
        _numbers(name, x)
        return None, x
    array = np.asarray(x)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: an array of dtype {array.dtype} has no numbers to reduce")
    return np, array


def _wide(np, number):
    kind = np.asarray(number).dtype.kind
    return complex(number) if kind == "c" else float(number) if kind == "f" else int(number)


def psum(x):
    """The sum of all elements of x on all ranks, on every rank."""
    np, x = _local("psum", x)
    return allreduce(_plain(x) if np is None else _wide(np, np.sum(x)))


def pprod(x):
    """The product of all elements of x on all ranks, on every rank."""
    np, x = _local("pprod", x)
    return allreduce(_plain(x) if np is None else _wide(np, np.prod(x)), "prod")


def pmin(x):
    """The smallest element of x on all ranks, on every rank."""
    return _extreme("pmin", x, "min")


def pmax(x):
    """The largest element of x on all ranks, on every rank."""
    return _extreme("pmax", x, "max")


def pmean(x):
    """The mean of all elements of x on all ranks, on every rank."""
    np, x = _local("pmean", x)
    total, count = (x, 1) if np is None else (_wide(np, np.sum(x)), x.size)
    total, count = psum(total), psum(count)
    if count == 0:
        raise ValueError("pmean of arrays that are empty on every rank")
    return total / count


def _plain(x):
    return int(x) if isinstance(x, bool) else x


def _extreme(name, x, op):
    np, x = _local(name, x)
    if np is None:
        part = _plain(x)
    elif x.size:
        part = _wide(np, getattr(np, op)(x))
    elif x.dtype.kind == "f":
        part = float("inf") if op == "min" else float("-inf")
    else:
        part = 2**63 - 1 if op == "min" else -(2**63)
    if isinstance(part, complex):
        raise TypeError(f"{name}: complex numbers have no order; use abs(x)")
    whole = allreduce(part, op)
    # Only an extreme of nothing is one of these; the same on every rank, so that all of them look closer.
    nothing = (float("inf"), float("-inf"), 2**63 - 1, -(2**63))
    if whole in nothing and allreduce(1 if np is None else x.size) == 0:
        raise ValueError(f"{name} of arrays that are empty on every rank")
    return whole


def barrier():
    """Returns once every rank has called it."""
    _communicate("barrier")


def bcast(x=None, root=0):
    """The root's x, on every rank; what the others pass is ignored."""
    root = _rank("bcast", root)
    return _unpacked(_communicate("bcast", _packed(x) if rank() == root else None, root=root))


def scatter(x=None, root=0):
    """The root's array or list split along its first axis; the first `n mod size` ranks get one more."""
    root = _rank("scatter", root)
    operand = None
    if rank() == root:
        operand = _operand(x) if not isinstance(x, (list, tuple)) else None
        if operand is None and isinstance(x, (list, tuple)):
            operand = _rows(list(x))
        if operand is None or not operand.shape:
            raise TypeError("scatter splits arrays and lists; to send one value to all, use bcast")
    result = _communicate("scatter", operand, root=root)
    if result.dtype == "u8" and len(result.shape) == 2 and bytes(result.data[: len(_MARK)]) == _MARK:
        return _values_of(result.data)[0]
    return _given_back(result, False)


def _rows(items):
    """A list as one row of bytes for every rank, all rows of one width."""
    parts, at = [], 0
    for number in range(size()):
        count = len(items) // size() + (number < len(items) % size())
        parts.append(_pickled(items[at : at + count]))
        at += count
    width = max(map(len, parts))
    return _Operand(b"".join(part.ljust(width, b"\0") for part in parts), "u8", [size(), width])


def gather(x, root=0):
    """All ranks' x on the root, None elsewhere: arrays joined along their first axis, other values in a list."""
    result = _communicate("gather", _packed(x), root=_rank("gather", root))
    return None if result is None else _unpacked_all(result)


def allgather(x):
    """As gather, on every rank."""
    return _unpacked_all(_communicate("allgather", _packed(x)))


def alltoall(x):
    """Part r of every rank's array goes to rank r; what came is joined in rank order."""
    return _given_back(_communicate("alltoall", _numbers("alltoall", x)), False)


def send(x, to, tag=0):
    """Sends any value to one rank, which calls recv. Returns once x may be changed."""
    _communicate("send", _packed(x), to=_rank("send", to), tag=_tag("send", tag))


def recv(source=None, tag=0):
    """Waits for a value from one rank; None takes from any."""
    source = None if source is None else _rank("recv", source)
    return _unpacked(_communicate("recv", source=source, tag=_tag("recv", tag)))


def _tag(name, tag):
    tag = tag.__index__()
    if 0 <= tag <= 16383:
        return tag
    raise ValueError(f"{name}: tag {tag} is not from 0 to 16383")
