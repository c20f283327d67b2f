"""One suite of run.py: a module of test.test_asyncio with gyre underneath.

child.py SUITE REPORT [-k PATTERN]

Writes {test name: [outcome, detail]} as JSON; the outcome is passed, failed or skipped.
"""

import faulthandler
import importlib
import json
import sys
import unittest

import exclusions
import run

STALL_SECONDS = 240.0


def name_of(test, suite):
    """The name in exclusions/: the suite takes the place of the module."""
    module = f"test.test_asyncio.{run.module_of(suite)}"
    return suite + test.id().removeprefix(module).partition(" ")[0]


class Outcomes(unittest.TestResult):
    """Outcomes by test name; a test with a failing subtest has failed."""

    def __init__(self, suite):
        super().__init__()
        self.suite = suite
        self.by_name = {}

    def note(self, test, outcome, detail=""):
        name = name_of(test, self.suite)
        if self.by_name.get(name, ("",))[0] != "failed":
            self.by_name[name] = (outcome, detail)

    def startTest(self, test):
        super().startTest(test)
        print("start", test.id(), flush=True)

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
    pattern = rest[1] if rest else ""
    _, not_run = exclusions.load(sys.version_info[:2])
    run.SUITES[suite]()
    tests = unittest.defaultTestLoader.loadTestsFromModule(
        importlib.import_module(f"test.test_asyncio.{run.module_of(suite)}")
    )
    chosen, left_out = unittest.TestSuite(), {}
    for test in flatten(tests):
        name = name_of(test, suite)
        if name in not_run:
            left_out[name] = ("skipped", "listed with ! in exclusions/")
        elif pattern in name:
            chosen.addTest(test)
    outcomes = Outcomes(suite)
    chosen.run(outcomes)
    with open(report, "w", encoding="utf-8") as file:
        json.dump({**left_out, **outcomes.by_name}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
