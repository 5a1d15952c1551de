"""A person at IPython's prompt: %px, %%px, %autopx, %pxresult, and Ctrl-C."""

import os
import re
import signal
import sys
import tempfile

import pexpect
from setting import PROFILE_DIR, connect, until

PROMPT = r"\nIn \[\d+\]: "

watcher = connect(2)
shell = pexpect.spawn(
    sys.executable,
    ["-m", "IPython", "--no-banner", "--simple-prompt", "--colors=NoColor", "--HistoryManager.enabled=False"],
    encoding="utf-8",
    timeout=30,
    dimensions=(50, 200),
    # What runs in the background of a script is started with the signal ignored, and so is all that it starts.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
)
shell.expect("In \\[1\\]: ")


def answer():
    shell.expect(PROMPT)
    return re.sub(r"\r", "", shell.before)


def type_in(*lines):
    """Types a line, or the lines of a cell; returns what is printed until the next prompt."""
    ending = ("", "") if len(lines) > 1 else ()
    for line in lines + ending:
        shell.sendline(line)
    return answer()


def has(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is missing in:\n{text}")


try:
    type_in("import ipyparallel as ipp")
    type_in(f"rc = ipp.Client(profile_dir={PROFILE_DIR!r}); view = rc[:]; view.block = True; view.activate()")
    type_in("%px import os; x = os.getpid()")
    has(type_in("%px print('x is', x > 0)"), "[stdout:0] \nx is True", "[stdout:1] \nx is True")
    has(type_in("%px 6 * 7"), "Out[0:", "Out[1:", "42")
    has(type_in("%%px --targets 1", "y = 5", "print('y is', y)"), "y is 5")
    has(type_in("%px y"), "[0:execute]", "NameError")
    has(type_in("%%px --noblock -o later", "z = 7", "z * 3"), "AsyncResult")
    has(type_in("%pxresult"), "Out[0:", "Out[1:", "21")
    has(type_in("later.get(); later.successful()"), "True")
    has(type_in("%%px --group-outputs=engine", "print('one')", "'two'"), "one", "two")
    has(type_in("%autopx"), "%autopx enabled")
    type_in("w = x + 1")
    has(type_in("print('on an engine', w > x)"), "[stdout:0] \non an engine True", "[stdout:1] \non an engine True")
    has(type_in("%autopx"), "%autopx disabled")
    has(type_in("'w' in globals()"), "False")
    has(type_in("view['w'] == [pid + 1 for pid in view['x']]"), "True")

    # Ctrl-C while both engines compute: they are interrupted, and answer again at once. That the hub has given them
    # the cell is not enough: an engine that has not begun it ignores the signal.
    with tempfile.TemporaryDirectory() as begun:
        shell.sendline(f"%px import time; open({begun!r} + '/' + str(os.getpid()), 'w').close(); time.sleep(600)")
        until("both engines run it", lambda: len(os.listdir(begun)) == 2)
    shell.sendintr()
    has(answer(), "Sending signal SIGINT to engines")
    has(type_in("%pxresult"), "[0:execute]", "[1:execute]", "KeyboardInterrupt")
    has(type_in("%px print('again')"), "[stdout:0] \nagain", "[stdout:1] \nagain")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
finally:
    shell.close(force=True)
watcher.close()
