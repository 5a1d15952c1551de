"""Load-balanced views: maps, retries, limits of time, targets, aborts."""

import os
import time

import ipyparallel as ipp
from setting import connect, equal, fails, until

rc = connect(2)
view = rc.load_balanced_view()


def slow_pid(_):
    import os
    import time

    time.sleep(0.05)
    return os.getpid()


# Maps.
equal(view.map_sync(lambda x: x**2, range(100)), [x**2 for x in range(100)])
equal(list(view.map(lambda x, y: x - y, range(50), range(50, 0, -1), chunksize=7, block=False)),
      [x - y for x, y in zip(range(50), range(50, 0, -1))])
equal(sorted(view.map(lambda x: x, range(30), ordered=False, block=False)), list(range(30)))
equal(list(view.imap(lambda x: x + 1, range(40), max_outstanding=5)), list(range(1, 41)))
equal(view.map_sync(lambda x: x, []), [])
used = view.map_async(slow_pid, range(12))
equal(len(set(used.get(timeout=30))), 2)
outcomes = view.map_sync(lambda x: 1 / x, [1, 0, 2], return_exceptions=True)
equal([outcomes[0], type(outcomes[1]).__name__, outcomes[2]], [1.0, "RemoteError", 0.5])

# Targets.
with view.temp_flags(targets=[1]):
    ran = [view.apply_async(os.getpid) for _ in range(4)]
equal({result.get(timeout=30) for result in ran}, {rc[1].apply_sync(os.getpid)})

# A task that fails on an engine is tried on the next; with no engine left its error comes back.
pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))


def only_on(pid):
    import os

    if os.getpid() != pid:
        raise RuntimeError("not here")
    return pid


with view.temp_flags(retries=1):
    equal([view.apply(only_on, pids[id]).get(timeout=30) for id in (0, 1)], [pids[0], pids[1]])
fails("RuntimeError", view.apply(only_on, -1).get, timeout=30)
with view.temp_flags(retries=10):
    fails("RuntimeError", view.apply(only_on, -1).get, timeout=30)

# A task that waits too long for an engine is given up.
busy = [rc[id].apply_async(time.sleep, 3) for id in rc.ids]
blocks = [view.apply_async(time.sleep, 0.1) for _ in range(40)]
with view.temp_flags(timeout=0.2):
    late = view.apply_async(lambda: "late")
fails("TaskTimeout", late.get, timeout=30)

# What waits in the controller can be aborted.
last = view.apply_async(lambda: "last")
view.abort([last], block=True)
fails("TaskAborted", last.get, timeout=30)
for result in busy + blocks:
    result.get(timeout=30)
until("nothing is queued any more",
      lambda: all(queue["queue"] + queue["tasks"] == 0 for id, queue in rc.queue_status().items() if id != "unassigned"))
equal(rc.queue_status()["unassigned"], 0)
rc.close()
