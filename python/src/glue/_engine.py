"""Calls from Python to the engine, and views of the memory that comes back."""

import builtins
import ctypes
import json
import os

import _commworld

#: What is copied rather than viewed: making a view takes longer.
COPIED_BYTES_MAX = 4096

#: The process that the engine is. A child that was forked from it must not use its sockets.
PID = os.getpid()


class CollectiveError(RuntimeError):
    """The ranks did not make the same call; the message says who called what."""


class MPIError(RuntimeError):
    """MPI failed, or the MPI world is broken."""


_ERRORS = {"CollectiveError": CollectiveError, "MPIError": MPIError}


def dump(head):
    """JSON text that is valid whatever the texts in it are."""
    return json.dumps(head, ensure_ascii=False).encode("utf-8", "replace")


def call(name, buffers=(), **arguments):
    """Calls the engine: its answer, and the frames that belong to it."""
    if os.getpid() != PID:
        raise RuntimeError(f"{name}: a forked process is not an engine; only the engine's own process can do this")
    arguments["call"] = name
    head, frames = _commworld.call(dump(arguments), list(buffers))
    answer = json.loads(head)
    error = answer.get("error")
    if error is not None:
        raise exception(error["ename"], error["evalue"])
    return answer.get("ok"), frames


def exception(ename, evalue):
    """The engine's error as Python's."""
    kind = _ERRORS.get(ename) or getattr(builtins, ename, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind(evalue)
    return RuntimeError(f"{ename}: {evalue}")


def _memory(frame):
    memory = (ctypes.c_ubyte * len(frame)).from_address(frame.address)
    memory.frame = frame  # The memory lives as long as the view.
    return memoryview(memory).cast("B")


def view(frame):
    """The bytes of a frame, without a copy if they are many. Read-only: others may read them too."""
    return frame.copy() if len(frame) <= COPIED_BYTES_MAX else _memory(frame).toreadonly()


def own(frame):
    """The bytes of a frame that was made for this call alone, to be written to."""
    return bytearray(frame.copy()) if len(frame) <= COPIED_BYTES_MAX else _memory(frame)
