"""The leak finder finds a leak, and passes the other results on as they are."""

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"

SAMPLE = """
import pytest

kept = []

def test_leaks():
    kept.append([object() for _ in range(100)])

def test_fails():
    assert not "this is wrong"

def test_skips():
    pytest.skip("no reason")

by_loop = {"gyre": [], "asyncio": []}

@pytest.mark.parametrize("loop", ["asyncio", "gyre"])
def test_leaks_on_both(loop):
    by_loop[loop].append([object() for _ in range(100)])

@pytest.mark.parametrize("loop", ["asyncio", "gyre"])
def test_leaks_on_one(loop):
    if loop == "gyre":
        by_loop[loop].append([object() for _ in range(100)])

@pytest.mark.parametrize("loop, code", [("asyncio", "asyncio"), ("gyre", "native")])
def test_leaks_with_each_code(loop, code):
    by_loop[loop].append([object() for _ in range(100)])

runs = []

def test_caches():
    if len(runs) < 12:
        runs.append([object() for _ in range(100)])

@pytest.mark.norefleak("its point is to keep things")
def test_stays_out():
    assert len(kept) < 100
    kept.append([object() for _ in range(100)])
"""


def test_outcomes(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    argv = [sys.executable, "-m", "pytest", "-p", "refleak", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*argv, "test_sample.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(TOOLS)},
        capture_output=True,
        text=True,
    )
    outcomes = {
        line.split("::")[1].split()[0]: line.split()[1]
        for line in done.stdout.splitlines()
        if line.startswith("test_sample.py::") and "%]" in line
    }
    assert outcomes == {
        "test_leaks": "FAILED",
        "test_fails": "FAILED",
        "test_skips": "SKIPPED",
        "test_leaks_on_both[asyncio]": "FAILED",
        "test_leaks_on_both[gyre]": "PASSED",
        "test_leaks_on_one[asyncio]": "PASSED",
        "test_leaks_on_one[gyre]": "FAILED",
        "test_leaks_with_each_code[asyncio-asyncio]": "FAILED",
        "test_leaks_with_each_code[gyre-native]": "PASSED",
        "test_caches": "PASSED",
        "test_stays_out": "PASSED",
    }, done.stdout + done.stderr
    assert "test_leaks leaks, run by run:" in done.stdout
