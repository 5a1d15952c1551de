"""Load on a controller that the test kills and starts again, again and again: futures end, and none with a wrong result.

What the controller said in its last moment it says again, so that no future stays open (docs/decisions/0005): what a
client has already, it prints as a stale result, and goes on.

The test kills between the files `load` and `calm`, which the two sides write to tell each other how far they are.
"""

import collections
import os
import time

from setting import PROFILE_DIR, connect

import ipyparallel as ipp

# Few at a time, for the controller is killed within each one's life; but never so long that a lost one stops the load.
OUTSTANDING = 12
PATIENCE = 0.3

rc = connect(3)
balanced = rc.load_balanced_view()
submitted = []


def work(number):
    import time

    time.sleep(0.01)
    return number * number


def submit():
    number = len(submitted)
    target = rc[number % 3] if number % 7 == 3 else balanced
    submitted.append(target.apply_async(work, number))


open(os.path.join(PROFILE_DIR, "load"), "w").close()
calm = os.path.join(PROFILE_DIR, "calm")
while not os.path.exists(calm):
    end = time.monotonic() + PATIENCE
    # All that can be outstanding is near the end, but for what was lost, which is not waited for.
    while sum(not result.done() for result in submitted[-64:]) > OUTSTANDING and time.monotonic() < end:
        time.sleep(0.005)
    submit()
# A stock client hears of what was lost when it speaks again.
for _ in range(3):
    submit()
    time.sleep(0.5)

end = time.monotonic() + 20
while time.monotonic() < end and not all(result.done() for result in submitted):
    time.sleep(0.05)
outcomes = collections.Counter()
for number, result in enumerate(submitted):
    if not result.done():
        outcomes["reply lost"] += 1
        continue
    try:
        right = result.get(timeout=1) == number * number
        outcomes["right" if right else f"task {number} is wrong"] += 1
    except ipp.RemoteError as error:
        explained = error.ename == "EngineError" and "controller was restarted" in error.evalue
        outcomes["restarted" if explained else f"{error.ename}: {error.evalue}"] += 1
print(dict(outcomes))
assert outcomes.keys() <= {"right", "restarted"}, outcomes
# The errors are what was under way in a bad moment, not the rule.
assert outcomes["right"] > 10 * outcomes["restarted"], outcomes
assert not rc.outstanding, rc.outstanding
rc.close()
