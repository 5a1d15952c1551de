"""ipyparallel's client with this project's Python engines, two ranks of one MPI world."""

import re
import time

import ipyparallel as ipp
import numpy as np
from setting import connect, equal, fails, until

#: Seconds from an interrupt to the error at the client, on a test machine that does other things too; what people
#: are promised is less (docs/BENCHMARKS.md).
INTERRUPTED_WITHIN = 2.0

rc = connect(2)
both, first = rc[:], rc[0]
both.block = first.block = True
equal([rc[id].apply_sync(lambda: __import__("commworld").rank()) for id in rc.ids], [0, 1])


def ran(code, view=both):
    return view.execute(code, silent=False, block=True)


# The world: the engines' own functions, and mpi4py in the same MPI.
both.execute("import numpy as np; from mpi4py import MPI; a = np.arange(3.0) + 10 * rank()")
both.execute("s = psum(a); m = allreduce(a, 'max'); world = (MPI.Is_initialized(), MPI.COMM_WORLD.rank == rank())")
equal(both["s"], [36.0, 36.0])
equal([m.tolist() for m in both["m"]], [[10.0, 11.0, 12.0]] * 2)
equal(both["world"], [(True, True)] * 2)
both.execute("buffer = np.empty(3); MPI.COMM_WORLD.Allreduce(a, buffer); buffer[0] += 1; m += 1")
equal([part.tolist() for part in both["buffer"]], [[11.0, 12.0, 14.0]] * 2)
both.execute("everything = allgather({'rank': rank()}); x = bcast([1, 'two'] if rank() == 0 else None)")
equal(both["everything"], [[{"rank": 0}, {"rank": 1}]] * 2)
equal(both["x"], [[1, "two"]] * 2)
both.execute("part = scatter(list(range(5)) if rank() == 1 else None, root=1); g = gather(a[:1 + rank()])")
equal(both["part"], [[0, 1, 2], [3, 4]])
equal(both["g"][0].tolist(), [0.0, 10.0, 11.0])
both.execute("send({'from': rank()}, 1 - rank()); got = recv(1 - rank())")
equal(both["got"], [{"from": 1}, {"from": 0}])
equal(both.apply_sync(lambda: (pmin(a), pmax(a), pmean(a), psum(2), psum(True))), [(0.0, 12.0, 6.0, 4, 2)] * 2)
fails("TypeError", both.execute, "psum('text')", block=True)
fails("CollectiveError", both.execute, "psum(1) if rank() else barrier()", block=True)
both.execute("s = psum(1)")
equal(both["s"], [2, 2])

# Output: from Python, from C, from threads and forked processes; all of it before the answer.
result = ran("import ctypes, sys; libc = ctypes.CDLL(None); print('python'); libc.puts(b'C'); print('err', file=sys.stderr)")
for stdout in result.stdout:
    equal(sorted(stdout.split()), ["C", "python"])
equal(result.stderr, ["err\n"] * 2)
result = ran("import threading; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()", first)
equal(result.stdout, "thread\n")
result = ran("import multiprocessing as mp; p = mp.get_context('fork').Process(target=print, args=('fork',)); p.start(); p.join()", first)
equal(result.stdout, "fork\n")
result = ran("import os; _ = os.system('echo shell')", first)
equal(result.stdout, "shell\n")

# IPython's semantics: the last value, magics, rich output, pictures, tracebacks.
equal([m["execute_result"]["data"]["text/plain"] for m in ran("1 + 1").metadata], ["2", "2"])
result = ran("%env COMMWORLD_TEST=1\nfrom IPython.display import HTML, display\ndisplay(HTML('<b>x</b>'))", first)
equal([output["data"]["text/html"] for output in result.outputs], ["<b>x</b>"])
result = ran("import matplotlib.pyplot as plt; plt.plot([1, 2]); None", first)
assert any("image/png" in output["data"] for output in result.outputs), result.outputs
error = fails("ZeroDivisionError", first.execute, "def divide(x):\n    return 1 / x\ndivide(0)", block=True)
told = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
assert "divide(0)" in told and "return 1 / x" in told, told
fails("StdinNotImplementedError", first.execute, "input()", block=True)
equal(first.apply_sync(lambda: get_ipython().run_line_magic("who_ls", "") != []), True)
result = first.execute("y = await __import__('asyncio').sleep(0, 'awaited')", block=True)
equal(first["y"], "awaited")

# Data, moved and published.
large = np.random.rand(200_000)
first["large"] = large
np.testing.assert_array_equal(first["large"], large)
both.scatter("piece", np.arange(9))
equal(both.gather("piece").tolist(), list(range(9)))
result = first.apply_async(lambda: __import__("ipyparallel.datapub").datapub.publish_data({"progress": 0.5}))
result.get(30)
equal(result.data, {"progress": 0.5})
balanced = rc.load_balanced_view()
equal(balanced.map_sync(lambda x: x**2, range(20)), [x**2 for x in range(20)])


@ipp.depend(lambda: __import__("commworld").rank() == 1)
def only_on_rank_one():
    return rank()


equal({balanced.apply_sync(only_on_rank_one) for _ in range(5)}, {1})


# Interrupts: in Python, in a wait, in a collective that a rank is missing from; and what comes after them.
def interrupted(code, after="2"):
    running = first.execute(f"print('begun')\n{code}", silent=False, block=False)
    until("it runs", lambda: rc.metadata[running.msg_ids[0]]["stdout"])
    start = time.monotonic()
    rc.send_signal("SIGINT", targets=0, block=True)
    fails("KeyboardInterrupt", running.get, timeout=20)
    elapsed = time.monotonic() - start
    assert elapsed < INTERRUPTED_WITHIN, (code, elapsed)
    both.execute("s = psum(1)")
    equal(both["s"], [2, 2])


interrupted("while True: pass")
interrupted("import time; time.sleep(60)")
interrupted("psum(1)")
interrupted("recv(1)")
interrupted("try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    raise")
# Caught, it is over; and late, it hits nobody.
running = first.execute(
    "print('begun')\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')\nz = 'went on'",
    silent=False,
    block=False,
)
until("it runs", lambda: rc.metadata[running.msg_ids[0]]["stdout"])
rc.send_signal("SIGINT", targets=0, block=True)
running.get(20)
equal(first["z"], "went on")
rc.send_signal("SIGINT", block=True)
equal(both.apply_sync(lambda: sum(range(100_000))), [4999950000] * 2)

# Emptied, the namespace still has what every engine has.
rc.clear(block=True)
fails("NameError", both.execute, "a", block=True)
both.execute("s = psum(1)")
equal(both["s"], [2, 2])
rc.close()
