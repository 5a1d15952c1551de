"""What Python engines cost: ours and the original's, both in one MPI world of four ranks, in turns.

A stock client of each cluster runs `s = psum(a)`, where psum is mpi4py's Allreduce; it interrupts what runs; and it
pulls an array of 800 MB. PROFILE_DIR and RIVAL_PROFILE_DIR are the two clusters; ROUNDS is how often they take turns.
"""

import os
import statistics
import time

import numpy as np
from setting import connect, equal

import ipyparallel as ipp

ROUNDS = int(os.environ.get("ROUNDS", 5))
CELLS = 100
LARGE = 100_000_000  # numbers of 8 bytes
SETUP = """
import os, time
import numpy as np
from mpi4py import MPI
def psum(a):
    s = np.sum(a)
    received = np.array(0.0, 'd')
    MPI.COMM_WORLD.Allreduce([s, MPI.DOUBLE], [received, MPI.DOUBLE], op=MPI.SUM)
    return received
a = np.random.rand(100)
"""


def rival():
    client = ipp.Client(profile_dir=os.environ["RIVAL_PROFILE_DIR"])
    client.wait_for_engines(4, timeout=60, interactive=False)
    return client


clients = {"ours": connect(4), "original": rival()}
views = {whose: client[:] for whose, client in clients.items()}
for view in views.values():
    view.block = True
    view.execute(SETUP)
    equal(view.apply_sync(lambda: MPI.COMM_WORLD.size), [4] * 4)  # noqa: F821


def cells(view):
    def one():
        start = time.perf_counter()
        view.execute("s = psum(a)")
        return time.perf_counter() - start

    return statistics.median(one() for _ in range(CELLS))


def calls(view):
    def one():
        start = time.perf_counter()
        view.apply_sync(lambda: float(psum(a)))  # noqa: F821
        return time.perf_counter() - start

    return statistics.median(one() for _ in range(CELLS))


def inside(view):
    """Microseconds of one psum in a loop on the engines."""

    def loop():
        psum(a)  # noqa: F821
        start = time.perf_counter()
        for _ in range(1000):
            psum(a)  # noqa: F821
        return (time.perf_counter() - start) / 1000

    return statistics.median(view.apply_sync(loop))


def interrupt(client):
    running = client[0].execute("while True: pass", block=False)
    time.sleep(0.1)
    start = time.perf_counter()
    client.send_signal("SIGINT", targets=0, block=True)
    try:
        running.get(30)
    except ipp.RemoteError as error:
        equal(error.ename, "KeyboardInterrupt")
    return time.perf_counter() - start


def pull(client):
    """Seconds to pull 800 MB, and MiB that the engine's memory grew by at most meanwhile."""
    engine = client[0]
    engine.block = True
    engine.execute(f"large = np.ones({LARGE})")
    engine.execute("open('/proc/self/clear_refs', 'w').write('5')")  # forgets the peak
    before = engine.apply_sync(peak)
    start = time.perf_counter()
    pulled = engine["large"]
    seconds = time.perf_counter() - start
    equal((pulled.shape, float(pulled.sum())), ((LARGE,), float(LARGE)))
    grown = engine.apply_sync(peak) - before
    engine.execute("del large")
    return seconds, grown


def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def compare(name, measure, unit, factor, rounds=ROUNDS):
    found = {whose: [] for whose in clients}
    for _ in range(rounds):
        for whose in clients:
            found[whose].append(measure(whose))
    ours, original = (statistics.median(found[whose]) * factor for whose in ("ours", "original"))
    print(f"{name:<44} {ours:10.1f} {unit} {original:10.1f} {unit} {original / ours:8.2f}", flush=True)


print(f"{'':<44} {'ours':>13} {'original':>13} {'ratio':>8}")
compare("psum cell on 4 ranks, execute", lambda whose: cells(views[whose]), "ms", 1e3)
compare("psum call on 4 ranks, apply", lambda whose: calls(views[whose]), "ms", 1e3)
compare("one psum inside of the engines", lambda whose: inside(views[whose]), "us", 1e6)
compare("interrupt of a loop until the error is here", lambda whose: interrupt(clients[whose]), "ms", 1e3)
both = {whose: pull(client) for whose, client in clients.items()}
for whose, (seconds, grown) in both.items():
    print(f"{whose}: 800 MB pulled in {seconds:.1f} s; the engine's memory grew by {grown:.0f} MiB")
limit = float(os.environ.get("GROWTH_AT_MOST", "inf"))
assert both["ours"][1] < limit, f"the engine's memory may grow by {limit} MiB"
