"""tools/counts.py: reading callgrind's files, and the verdicts."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import counts  # noqa: E402

DUMP = """\
# callgrind format
version: 1
positions: line
events: Ir

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) eval
10 100
cob=(2) /x/gyre/_gyre.cpython-311-x86_64-linux-gnu.so
cfi=(2) ready.h
cfn=(2) push
calls=3 20
11 999
+1 5

ob=(2)
fl=(2)
fn=(2)
20 30
* 7
-2 3
cfn=(1)
calls=1 1
21 1000

fn=(3) pop
30 4
totals: 149
"""


def test_the_own_cost_of_each_function(tmp_path):
    dump = tmp_path / "callgrind.out.2"
    dump.write_text(DUMP)
    ours = "_gyre.cpython-311-x86_64-linux-gnu.so"
    assert counts.read_dump(dump) == {
        ("libpython3.11.so.1.0", "eval"): 105,
        (ours, "push"): 40,
        (ours, "pop"): 4,
    }
    assert counts.own(counts.read_dump(dump)) == 44 / counts.OPERATIONS


@pytest.mark.parametrize(
    "count, passed, text",
    [
        (100.0, 1, "ok"),
        (101.9, 1, "ok"),
        (102.1, 0, "TOO MANY"),
        (98.1, 1, "ok"),
        (97.0, 1, "lower it by"),
    ],
)
def test_verdicts(capsys, count, passed, text):
    result = counts.compare({"a": count}, {"a": 100.0})
    assert (result.passed, result.failed) == (passed, 1 - passed)
    out = capsys.readouterr().out
    assert text in out
    assert ("lower it" in out) == (text == "lower it by")


def test_a_path_without_budget_and_one_that_is_gone(capsys):
    result = counts.compare({"new": 1.0}, {"old": 1.0})
    assert result.failed == 2
    assert "--update" in capsys.readouterr().out


def test_the_table_is_of_the_paths(tmp_path, monkeypatch):
    made_with, budgets = counts.read_table()
    assert made_with and len(budgets) == 10
    monkeypatch.setattr(counts, "TABLE", tmp_path / "counts.txt")
    counts.write_table(budgets)
    assert counts.read_table() == (counts.compiler(), budgets)


@pytest.mark.parametrize("lacks", ["valgrind", "python", "compiler"])
def test_reasons_to_skip_are_counted(monkeypatch, capsys, lacks):
    if lacks == "valgrind":
        monkeypatch.setattr(counts.shutil, "which", lambda name: None)
    if lacks == "compiler":
        monkeypatch.setattr(counts, "compiler", lambda: "cc 1")
    else:
        monkeypatch.setattr(counts, "compiler", lambda: counts.read_table()[0])
    monkeypatch.setattr(counts, "measure", lambda env: pytest.fail("it was not skipped"))
    count = counts.run("3.99" if lacks == "python" else counts.dev_python.DEFAULT)
    assert (count.passed, count.failed) == (0, 0) and count.skipped == 10 and count.note
    assert "skipped" in capsys.readouterr().out


def test_the_clock_counts_looks_at_it(monkeypatch, tmp_path):
    monkeypatch.setattr(counts, "BUILD", tmp_path)
    (tmp_path / "counts").mkdir()
    code = "import time; a = time.monotonic_ns(); print(time.monotonic_ns() - a)"
    variables = {"LD_PRELOAD": str(counts.clock())}
    assert counts.output([sys.executable, "-c", code], variables) == "1000"
