"""What the controller costs beside a stock client: tasks that do nothing, balanced, as fast as the client submits them.

Starts a cluster as ipyparallel does, so that either controller can be measured. TASKS is how many tasks;
SHARE_AT_MOST how much of the client's CPU time the controller may use.
"""

import os
import time

import psutil
from setting import PROFILE_DIR, equal

import ipyparallel as ipp

TASKS = int(os.environ.get("TASKS", 5000))
SHARE_AT_MOST = float(os.environ.get("SHARE_AT_MOST", "inf"))


def cpu_seconds(*processes):
    """User and system time; all of a process's threads."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def nothing():
    pass


with ipp.Cluster(n=2, profile_dir=PROFILE_DIR, log_level=30) as rc:
    me, controller = psutil.Process(), psutil.Process(rc.cluster.controller.pid)
    # The original's schedulers are processes of their own.
    controllers = [controller, *controller.children(recursive=True)]
    view = rc.load_balanced_view()
    rc.wait([view.apply_async(nothing) for _ in range(100)], timeout=20)  # imports, connections

    began, client, theirs = time.monotonic(), cpu_seconds(me), cpu_seconds(*controllers)
    results = [view.apply_async(nothing) for _ in range(TASKS)]
    assert rc.wait(results, timeout=300)
    seconds = time.monotonic() - began
    client, theirs = cpu_seconds(me) - client, cpu_seconds(*controllers) - theirs
    equal({result.get() for result in results}, {None})

share = theirs / client
print(f"{TASKS} tasks that do nothing: {TASKS / seconds:.0f} a second; CPU: client {client:.2f} s, "
      f"controller {theirs:.2f} s in {len(controllers)} processes, {share:.1%} of the client's")
assert share < SHARE_AT_MOST, f"the controller may use {SHARE_AT_MOST:.0%} of the client's"
