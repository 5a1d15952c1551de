"""Runs our controller where a Python program asks for ipyparallel's.

Python imports a module of this name whenever it starts, if its folder is on PYTHONPATH. All of ipyparallel, its
tests and `ipcluster` start a controller as `python -m ipyparallel.controller ...`; such a process becomes the
program that COMMWORLD_CONTROLLER names, with the same arguments, before anything of ipyparallel is imported. It keeps
its process id, so that whoever started it can signal it and wait for it. Nothing happens without that variable.
"""

import os
import sys

CONTROLLERS = ("ipyparallel.controller", "ipyparallel.apps.ipcontrollerapp")

# Asked by tests that compare with ipyparallel.__version__, and with its own help. Our controller has a version and
# a help of its own, so these are the original's to answer; no controller runs then.
QUESTIONS = {"--version", "--help-all"}


def arguments_for_a_controller(command):
    """What follows `-m ipyparallel.controller` in a Python's command line; None if that is not what it runs."""
    for position, word in enumerate(command[1:], start=1):
        if word == "-m":
            module, *arguments = command[position + 1 :] or [None]
            return arguments if module in CONTROLLERS else None
        if not word.startswith("-"):
            return None
    return None


program = os.environ.get("COMMWORLD_CONTROLLER")
if program:
    arguments = arguments_for_a_controller(sys.orig_argv)
    if arguments is not None and QUESTIONS.isdisjoint(arguments):
        os.execv(program, [program, *arguments])
