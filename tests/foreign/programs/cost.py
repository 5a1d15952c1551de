"""What the controller costs beside a stock client: tasks that do nothing, balanced, as fast as the client submits them.

CONTROLLER_PID is whose CPU time is read beside the own, TASKS how many tasks, SHARE_AT_MOST what is allowed.
"""

import os
import time

from setting import connect, equal

TASKS = int(os.environ.get("TASKS", 5000))
CONTROLLER = int(os.environ["CONTROLLER_PID"])


def cpu_seconds(pid):
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def nothing():
    pass


rc = connect(2)
view = rc.load_balanced_view()
rc.wait([view.apply_async(nothing) for _ in range(100)], timeout=20)  # imports, connections

began, client, controller = time.monotonic(), cpu_seconds(os.getpid()), cpu_seconds(CONTROLLER)
results = [view.apply_async(nothing) for _ in range(TASKS)]
assert rc.wait(results, timeout=300)
seconds = time.monotonic() - began
client, controller = cpu_seconds(os.getpid()) - client, cpu_seconds(CONTROLLER) - controller
equal({result.get() for result in results}, {None})
print(f"{TASKS} tasks: {TASKS / seconds:.0f} a second; CPU: client {client:.2f} s, controller {controller:.2f} s "
      f"({controller / client:.1%} of the client's)")
share = float(os.environ.get("SHARE_AT_MOST", 1))
assert controller < share * client, f"the controller used {controller:.2f} s of CPU, the client {client:.2f} s"
rc.close()
