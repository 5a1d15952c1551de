"""Runs our controller and our Python engines where a Python program asks for ipyparallel's.

Python imports a module of this name whenever it starts, if its folder is on PYTHONPATH. All of ipyparallel, its
tests and `ipcluster` start a controller as `python -m ipyparallel.controller ...`; such a process becomes the
program that COMMWORLD_CONTROLLER names, with the same arguments, before anything of ipyparallel is imported. So does
an engine, the program of COMMWORLD_ENGINE, as `--python` with this interpreter. It keeps its process id, so that
whoever started it can signal it and wait for it. Nothing happens without these variables.
"""

import os
import sys

CONTROLLERS = ("ipyparallel.controller", "ipyparallel.apps.ipcontrollerapp")
ENGINES = ("ipyparallel.engine", "ipyparallel.apps.ipengineapp")

# Asked by tests that compare with ipyparallel.__version__, and with its own help. Our programs have a version and
# a help of their own, so these are the original's to answer; nothing else runs then.
QUESTIONS = {"--version", "--help-all"}


def arguments_for(modules, command):
    """What follows `-m` and one of these modules in a Python's command line; None if that is not what it runs."""
    for position, word in enumerate(command[1:], start=1):
        if word == "-m":
            module, *arguments = command[position + 1 :] or [None]
            return arguments if module in modules else None
        if not word.startswith("-"):
            return None
    return None


def become(variable, modules, *options):
    program = os.environ.get(variable)
    arguments = arguments_for(modules, sys.orig_argv) if program else None
    if arguments is not None and QUESTIONS.isdisjoint(arguments):
        os.execv(program, [program, *options, *arguments])


become("COMMWORLD_CONTROLLER", CONTROLLERS)
become("COMMWORLD_ENGINE", ENGINES, f"--python={sys.executable}")
