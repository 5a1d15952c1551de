"""Broadcast views: one message to the controller, one answer or one from each engine."""

import os

import numpy as np
from setting import connect, equal, fails, until

rc = connect(3)
pids = [rc[id].apply_sync(os.getpid) for id in rc.ids]

for coalescing in (False, True):
    view = rc.broadcast_view(is_coalescing=coalescing)
    equal(view.apply_sync(os.getpid), pids)
    backwards = rc.broadcast_view(targets=rc.ids[::-1], is_coalescing=coalescing)
    equal(backwards.apply_sync(os.getpid), pids[::-1])
    some = rc.broadcast_view(targets=[2, 0], is_coalescing=coalescing)
    equal(some.apply_sync(os.getpid), [pids[2], pids[0]])

    array = np.arange(1 << 17, dtype="<f8")
    for back in view.apply_sync(lambda x: x * 2, array):
        np.testing.assert_array_equal(back, array * 2)
    view.push({"a": 3, "array": array}, block=True)
    equal(view.pull("a", block=True), [3, 3, 3])
    view.scatter("part", array, block=True)
    np.testing.assert_array_equal(view.gather("part", block=True), array)
    equal(view.map_sync(lambda x: x + 1, range(10)), list(range(1, 11)))
    view.execute("a += 1", block=True)
    equal(view["a"], [4, 4, 4])

    # An error of one engine is an error of the call, in either mode.
    fails("ZeroDivisionError", view.apply_sync, lambda: 1 / 0)

    def odd_one_out(pid):
        import os

        if os.getpid() == pid:
            raise LookupError("this one")
        return "fine"

    for pid in pids:
        fails("LookupError", view.apply_sync, odd_one_out, pid)

    printed = view.execute("print('from', __import__('os').getpid())", block=True)
    equal(printed.stdout, [f"from {pid}\n" for pid in pids])

    many = [view.apply_async(lambda x: x, number) for number in range(50)]
    for number, result in enumerate(many):
        equal(result.get(timeout=30), [number] * 3)
rc.close()
