"""refleak: a pytest plugin that runs each test several times and fails it if something stays.

    PYTHONPATH=tools python3.11-dbg -m pytest -p refleak tests/python

After some runs to warm caches up it counts all references after each of some more.  If the count
grew every time, ten more runs decide: a cache stops growing, a leak does not.  What the same test
loses on asyncio's own loop (the id says gyre or asyncio) is the test's, or Python's, and no leak of
gyre.  A test that stays out says why with @pytest.mark.norefleak(reason).
"""

from __future__ import annotations

import array
import gc
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

WARM_UP_RUNS = 3
COUNTED_RUNS = 3
DECIDING_RUNS = 10

_collected: dict[str, pytest.Item] = {}

# A debug build counts every reference, exactly.  Without one there are the memory blocks, which
# free lists and growing tables move a little: a hint, not a verdict.
count: Callable[[], int] = getattr(sys, "gettotalrefcount", sys.getallocatedblocks)


def grew(deltas: list[int]) -> bool:
    """Noise goes up and down; a leak grows each time."""
    return all(delta > 0 for delta in deltas)


def settle() -> None:
    """What only waits for the collector is no leak; three passes for finalizers' finalizers."""
    for _ in range(3):
        gc.collect()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "norefleak(reason): not run repeatedly by tools/refleak.py")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In the place of pytest's, which keeps something of each folder that it made."""
    with tempfile.TemporaryDirectory(prefix="refleak-") as folder:
        yield Path(folder)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _collected.update((item.nodeid, item) for item in items)  # before -k takes some away
    # Hypothesis remembers the examples it saw, its memory grows by design: those tests could be run
    # only once, which other phases do, on a Python that is not as slow.
    items[:] = [item for item in items if not _is_random(item)]


def _is_random(item: pytest.Item) -> bool:
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("norefleak"):
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = _repeat(item, nextitem)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _repeat(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Runs the test; returns the reports of its last run, failed if it leaks."""
    for _ in range(WARM_UP_RUNS):
        reports = _run(item, nextitem)
        if reports:
            return reports
    for runs in (COUNTED_RUNS, DECIDING_RUNS):
        deltas, reports = _count(item, nextitem, runs)
        if reports:
            return reports
        if not grew(deltas):
            return runtestprotocol(item, log=False, nextitem=nextitem)
    twin = _collected.get(twin_of(item.nodeid), item)
    if twin is not item:
        theirs, _ = _count(twin, nextitem, COUNTED_RUNS)
        if theirs and min(deltas) <= max(theirs):
            return runtestprotocol(item, log=False, nextitem=nextitem)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        if report.when == "call":
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} leaks, run by run: {deltas}"
    return reports


def twin_of(nodeid: str) -> str:
    """The same test on asyncio; the tests of TLS name the code of the loop as well."""
    head, bracket, parameters = nodeid.partition("[")
    return head + bracket + re.sub(r"\bgyre(-native|-calls)?\b", _on_asyncio, parameters)


def _on_asyncio(match: re.Match[str]) -> str:
    return "asyncio-asyncio" if match[1] else "asyncio"


def _run(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """One run: nothing if it passed, else its reports, which are the test's result."""
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.outcome != "passed" for report in reports):
        return reports
    item._report_sections.clear()
    return []


def _count(
    item: pytest.Item, nextitem: pytest.Item | None, runs: int
) -> tuple[list[int], list[pytest.TestReport]]:
    """How much the count grew from run to run.

    It is taken at the same place each time, into an array: the books do not count themselves.
    """
    taken = array.array("q", [0] * (runs + 1))
    for run in range(runs + 1):
        if reports := _run(item, nextitem):
            return [], reports
        settle()
        taken[run] = count()
    return [after - before for before, after in pairwise(taken)], []
