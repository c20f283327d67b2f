"""One suite of run.py: a module of test.test_asyncio with gyre underneath.

child.py SUITE REPORT [-k PATTERN]

Writes one line of JSON per event: [test name, outcome, detail, seconds]; the outcome is started,
passed, failed or skipped, and the last one of a test counts.  A last line [null, ...] says that
all of the suite has run: a child that dies leaves what it knows.
"""

import faulthandler
import importlib
import json
import signal
import sys
import time
import unittest

import exclusions
import run

STALL_SECONDS = 60.0  # for one test; then the process shows its stacks and ends


def name_of(test, suite):
    """The name in exclusions/: the suite takes the place of the module."""
    module = f"test.test_asyncio.{run.module_of(suite)}"
    return suite + test.id().removeprefix(module).partition(" ")[0]


class Outcomes(unittest.TestResult):
    """Outcomes by test name; a test with a failing subtest has failed."""

    def __init__(self, suite, report):
        super().__init__()
        self.suite = suite
        self.report = report
        self.failed = set()
        self.started = time.monotonic()

    def write(self, name, outcome, detail=""):
        seconds = round(time.monotonic() - self.started, 3)
        print(json.dumps([name, outcome, detail, seconds]), file=self.report, flush=True)

    def note(self, test, outcome, detail=""):
        name = name_of(test, self.suite)
        if name not in self.failed:
            self.write(name, outcome, detail)
        if outcome == "failed":
            self.failed.add(name)

    def startTest(self, test):
        super().startTest(test)
        faulthandler.dump_traceback_later(STALL_SECONDS, exit=True)
        self.started = time.monotonic()
        self.write(name_of(test, self.suite), "started")

    def addSuccess(self, test):
        self.note(test, "passed")

    def addError(self, test, err):
        self.note(test, "failed", self._exc_info_to_string(err, test))

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.note(test, "failed", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self.note(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.note(test, "passed")

    def addUnexpectedSuccess(self, test):
        self.note(test, "failed", "unexpected success")


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def main(suite, report, *rest):
    faulthandler.dump_traceback_later(STALL_SECONDS, exit=True)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A job that a shell put in the background; test_runners interrupts itself.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    pattern = rest[1] if rest else ""
    _, not_run = exclusions.load(sys.version_info[:2])
    run.SUITES[suite]()
    tests = unittest.defaultTestLoader.loadTestsFromModule(
        importlib.import_module(f"test.test_asyncio.{run.module_of(suite)}")
    )
    with open(report, "w", encoding="utf-8") as file:
        outcomes = Outcomes(suite, file)
        chosen = unittest.TestSuite()
        for test in flatten(tests):
            name = name_of(test, suite)
            if exclusions.is_skipped(name, not_run) and not run.STDLIB:
                outcomes.write(name, "skipped", "listed with ! in exclusions/")
            elif pattern in name:
                chosen.addTest(test)
        chosen.run(outcomes)
        outcomes.write(None, "passed")


if __name__ == "__main__":
    main(*sys.argv[1:])
