"""Standard output and error of user code: to the clients, as it happens."""

import io
import os
import sys

from commworld import _engine


class _Bytes(io.RawIOBase):
    """What `sys.stdout.buffer` is: bytes that become text."""

    def __init__(self, stream):
        self._stream = stream

    def writable(self):
        return True

    def write(self, data):
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class Stream(io.TextIOBase):
    """A text stream whose text the engine publishes."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, name, descriptor):
        self.name = f"<{name}>"
        self._stream = name
        self._descriptor = descriptor
        self.buffer = _Bytes(self)

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        if os.getpid() == _engine.PID:
            _engine.call("print", stream=self._stream, text=text)
        else:  # A forked child: the engine reads what its descriptors are written to.
            os.write(self._descriptor, text.encode("utf-8", "replace"))
        return len(text)

    def flush(self):
        pass  # The engine sends text within 50 ms, and all of it before a task is answered.

    def fileno(self):
        return self._descriptor

    def writable(self):
        return True

    def isatty(self):
        return False


def _no_input(prompt=""):
    """Stands for input(): nobody sits at an engine."""
    raise _StdinNotImplementedError("an engine has nobody to ask: input() is not possible; push the value instead")


try:
    from IPython.core.error import StdinNotImplementedError as _StdinNotImplementedError
except ImportError:

    class _StdinNotImplementedError(NotImplementedError):
        """input() was called."""

    _StdinNotImplementedError.__name__ = "StdinNotImplementedError"


def install():
    """Puts them in place of the process' own."""
    import builtins
    import getpass

    sys.stdout = sys.__stdout__ = Stream("stdout", 1)
    sys.stderr = sys.__stderr__ = Stream("stderr", 2)
    builtins.input = _no_input
    getpass.getpass = lambda prompt="", stream=None: _no_input(prompt)
