"""Engines that die: whoever waits for them is told, and tasks that may be tried again are."""

import os
import signal
import time

from setting import PROFILE_DIR, connect, equal, fails, until

rc = connect(3)
view = rc.load_balanced_view()
pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))

# A direct call to an engine that is killed.
waiting = rc[0].apply_async(time.sleep, 600)
until("it runs", lambda: rc.queue_status()[0]["queue"] == 1)
time.sleep(0.3)
began = time.monotonic()
os.kill(pids[0], signal.SIGKILL)
fails("EngineError", waiting.get, timeout=30)
assert time.monotonic() - began < 10, time.monotonic() - began
until("it is listed no more", lambda: rc.ids == [1, 2])
equal(sorted(rc.queue_status(), key=str), [1, 2, "unassigned"])


# A balanced task kills the engine that it is given to first, and runs on the other; the rest of a map goes on.
def kill_the_first(mark):
    import os
    import signal

    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)


numbers = view.map_async(lambda x: (__import__("time").sleep(0.02), x)[1], range(50), return_exceptions=True)
with view.temp_flags(retries=1):
    survivor = view.apply_async(kill_the_first, os.path.join(PROFILE_DIR, "killed"))
pid = survivor.get(timeout=40)
[left] = until("one engine is left", lambda: rc.ids if len(rc.ids) == 1 else None)
equal(pid, pids[left])
results = numbers.get(timeout=40)
wrong = [result for x, result in enumerate(results) if result != x]
# Without retries, at most the few that the engine held are lost, and these say so.
equal({getattr(error, "ename", error) for error in wrong} <= {"EngineError"}, True)
assert len(wrong) <= 16, wrong

fails("EngineError", view.apply_async(kill_the_first, os.path.join(PROFILE_DIR, "again")).get, timeout=40)
until("no engine is left", lambda: rc.ids == [])
equal(rc.queue_status(), {"unassigned": 0})
rc.close()
