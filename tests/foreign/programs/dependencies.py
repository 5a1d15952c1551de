"""Where and when a task may run: after, follow, @depend, @require."""

import os
import time

import ipyparallel as ipp
from setting import connect, equal, fails, until

rc = connect(2)
view = rc.load_balanced_view()
pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))


def fail():
    raise ValueError("as asked")


# After: in order of time, whatever the engine.
first = view.apply_async(lambda: (__import__("time").sleep(0.5), __import__("time").time())[1])
with view.temp_flags(after=first):
    second = view.apply_async(time.time)
assert second.get(timeout=30) >= first.get(timeout=30)

# Follow: on the same engine.
for _ in range(6):
    place = view.apply_async(os.getpid)
    with view.temp_flags(follow=place):
        same = view.apply_async(os.getpid)
    equal(same.get(timeout=30), place.get(timeout=30))

# Success and failure can be asked for; what cannot come any more is said at once.
good, bad = view.apply_async(os.getpid), view.apply_async(fail)
fails("ValueError", bad.get, timeout=30)
with view.temp_flags(after=ipp.Dependency([bad], success=False, failure=True)):
    equal(view.apply_async(lambda: "after a failure").get(timeout=30), "after a failure")
with view.temp_flags(after=ipp.Dependency([good, bad], all=False)):
    equal(view.apply_async(lambda: "after any").get(timeout=30), "after any")
with view.temp_flags(after=bad):
    fails("ImpossibleDependency", view.apply_async(os.getpid).get, timeout=30)
with view.temp_flags(after="no such task"):
    fails("InvalidDependency", view.apply_async(os.getpid).get, timeout=30)

# Two tasks that ran apart cannot both be followed.
apart = []
for id in rc.ids:
    with view.temp_flags(targets=id):
        apart.append(view.apply_async(os.getpid))
equal([result.get(timeout=30) for result in apart], [pids[0], pids[1]])
with view.temp_flags(follow=apart):
    fails("ImpossibleDependency", view.apply_async(os.getpid).get, timeout=30)


# A function can say itself where it runs: engines that refuse are left out.
@ipp.depend(lambda pid: __import__("os").getpid() == pid, pids[1])
def there():
    import os

    return os.getpid()


equal([view.apply(there).get(timeout=30) for _ in range(5)], [pids[1]] * 5)


@ipp.depend(lambda: False)
def nowhere():
    return "never"


with view.temp_flags(targets=rc.ids):
    fails("ImpossibleDependency", view.apply_async(nowhere).get, timeout=30)


@ipp.require("fractions")
def with_import():
    return str(fractions.Fraction(1, 2))  # noqa: F821


@ipp.require("no_module_of_this_name")
def without_import():
    return "never"


equal(view.apply_async(with_import).get(timeout=30), "1/2")
with view.temp_flags(targets=rc.ids):
    fails("ImpossibleDependency", view.apply_async(without_import).get, timeout=30)

# A chain and a diamond, submitted at once.
rc[:].execute("seen = []", block=True)
chain = [view.apply_async(time.time)]
for _ in range(20):
    with view.temp_flags(after=chain[-1]):
        chain.append(view.apply_async(time.time))
times = [result.get(timeout=30) for result in chain]
equal(times, sorted(times))
top = view.apply_async(time.time)
with view.temp_flags(after=top):
    sides = [view.apply_async(time.time) for _ in range(8)]
with view.temp_flags(after=sides):
    bottom = view.apply_async(time.time)
assert top.get(timeout=30) <= min(side.get(timeout=30) for side in sides)
assert max(side.get(timeout=30) for side in sides) <= bottom.get(timeout=30)
equal(rc.outstanding, set())
rc.close()
