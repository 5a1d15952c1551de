"""An engine is killed under load: whoever waits for it learns of that at once, and only for what it had."""

import os
import signal
import time

from setting import connect, until

import ipyparallel as ipp

# From the kill to the last error at the client.
SOON = 0.5

rc = connect(3)
pids = dict(zip(rc.ids, rc[:].apply_sync(os.getpid)))


def kill_under_load(engine, submit):
    """Kills an engine while these calls are under way; returns what became of each."""
    results = [submit(number) for number in range(60)]
    until("some have ended", lambda: sum(result.done() for result in results) >= 6)
    killed = time.monotonic()
    os.kill(pids[engine], signal.SIGKILL)
    lost, told_last = [], killed
    waiting = dict(enumerate(results))
    while waiting:
        assert time.monotonic() - killed < 30, f"{len(waiting)} calls have no end"
        for number in [number for number, result in waiting.items() if result.done()]:
            try:
                assert waiting.pop(number).get() == number
            except ipp.RemoteError as error:
                assert error.ename == "EngineError", error
                lost.append(number)
                told_last = time.monotonic()
        time.sleep(0.002)
    print(f"engine {engine}: {len(lost)} calls lost, the last told after {told_last - killed:.3f} s")
    assert told_last - killed < SOON, f"told after {told_last - killed:.3f} s"
    return lost


def work(number):
    import time

    time.sleep(0.02)
    return number


# Direct calls: those to the engine that had not ended are lost, the other engines' are not.
lost = kill_under_load(0, lambda number: rc[number % 3].apply_async(work, number))
assert lost and all(number % 3 == 0 for number in lost), lost
until("it is listed no more", lambda: rc.ids == [1, 2])

# Balanced tasks: the few that it had are lost.
view = rc.load_balanced_view()
lost = kill_under_load(1, lambda number: view.apply_async(work, number))
assert 1 <= len(lost) <= 16, lost
until("it is listed no more", lambda: rc.ids == [2])

# What comes later is not touched by it.
assert view.map_sync(work, range(20)) == list(range(20))
rc.close()
