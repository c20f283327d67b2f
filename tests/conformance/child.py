"""One module of test.test_asyncio, run with gyre underneath: child.py MODULE REPORT [-k PATTERN].

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


class Outcomes(unittest.TestResult):
    """Outcomes by test name; a test with a failing subtest has failed."""

    def __init__(self):
        super().__init__()
        self.by_name = {}

    def note(self, test, outcome, detail=""):
        name = test.id().removeprefix("test.test_asyncio.").partition(" ")[0]
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


def main(module, report, *rest):
    faulthandler.dump_traceback_later(STALL_SECONDS, exit=True)
    pattern = rest[1] if rest else ""
    _, not_run = exclusions.load(sys.version_info[:2])
    run.SUITES[module]()
    tests = unittest.defaultTestLoader.loadTestsFromModule(
        importlib.import_module(f"test.test_asyncio.{module}")
    )
    chosen, left_out = unittest.TestSuite(), {}
    for test in flatten(tests):
        name = test.id().removeprefix("test.test_asyncio.")
        if name in not_run:
            left_out[name] = ("skipped", "listed with ! in exclusions/")
        elif pattern in name:
            chosen.addTest(test)
    outcomes = Outcomes()
    chosen.run(outcomes)
    with open(report, "w", encoding="utf-8") as file:
        json.dump({**left_out, **outcomes.by_name}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
