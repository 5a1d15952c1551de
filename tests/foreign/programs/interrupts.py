"""Signals and aborts: what runs is interrupted, what waits is not run."""

from setting import connect, equal, fails, until

rc = connect(2)
both = rc[:]

# An engine that is idle takes no notice.
rc.send_signal("SIGINT", block=True)
equal(both.apply_sync(lambda: 5), [5, 5])

# One that computes stops, and only that one.
long = rc[0].execute("print('here')\nimport time\nwhile True: time.sleep(0.01)", block=False)
other = rc[1].apply_async(lambda: (__import__("time").sleep(1.5), "undisturbed")[1])
until("it runs", lambda: rc.metadata[long.msg_ids[0]]["stdout"])
rc.send_signal("SIGINT", targets=0, block=True)
fails("KeyboardInterrupt", long.get, timeout=20)
equal(other.get(timeout=20), "undisturbed")
equal(both.apply_sync(lambda: 6), [6, 6])

# What waits behind a task is aborted, the task itself goes on.
runs = rc[0].apply_async(lambda: (__import__("time").sleep(1.5), "to the end")[1])
behind = [rc[0].apply_async(lambda: "never") for _ in range(3)]
rc[0].abort(behind[:2], block=True)
for result in behind[:2]:
    fails("TaskAborted", result.get, timeout=20)
equal(runs.get(timeout=20), "to the end")
equal(behind[2].get(timeout=20), "never")

# A code cell that fails aborts the cells behind it.
failing = rc[0].execute("import time; time.sleep(1); 1/0", silent=False, block=False)
after = rc[0].execute("5", silent=False, block=False)
fails("ZeroDivisionError", failing.get, timeout=20)
fails("TaskAborted", after.get, timeout=20)
equal(both.apply_sync(lambda: 7), [7, 7])
rc.close()
