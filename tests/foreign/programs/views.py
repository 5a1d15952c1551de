"""Direct views: code, functions and data on chosen engines, and what comes back."""

import asyncio
import os
import tempfile

import ipyparallel as ipp
import numpy as np
from setting import connect, equal, fails

rc = connect(2)
both = rc[:]
one = rc[1]

# Functions, with arguments of every kind.
equal(both.apply_sync(lambda x, y=0: x + y, 40, y=2), [42, 42])
equal(one.apply_sync(os.getpid) == os.getpid(), False)
equal(len(set(both.apply_sync(os.getpid))), 2)
results = both.apply_async(pow, 2, 10)
equal(results.get(timeout=30), [1024, 1024])
equal(results.successful(), True)
equal(sorted(results.metadata[0].keys() & {"engine_id", "started", "completed", "received", "submitted"}),
      ["completed", "engine_id", "received", "started", "submitted"])
equal(results.get_dict(), {0: 1024, 1: 1024})
# Times are of one clock and in order, or these raise or are negative.
assert results.wall_time >= 0 and results.serial_time >= 0, (results.wall_time, results.serial_time)

# Code, and its output. The output of an engine is there when its result is.
executed = both.execute("import sys; print('to stdout'); print('to stderr', file=sys.stderr); 6 * 7", silent=False, block=True)
equal(executed.stdout, ["to stdout\n"] * 2)
equal(executed.stderr, ["to stderr\n"] * 2)
equal([result.execute_result["data"]["text/plain"] for result in executed.metadata], ["42", "42"])
shown = one.execute("from IPython.display import HTML, display; display(HTML('<b>bold</b>'))", block=True)
equal([output["data"]["text/html"] for output in shown.outputs], ["<b>bold</b>"])

# Errors have the engine's traceback and say which engine.
error = fails("ZeroDivisionError", both.execute, "1/0", block=True)
equal(sorted(info["engine_id"] for _, _, _, info in error.elist), [0, 1])
assert "1/0" in "\n".join(error.render_traceback()), error.render_traceback()
equal(fails("ZeroDivisionError", one.apply_sync, lambda: 1 / 0).engine_info["engine_id"], 1)

# Names.
both.push({"a": 5, "b": "five"}, block=True)
equal(both.pull(("a", "b"), block=True), [[5, "five"]] * 2)
both["c"] = {"nested": [1, (2, 3)]}
equal(both["c"], [{"nested": [1, (2, 3)]}] * 2)
equal(one.apply_sync(lambda x: x + 1, ipp.Reference("a")), 6)
fails("NameError", both.pull, "nothing_of_this_name", block=True)

# Arrays, to the last bit, of all kinds that travel as raw memory and some that do not.
generator = np.random.default_rng(7)
arrays = [
    generator.random((100, 30)),
    generator.integers(0, 1 << 40, size=5000),
    generator.random((40, 40)).T[::2],
    np.array([(1, 2.5), (3, 4.5)], dtype=[("i", "<i4"), ("f", "<f8")]),
    np.array(3.5),
    np.zeros((0, 3)),
    np.array(["text", None], dtype=object),
    generator.random(1 << 20),  # 8 MiB
]
for array in arrays:
    one.push({"array": array}, block=True)
    back = one.pull("array", block=True)
    equal((back.dtype, back.shape), (array.dtype, array.shape))
    np.testing.assert_array_equal(back, array)
whole = np.arange(101.0)
both.scatter("part", whole, block=True)
equal([len(part) for part in both["part"]], [51, 50])
both.execute("part = part * 2", block=True)
np.testing.assert_array_equal(both.gather("part", block=True), whole * 2)
both.scatter("rank", list(rc.ids), flatten=True, block=True)
equal(both["rank"], [0, 1])

# Maps, files, imports, asyncio.
equal(both.map_sync(lambda x: x**2, range(11)), [x**2 for x in range(11)])
equal(list(both.map(lambda x, y: x * y, range(5), range(5), block=False)), [0, 1, 4, 9, 16])
with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
    file.write("def from_file(x):\n    return x + 'file'\n")
    file.flush()
    both.run(file.name, block=True)
equal(both.apply_sync(ipp.Reference("from_file"), "a "), ["a file"] * 2)
with both.sync_imports(quiet=True):
    import fractions
equal(one.apply_sync(lambda: str(fractions.Fraction(6, 4))), "3/2")


async def waited():
    return await asyncio.wrap_future(both.apply_async(lambda: "awaited"))


equal(asyncio.run(waited()), ["awaited"] * 2)

both.use_cloudpickle()
equal(both.apply_sync(lambda x: np.sum(x), np.arange(4)), [6, 6])
both.use_pickle()

rc.clear(block=True)
fails("NameError", both.pull, "a", block=True)
equal(rc.outstanding, set())
rc.close()
