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
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import time

import exclusions
import injection

HERE = pathlib.Path(__file__).resolve().parent
MODULE_SECONDS = 300.0
STDLIB = injection.STDLIB

# They take the longest: started first, they do not run alone at the end.
LONG_SUITES = ("test_events", "test_subprocess", "test_ssl", "test_tasks")

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
    "test_futures@loop": injection.loop,
    "test_tasks@loop": injection.loop,
    # The loop itself.
    "test_base_events": injection.base_loop,
    "test_buffered_proto": injection.unix_loop,
    "test_events": injection.unix_loop,
    "test_pep492@loop": injection.base_loop,
    "test_protocols": injection.unix_loop,
    "test_sendfile": injection.unix_loop,
    "test_server": injection.unix_loop,
    "test_server_context": injection.unix_loop,
    "test_sock_lowlevel": injection.unix_loop,
    "test_ssl": injection.unix_loop,
    "test_sslproto": injection.unix_loop,
    "test_streams": injection.unix_loop,
    "test_subprocess": injection.unix_loop,
    "test_tools": injection.unix_loop,
    "test_transports": injection.unix_loop,
    "test_unix_events": injection.unix_loop,
}

# Modules of test.test_asyncio that are not run, each with the reason.
NOT_RUN = {
    "test_proactor_events": "the code of asyncio's proactor loop, on mocks of it",
    "test_selector_events": "the code of asyncio's selector loop and transports, on mocks of them",
    "test_windows_events": "Windows only",
    "test_windows_utils": "Windows only",
}


def module_of(suite):
    """The module of test.test_asyncio behind a suite."""
    return suite.partition("@")[0]


def available(suite):
    """Is this test module part of the running Python?"""
    return importlib.util.find_spec(f"test.test_asyncio.{module_of(suite)}") is not None


def forgotten():
    """The test modules of the running Python that are neither a suite nor named in NOT_RUN."""
    package = importlib.util.find_spec("test.test_asyncio")
    if package is None:
        return []
    modules = {module.name for module in pkgutil.iter_modules(package.submodule_search_locations)}
    known = {module_of(suite) for suite in SUITES} | NOT_RUN.keys()
    return sorted(name for name in modules - known if name.startswith("test_"))


def read_report(path):
    """The child's report: ({name: (outcome, detail, seconds)}, has all of the suite run?)."""
    outcomes, complete = {}, False
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, *outcome = json.loads(line)
            if name is None:
                complete = True
            else:
                outcomes[name] = tuple(outcome)
    return outcomes, complete


def run_child(suite, pattern):
    """Run one suite in a child process.  Returns (outcomes, error text or None, output)."""
    with tempfile.TemporaryDirectory() as folder:
        report, output = os.path.join(folder, "report"), os.path.join(folder, "output")
        command = [sys.executable, "-X", "faulthandler", str(HERE / "child.py"), suite, report]
        command += ["-k", pattern] if pattern else []
        with open(output, "wb") as file:
            try:
                status = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    timeout=MODULE_SECONDS,
                ).returncode
            except subprocess.TimeoutExpired:
                status = None
        text = pathlib.Path(output).read_text(encoding="utf-8", errors="replace")
        outcomes, complete = read_report(report) if os.path.exists(report) else ({}, False)
    if complete:
        return outcomes, None, text
    running = next((name for name, found in outcomes.items() if found[0] == "started"), "no test")
    ended = f"ended with status {status}"
    if status is None:
        ended = f"was still running after {MODULE_SECONDS:.0f} s"
    return outcomes, f"{ended}, in {running}", text


def judge(outcomes, excluded):
    """Split a module's outcomes by what the exclusions expect."""
    tally = {"passed": 0, "skipped": 0, "excluded": 0}
    failed, unexpected = [], []
    for name, (outcome, detail, _) in sorted(outcomes.items()):
        if outcome == "started":
            continue  # the error of the run names it
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
    found = set(outcomes) | {f"{name.rpartition('.')[0]}.*" for name in outcomes}
    return [
        f"{name}: no such test here, take it off exclusions/{file}"
        for name, file in sorted(excluded.items())
        if name.partition(".")[0] == suite and name not in found
    ]


def report_suite(suite, options, excluded, skipped):
    """Run and judge one suite; returns (its report, how many passed, failed, did not count)."""
    started = time.monotonic()
    outcomes, error, output = run_child(suite, options.pattern)
    tally, failed, problems = judge(outcomes, excluded)
    if not options.pattern and error is None and not STDLIB:
        problems += stale(outcomes, {**excluded, **skipped}, suite)
    lines = []
    for name, (outcome, _, seconds) in sorted(outcomes.items()):
        if options.verbose or seconds >= options.slow:
            lines.append(f"  {outcome:8} {name} ({seconds:.2f} s)")
    lines += [f"FAILED {name}\n{detail}" for name, detail in failed]
    lines += [f"ERROR {problem}" for problem in problems]
    if error is not None:
        lines.append(f"ERROR {suite} {error}; the end of its output:\n{output[-6000:]}")
    seconds = time.monotonic() - started
    counts = ", ".join(f"{count} {kind}" for kind, count in tally.items())
    lines.append(f"{suite:30} {counts}, {len(failed)} failed  ({seconds:.1f} s)")
    wrong = len(failed) + len(problems) + (error is not None)
    return "\n".join(lines), (tally["passed"], wrong, tally["skipped"] + tally["excluded"])


def run_suites(suites, options):
    """Run the suites, so many at a time, and print their reports as they come."""
    excluded, skipped = ({}, {}) if STDLIB else exclusions.load(sys.version_info[:2])
    counts = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        pending = [pool.submit(report_suite, s, options, excluded, skipped) for s in suites]
        for done in concurrent.futures.as_completed(pending):
            text, count = done.result()
            print(text, flush=True)
            counts.append(count)
    return counts


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: all there are")
    parser.add_argument("-k", dest="pattern", help="only tests whose name contains this")
    parser.add_argument("-v", dest="verbose", action="store_true", help="name every test")
    parser.add_argument("-j", dest="jobs", type=int, default=2, help="suites at a time (2)")
    parser.add_argument(
        "--slow", type=float, default=1e9, metavar="SECONDS", help="name tests that take this long"
    )
    parser.add_argument(
        "--stdlib",
        action="store_true",
        help="asyncio's own loop through the same injections, without exclusions: what fails here"
        " is the machine's fault",
    )
    options = parser.parse_args()
    unknown = [name for name in options.suites if name not in SUITES]
    if unknown:
        parser.error(f"unknown suite {unknown[0]}: choose from {', '.join(SUITES)}")
    return options


def main():
    global STDLIB
    options = parse_options()
    if options.stdlib:
        STDLIB = injection.STDLIB = True
        os.environ["GYRE_CONFORMANCE_LOOP"] = "stdlib"
    of_loop = (injection.unix_loop, injection.base_loop)
    wanted = options.suites or [
        n for n, inject in SUITES.items() if not STDLIB or inject in of_loop
    ]
    suites = sorted(filter(available, wanted), key=lambda name: name not in LONG_SUITES)
    if not suites:
        print("this Python comes without test.test_asyncio (Debian: libpython3.x-testsuite)")
        return 1
    if missing := forgotten():
        print(f"neither run nor in NOT_RUN with a reason: {', '.join(missing)}")
        return 1
    started = time.monotonic()
    counts = run_suites(suites, options)
    print(
        f"conformance on Python {sys.version.split()[0]}: {len(counts)} suites, "
        f"{sum(count[1] > 0 for count in counts)} not as expected, "
        f"{time.monotonic() - started:.0f} s"
    )
    # ./dev test reads this line; excluded tests are among the skipped.
    print("{} passed, {} failed, {} skipped".format(*map(sum, zip(*counts))))
    return 1 if any(count[1] for count in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
