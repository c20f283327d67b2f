#!/usr/bin/env python3
"""Run CPython's own asyncio tests with gyre in the place of asyncio's C types and loop.

    python tests/conformance/run.py                  every suite of this interpreter
    python tests/conformance/run.py test_tasks -v    one suite, each test named
    python tests/conformance/run.py test_tasks -k cancel

The tests come from the running interpreter (the package test.test_asyncio), so each Python checks
gyre against its own idea of asyncio.  Each suite runs in a process of its own: a crash or a hang
costs that suite, not the run.

What cannot pass is listed in exclusions/*.txt, one file per reason (exclusions.py).  An excluded
test still runs, and one that passes is an error: the list can only shrink.  Exit status: 0 if
everything passed or failed as listed.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import exclusions
import injection

HERE = pathlib.Path(__file__).resolve().parent
MODULE_SECONDS = 300.0

# Suite -> the injection it runs under (a function in injection.py).  A suite is a module of
# test.test_asyncio, or module@variant where one module runs under several injections.
SUITES = {
    "test_futures": injection.types,
    "test_futures2": injection.types,
    "test_tasks": injection.types,
    "test_eager_task_factory": injection.types,
    "test_free_threading": injection.types,
    "test_graph": injection.loop_products,
    "test_taskgroups": injection.types,
    "test_timeouts": injection.types,
    "test_waitfor": injection.types,
    "test_locks": injection.types,
    "test_queues": injection.types,
    "test_runners": injection.types,
    "test_staggered": injection.types,
    "test_context": injection.types,
    "test_pep492": injection.types,
    "test_threads": injection.types,
    "test_futures2@loop": injection.loop,
    "test_eager_task_factory@loop": injection.loop,
    "test_free_threading@loop": injection.loop,
    "test_graph@loop": injection.loop,
    "test_taskgroups@loop": injection.loop,
    "test_timeouts@loop": injection.loop,
    "test_waitfor@loop": injection.loop,
    "test_locks@loop": injection.loop,
    "test_queues@loop": injection.loop,
    "test_runners@loop": injection.loop,
    "test_staggered@loop": injection.loop,
    "test_context@loop": injection.loop,
    "test_threads@loop": injection.loop,
}


def module_of(suite):
    """The module of test.test_asyncio behind a suite."""
    return suite.partition("@")[0]


def available(suite):
    """Is this test module part of the running Python?"""
    return importlib.util.find_spec(f"test.test_asyncio.{module_of(suite)}") is not None


def run_child(suite, pattern):
    """Run one suite in a child process.  Returns (outcomes, error text or None, output)."""
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        command = [sys.executable, "-X", "faulthandler", str(HERE / "child.py"), suite, report]
        command += ["-k", pattern] if pattern else []
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=MODULE_SECONDS,
                text=True,
                errors="replace",
            )
        except subprocess.TimeoutExpired as exc:
            output = exc.output or b""
            if isinstance(output, bytes):
                output = output.decode(errors="replace")
            return {}, f"still running after {MODULE_SECONDS:.0f} s", output
        if not os.path.exists(report):
            return {}, f"ended with status {done.returncode} before its report", done.stdout
        with open(report, encoding="utf-8") as file:
            return json.load(file), None, done.stdout


def judge(outcomes, excluded):
    """Split a module's outcomes by what the exclusions expect."""
    tally = {"passed": 0, "skipped": 0, "excluded": 0}
    failed, unexpected = [], []
    for name, (outcome, detail) in sorted(outcomes.items()):
        if outcome == "skipped":
            tally["skipped"] += 1
        elif name in excluded:
            if outcome == "failed":
                tally["excluded"] += 1
            elif outcome == "passed":
                unexpected.append(f"{name}: passes, take it off exclusions/{excluded[name]}")
        elif outcome == "passed":
            tally["passed"] += 1
        else:
            failed.append((name, detail))
    return tally, failed, unexpected


def stale(outcomes, excluded, suite):
    """Exclusions for this suite that name no test at all."""
    return [
        f"{name}: no such test here, take it off exclusions/{file}"
        for name, file in sorted(excluded.items())
        if name.partition(".")[0] == suite and name not in outcomes
    ]


def run_suite(suite, options, excluded, skipped):
    """Run, judge and print one suite; returns how many passed, failed and did not count."""
    started = time.monotonic()
    outcomes, error, output = run_child(suite, options.pattern)
    tally, failed, problems = judge(outcomes, excluded)
    if not options.pattern and error is None:
        problems += stale(outcomes, {**excluded, **skipped}, suite)
    if options.verbose:
        for name, (outcome, _) in sorted(outcomes.items()):
            print(f"  {outcome:8} {name}")
    for name, detail in failed:
        print(f"FAILED {name}\n{detail}")
    for problem in problems:
        print(f"ERROR {problem}")
    if error is not None:
        print(f"ERROR {suite} {error}; the end of its output:\n{output[-6000:]}")
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count} {kind}" for kind, count in tally.items())
    print(f"{suite:30} {counts}, {len(failed)} failed  ({seconds:.1f} s)", flush=True)
    wrong = len(failed) + len(problems) + (error is not None)
    return tally["passed"], wrong, tally["skipped"] + tally["excluded"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: all there are")
    parser.add_argument("-k", dest="pattern", help="only tests whose name contains this")
    parser.add_argument("-v", dest="verbose", action="store_true", help="name every test")
    options = parser.parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"unknown suite {unknown[0]}: choose from {', '.join(SUITES)}")
    excluded, skipped = exclusions.load(sys.version_info[:2])
    suites = [name for name in options.suites or SUITES if available(name)]
    if not suites:
        print("this Python comes without test.test_asyncio (Debian: libpython3.x-testsuite)")
        return 1
    counts = [run_suite(name, options, excluded, skipped) for name in suites]
    print(
        f"conformance on Python {sys.version.split()[0]}: {len(counts)} suites, "
        f"{sum(count[1] > 0 for count in counts)} not as expected"
    )
    # ./dev test reads this line; excluded tests are among the skipped.
    print("{} passed, {} failed, {} skipped".format(*map(sum, zip(*counts))))
    return 1 if any(count[1] for count in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
