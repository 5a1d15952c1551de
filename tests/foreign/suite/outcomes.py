"""A pytest plugin: writes what became of each test as soon as it is known, so that a run that hangs or dies still
says how far it came.

Lines of the file that COMMWORLD_OUTCOMES names: outcome, seconds, test, reason, with tabs between them. The outcome is
one of collected, passed, failed, skipped, xfailed, xpassed.
"""

import os

PATH = os.environ["COMMWORLD_OUTCOMES"]


def write(outcome, seconds, test, reason=""):
    fields = (outcome, f"{seconds:.2f}", test, " ".join(reason.split())[:300])
    with open(PATH, "a", encoding="utf-8") as file:
        file.write("\t".join(fields) + "\n")


def name(nodeid):
    """`test_view.py::TestView::test_map`, wherever the package is installed."""
    path, _, rest = nodeid.partition("::")
    return f"{os.path.basename(path)}::{rest}"


def reason(report):
    if isinstance(report.longrepr, tuple):  # a skip: file, line, why
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash else str(report.longrepr or "")[-300:]


def outcome(report):
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome


class Tests:
    def __init__(self):
        self.phases = {}

    def pytest_collection_finish(self, session):
        for item in session.items:
            write("collected", 0, name(item.nodeid))

    def pytest_runtest_logreport(self, report):
        phases = self.phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when != "teardown":
            return
        del self.phases[report.nodeid]
        seconds = sum(phase.duration for phase in phases)
        # Whichever phase failed or skipped says what became of the test; else the call does.
        telling = [phase for phase in phases if phase.failed] or [phase for phase in phases if phase.skipped]
        telling = telling or [phase for phase in phases if phase.when == "call"]
        write(outcome(telling[0]), seconds, name(report.nodeid), reason(telling[0]))


def pytest_configure(config):
    config.pluginmanager.register(Tests(), "commworld-outcomes")
