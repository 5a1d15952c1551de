"""Values as they travel between this project's own clients and engines: docs/PROTOCOL.md, "Values"."""

import math

#: Element types: name on the wire, and NumPy's.
DTYPES = {"f64": "<f8", "f32": "<f4", "i64": "<i8", "i32": "<i4", "u8": "|u1", "bool": "|b1", "c64": "<c16"}
_NAMES = {numpys: name for name, numpys in DTYPES.items()}

#: How deeply values may be nested; deeper ones are refused at the other side.
DEPTH_MAX = 32


def numpy():
    """NumPy, or None if it is not installed."""
    try:
        import numpy

        return numpy
    except ImportError:
        return None


def dtype_name(dtype):
    """The wire's name of a NumPy element type, or None if the wire has none."""
    return _NAMES.get(dtype.newbyteorder("<").str) if dtype.kind in "fiubc" else None


def _float(number):
    if math.isfinite(number):
        return number
    return "nan" if math.isnan(number) else "inf" if number > 0 else "-inf"


def encode(value, buffers, depth=DEPTH_MAX):
    """Describes a value as JSON; its bulk is appended to `buffers`."""
    if depth == 0:
        raise ValueError(f"the value is nested more than {DEPTH_MAX} deep, or contains itself")
    if value is None or isinstance(value, (bool, str)):
        return value
    if type(value) is int or type(value) is float or type(value) is complex:
        if isinstance(value, int):
            if not -(2**63) <= value < 2**63:
                raise OverflowError(f"{value} does not fit into 64 bits; pull it as text: repr(…)")
            return value
        if isinstance(value, float):
            return {"f": _float(value)}
        return {"c": [_float(value.real), _float(value.imag)]}
    if isinstance(value, (bytes, bytearray, memoryview)):
        buffers.append(bytes(value))
        return {"b": len(buffers) - 1}
    if isinstance(value, (list, tuple)):
        return [encode(item, buffers, depth - 1) for item in value]
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"a dict with the key {name!r} cannot travel: keys must be str")
        return {"m": {name: encode(item, buffers, depth - 1) for name, item in value.items()}}
    np = numpy()
    if np is not None:
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            plain = value.item()
            if type(plain) is not type(value) and not isinstance(plain, np.generic):
                return encode(plain, buffers, depth - 1)
        if isinstance(value, np.ndarray) or hasattr(value, "__array_interface__"):
            return _encode_array(np, np.asarray(value), buffers)
    for to_python in ("item", "tolist"):
        method = getattr(value, to_python, None)
        if callable(method) and getattr(value, "shape", None) == ():
            return encode(method(), buffers, depth - 1)
    if isinstance(value, (int, float, complex)):  # Their subclasses: enumerations and the like.
        plain = int if isinstance(value, int) else float if isinstance(value, float) else complex
        return encode(plain(value), buffers, depth - 1)
    raise TypeError(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot travel to this client; pull its "
        "parts, or its repr(…)"
    )


def _encode_array(np, array, buffers):
    name = dtype_name(array.dtype)
    if name is None:
        wider = {"f2": "f4", "i1": "i4", "i2": "i4", "u2": "i4", "u4": "i8", "c8": "c16"}.get(array.dtype.str[1:])
        if wider is None:
            raise TypeError(f"an array of dtype {array.dtype} cannot travel to this client; convert it with astype")
        array = array.astype(wider)
        name = dtype_name(array.dtype)
    array = np.asarray(array, dtype=DTYPES[name], order="C")
    buffers.append(memoryview(array.reshape(-1).view("u1")) if array.size else b"")
    return {"a": len(buffers) - 1, "dtype": name, "shape": list(array.shape)}


def _unfloat(number):
    return float(number)


def decode(described, buffers):
    """The value that was described. Arrays are NumPy's, and may be written to."""
    if described is None or isinstance(described, (bool, str, int, float)):
        return described
    if isinstance(described, list):
        return [decode(item, buffers) for item in described]
    if "f" in described:
        return _unfloat(described["f"])
    if "c" in described:
        return complex(*map(_unfloat, described["c"]))
    if "b" in described:
        return bytes(buffers[described["b"]])
    if "m" in described:
        return {name: decode(item, buffers) for name, item in described["m"].items()}
    np = numpy()
    if np is None:
        raise ImportError("an array came, but this engine's Python has no NumPy: pip install numpy")
    array = np.frombuffer(buffers[described["a"]], dtype=DTYPES[described["dtype"]])
    return array.reshape(described["shape"]).copy()
