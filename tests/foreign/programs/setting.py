"""What the programs share: the cluster that a test started for them, a limit to their time, and comparisons that say
what was found."""

import faulthandler
import os
import time

import ipyparallel as ipp

# The test gives up later than this: a program that hangs should say where.
faulthandler.dump_traceback_later(int(os.environ.get("SECONDS_AT_MOST", 50)), exit=True)

PROFILE_DIR = os.environ["PROFILE_DIR"]


def connect(engines=2):
    """A client, as soon as so many engines can be used."""
    client = ipp.Client(profile_dir=PROFILE_DIR)
    client.wait_for_engines(engines, timeout=45, interactive=False)
    return client


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def fails(name, function, *arguments, **keywords):
    """Calls what must fail on an engine, or in the controller, with an exception of this name; returns the error."""
    try:
        result = function(*arguments, **keywords)
    except ipp.CompositeError as error:
        equal({ename for ename, _, _, _ in error.elist}, {name})
        return error
    except ipp.RemoteError as error:
        equal(error.ename, name)
        return error
    except ipp.error.TaskAborted as error:  # the client makes it of a reply without an error
        equal("TaskAborted", name)
        return error
    raise AssertionError(f"returned {result!r}, expected the error {name}")


def until(what, condition, seconds=20):
    """Waits until a condition holds; returns what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain until {what}")
        time.sleep(0.02)
    return found
