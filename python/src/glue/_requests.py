"""What the engine asks of Python: `handle` answers each of its calls."""

import ast
import importlib
import importlib.util
import json
import keyword
import signal
import sys
import types

import commworld
from commworld import _engine, _shell, _streams, _values

#: The shell that runs cells, once the engine has started.
shell = None

#: What every namespace begins with.
natives = {}


def handle(head, frames):
    """Answers one call: JSON and buffers."""
    try:
        request = json.loads(head)
        answer, buffers = _HANDLERS[request["call"]](request, frames)
        return _engine.dump({"ok": answer}), buffers
    except BaseException as error:  # Whatever it is, the engine goes on.
        return _engine.dump({"error": _described(error)}), []


def _described(error):
    if isinstance(error, _shell.Failed):
        return {**_named(error.error), "traceback": error.lines, "published": error.published}
    return _named(error)


def _named(error):
    return {"ename": type(error).__name__, "evalue": _shell.safe_text(error), "traceback": []}


def prepare(request, frames):
    """Imports what engines use, which takes its time: before the cluster waits for this one."""
    for name in ("numpy", "ipyparallel.serialize", "ipykernel.zmqshell"):
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    return None, []


def start(request, frames):
    """Makes the shell. To be called once, before any task."""
    global shell
    sys.argv = ["engine"]
    if "" not in sys.path:
        sys.path.insert(0, "")
    _streams.install()
    signal.signal(signal.SIGINT, _interrupted)
    commworld._world.update(rank=request["rank"], size=request["size"])
    shell = _shell.start(request["options"], request["engine_id"], request["uuid"], request["profile_dir"])
    for name in commworld.__all__:
        natives[name] = getattr(commworld, name)
    for function in request["functions"]:
        natives[function["name"]] = _function(function)
    natives["load"] = load
    natives["load_all"] = load_all
    _offer_natives()
    version = ".".join(map(str, sys.version_info[:3]))
    return {"python": version, "executable": sys.executable, "prefix": sys.prefix, "shell": type(shell).__name__}, []


def _interrupted(number, frame):
    """Ends what runs, if the engine says that it is to end."""
    taken, _ = _engine.call("take_interrupt")
    if taken:
        raise KeyboardInterrupt


def _offer_natives():
    for name, value in natives.items():
        shell.namespace.setdefault(name, value)
        hidden = shell.hidden()
        if isinstance(hidden, dict):
            hidden.setdefault(name, value)
        else:
            hidden.add(name)


def _function(described):
    """A function of the engine's program or of a module, as a function of Python."""
    name = described["name"]

    def function(*arguments):
        buffers = []
        described = [_values.encode(argument, buffers) for argument in arguments]
        answer, frames = _engine.call("function", buffers, function=name, arguments=described)
        return _values.decode(answer, [_engine.view(frame) for frame in frames])

    function.__name__ = function.__qualname__ = name
    function.__doc__ = "{signature}: {text}".format(**described)
    return function


def load(file, data=None):
    """load(file): loads a module of compiled functions (C, Fortran, Rust), and gives their names.

    Paths are the engine's; `client load` sends a file that only the client has. A file of the same name replaces what it
    defined before."""
    buffers = [] if data is None else [memoryview(data).cast("B")]
    loaded, _ = _engine.call("load", buffers, file=str(file), taken=sorted(commworld.__all__) + ["load", "load_all"])
    for described in loaded:
        natives[described["name"]] = shell.namespace[described["name"]] = _function(described)
    _offer_natives()
    return [described["name"] for described in loaded]


def load_all(file, data=None):
    """load_all(file, data): loads the module on all ranks whose bytes rank 0 has. All ranks call it."""
    return load(file, commworld.bcast(data, 0))


def execute(request, frames):
    """Runs a cell."""
    try:
        shell.execute(request["code"], request["count"], request["silent"], request["store_history"])
    except _shell.Failed:
        shell.payload()  # It belongs to the cell that failed.
        raise
    return shell.payload(), []


def user_expressions(request, frames):
    """What expressions are worth after a cell."""
    return shell.user_expressions(request["expressions"]), []


def apply_pickled(request, frames):
    """Calls a function as ipyparallel's clients send it: canned and pickled."""
    try:
        from ipyparallel.serialize import serialize_object, unpack_apply_message
    except ImportError as error:
        raise ImportError(
            "a client of ipyparallel sent a pickled function, but this engine's Python cannot import ipyparallel "
            f"({error}); install it: {sys.executable} -m pip install ipyparallel"
        ) from error
    namespace = shell.namespace
    prefix = "_" + request["msg_id"].replace("-", "_") + "_"
    names = {part: prefix + part for part in ("f", "args", "kwargs", "result")}
    try:
        try:
            function, arguments, keywords = unpack_apply_message(
                [_engine.view(frame) for frame in frames], namespace, copy=False
            )
            namespace.update(zip(names.values(), (function, arguments, keywords, None)))
            code = "{result} = {f}(*{args}, **{kwargs})".format(**names)
            exec(code, shell.globals, namespace)
            result = namespace.get(names["result"])
        finally:
            for name in names.values():
                namespace.pop(name, None)
        return {}, serialize_object(result)
    except BaseException as error:
        raise _shell.Failed(error, shell.show_error(), published=True) from None


def apply(request, frames):
    """Calls a function by name with values of this project's own clients."""
    buffers = [_engine.view(frame) for frame in frames]
    arguments = [_values.decode(argument, buffers) for argument in request["arguments"]]
    keywords = {name: _values.decode(value, buffers) for name, value in request["keywords"].items()}
    name = request["function"]
    try:
        result = _evaluated(name)(*arguments, **keywords)
        return _encoded(result)
    except BaseException as error:
        raise _shell.Failed(error, shell.show_error(), published=True) from None


def _encoded(value):
    buffers = []
    described = _values.encode(value, buffers)
    return described, buffers


def _evaluated(expression):
    return eval(compile(expression, "<expression>", "eval"), shell.globals, shell.namespace)


def push(request, frames):
    """Gives a name a value."""
    name = request["name"]
    value = _values.decode(request["value"], [_engine.view(frame) for frame in frames])
    if name.isidentifier() and not keyword.iskeyword(name):
        shell.namespace[name] = value
        return None, []
    # a.b, a[0]: what can be assigned to.
    target = ast.parse(name, "<name>", "eval").body
    if not isinstance(target, (ast.Attribute, ast.Subscript)):
        raise ValueError(f"{name!r} is not a name that could be given a value")
    exec(compile(f"{name} = _commworld_pushed", "<push>", "exec"), shell.globals, _With(shell.namespace, value))
    return None, []


class _With(dict):
    """A namespace in which one more name is known."""

    def __init__(self, namespace, value):
        super().__init__(_commworld_pushed=value)
        self._namespace = namespace

    def __missing__(self, name):
        return self._namespace[name]


def pull(request, frames):
    """The value of an expression."""
    try:
        return _encoded(_evaluated(request["expression"]))
    except BaseException as error:
        raise _shell.Failed(error, shell.show_error(), published=True) from None


def clear(request, frames):
    """Empties the namespace."""
    shell.clear()
    _offer_natives()
    return None, []


def complete(request, frames):
    """Words that could stand at the cursor, in characters."""
    line, cursor = request["line"], request["cursor"]
    if not line.strip():
        words = [*shell.namespace, *keyword.kwlist, *dir(__builtins__)]
        return sorted({word for word in words if not word.startswith("_")}), []
    return shell.complete(line, cursor), []


def inspect(request, frames):
    """Help on a name, or null."""
    return shell.inspect(request["name"]), []


def is_complete(request, frames):
    """complete, incomplete or invalid."""
    return shell.is_complete(request["code"]), []


def names(request, frames):
    """What the user has put into the namespace."""
    hidden = shell.hidden()
    rows = []
    for name, value in sorted(shell.namespace.items()):
        known = name in hidden and (not isinstance(hidden, dict) or hidden[name] is value)
        if not name.startswith("_") and not known:
            rows.append(_summary(name, value))
    return rows, []


def _summary(name, value):
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and not isinstance(value, type):
        kind = str(getattr(value, "dtype", type(value).__name__))
        size = getattr(value, "nbytes", 0)
        return {"name": name, "kind": kind, "summary": str(list(shape)), "bytes": size if type(size) is int else 0}
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return {"name": name, "kind": "function", "summary": "", "bytes": 0}
    if isinstance(value, types.ModuleType):
        return {"name": name, "kind": "module", "summary": value.__name__, "bytes": 0}
    if isinstance(value, (int, float, complex, bool)) or value is None:
        summary = repr(value)
    elif isinstance(value, (str, bytes)):
        summary = repr(value[:40])
    elif hasattr(value, "__len__") and not isinstance(value, type):
        try:
            summary = f"{len(value)} items"
        except Exception:
            summary = ""
    else:
        summary = ""
    return {"name": name, "kind": type(value).__name__, "summary": summary[:80], "bytes": 0}


_HANDLERS = {
    "prepare": prepare,
    "start": start,
    "execute": execute,
    "user_expressions": user_expressions,
    "apply_pickled": apply_pickled,
    "apply": apply,
    "push": push,
    "pull": pull,
    "clear": clear,
    "complete": complete,
    "inspect": inspect,
    "is_complete": is_complete,
    "names": names,
}
