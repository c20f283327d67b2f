"""What the benchmarks report: verdicts, goals, what was left out, pictures."""

import sys
import unittest.mock
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from bench import cells, goals, machine, report, stats  # noqa: E402


def made_result(ratios, second=None, errors=None):
    """A result of one cell, gyre against uvloop, with these ratios."""
    environment = {
        "date": "2026-11-01T00:00:00+00:00", "gyre": "1.2.3", "commit": "abc", "uvloop": "0.23.0",
        "python": "3.11", "kernel": "6.18", "cpu": "a CPU", "cores": 2, "hypervisor": True,
        "governor": None, "server_core": 0, "client_core": 1, "priority": "no", "load_before": 0.0,
    }  # fmt: skip

    def run(values):
        return {
            "gyre": [{"rate": 100 * value, "cpu_us": 5.0, "p99_us": 9.0} for value in values],
            "uvloop": [{"rate": 100.0, "cpu_us": 5.0, "p99_us": 9.0} for _ in values],
        }

    cell = {
        "name": "net.proto.c1.64B", "family": "net", "kind": "net.proto", "title": "echo",
        "metric": {"key": "rate", "label": "per second", "higher_is_better": True, "scale": 1.0},
        "decides": True, "parameters": {}, "system_calls": {}, "errors": errors or {},
        "runs": [run(ratios)] + ([run(second)] if second else []),
    }  # fmt: skip
    return {
        "environment": environment, "arms": ["gyre", "uvloop"], "missing": {}, "cells": [cell],
        "settings": {"repetitions": 5, "duration_s": 0.5, "warmup_s": 0.2, "poll": "busy"},
        "interrupted": False, "seconds": 10.0,
    }  # fmt: skip


def test_a_lost_cell_is_marked():
    text = report.markdown(made_result([0.9] * 5, [0.92] * 5))
    assert "| net.proto.c1.64B | **LOST** |" in text
    assert "## Lost cells" in text and "again 0.92" in text
    lines = report.terminal(made_result([0.9] * 5, [0.92] * 5)).splitlines()
    assert lines[1].split() == ["net.proto.c1.64B", "90", "per", "second", "0.90", "-", "LOST"]
    text = report.markdown(made_result([0.9] * 5, [1.0] * 5))
    assert "**LOST**" not in text and "| lost once |" in text
    text = report.markdown(made_result([1.1] * 5))
    assert "| won |" in text and "## Lost cells" not in text
    assert "## System calls" not in text


def test_system_calls_by_name_are_reported():
    result = made_result([1.1] * 5)
    counted = {"total": 2.01, "calls": {"recv": 1.0, "send": 1.01}, "counters": {"enters": 0.5}}
    result["cells"][0]["system_calls"] = {"gyre": counted}
    text = report.markdown(result)
    assert "| net.proto.c1.64B | gyre | send 1.01, recv 1 | enters 0.5 |" in text
    assert "| 2.01 |" in text


def test_what_failed_is_said():
    result = made_result([1.0], errors={"gyre": "ValueError: a | b"})
    result["cells"][0]["runs"][0]["gyre"] = [None]
    text = report.markdown(result)
    assert "gyre failed: ValueError: a / b" in text
    assert "| net.proto.c1.64B | **FAILED** |" in text
    assert "gyre failed in 1 cells: net.proto.c1.64B." in text
    assert "Fewer than 5" not in text


def test_what_was_left_out_is_counted():
    result = made_result([1.1] * 5)
    names = ["http.h11.plaintext.c64", "http.h11.plaintext.c400", "http.h11.body.c64", "http.x"]
    result["skipped"] = {"wrk is not installed": names}
    result["disturbed"] = {"repetitions": 50, "taken_again": 3, "kept": 1}
    text = report.markdown(result)
    assert "Not measured: wrk is not installed (4 cells: http.h11.plaintext.c64, " in text
    assert "and 1 more)" in text
    assert "Of 50 repetitions 3 were taken again" in text and "and 1 stayed" in text
    assert "wrk is not installed (4 cells" in report.terminal(result)


def test_where_the_time_went_is_said():
    result = made_result([1.1] * 5)
    result["cells"][0]["seconds"] = 12.4
    assert "Time: net 12 s. The longest: net.proto.c1.64B 12 s." in report.markdown(result)


# ---- goals ----


def goal_cell(name, gyre, other, metric="rate", c_limit=None):
    arms_of = {"gyre": gyre, "uvloop": other, "c-epoll": c_limit}
    samples = {spec: [{metric: value}] * 5 for spec, value in arms_of.items() if value}
    higher = metric == "rate"
    return {
        "name": name, "decides": True, "errors": {}, "runs": [samples],
        "metric": {"key": metric, "label": "", "higher_is_better": higher},
    }  # fmt: skip


def reached_of(*results):
    specs = ["gyre", "uvloop", "c-epoll"]
    found = goals.reached(results, specs, report.limit_share)
    return {(each.goal.name, each.goal.against): each for each in found}


def test_a_goal_is_reached_by_all_of_its_cells_or_not():
    found = reached_of(
        goal_cell("micro.task.spawn_1", 400.0, 100.0),
        goal_cell("micro.task.spawn_100", 290.0, 100.0),
    )
    (spawn,) = found.values()
    assert not spawn.holds and spawn.count == 1
    assert spawn.worst == ("micro.task.spawn_100", pytest.approx(2.9))
    (spawn,) = reached_of(goal_cell("micro.task.spawn_1", 300.0, 100.0)).values()
    assert spawn.holds


def test_goals_of_costs_and_figures_and_of_the_limit():
    late = goal_cell("micro.loop.timer_lateness", 99.0, 1000.0, "lateness_us")
    idle = goal_cell("net.idle.proto.c10000", 600.0, 1000.0, "rss_per_connection")
    echo = goal_cell("net.proto.c10.64B", 85.0, 70.0, c_limit=100.0)
    found = reached_of(late, idle, echo)
    assert found["timers, mean lateness in us", goals.UVLOOP].worst[1] == 99.0
    memory = found["memory per idle TCP connection", goals.UVLOOP]
    assert memory.worst[1] == pytest.approx(0.6) and not memory.holds
    limit = found["TCP Protocol echo, 10-100", goals.LIMIT]
    assert limit.worst[1] == pytest.approx(0.85) and limit.holds


def test_the_report_says_which_goals_are_reached():
    result = made_result([1.5] * 5)
    text = report.markdown(result)
    assert "1 of 2 goals are reached in every cell." in text
    assert (
        "| TCP Protocol echo, 1 connection | at least 1.05 x uvloop | net.proto.c1.64B | 1.50 "
        "| 1 of 1 | yes |" in text
    )
    assert "| at least 1.8 x uvloop | net.proto.c1.64B | 1.50 | 0 of 1 | **no** |" in text
    assert "1 of 2 goals are reached; not: " in report.terminal(result)


def test_every_goal_has_cells():
    names = [cell.name for cell in cells.all_cells()]
    for goal in goals.GOALS:
        for pattern in goal.cells:
            assert any(cells.matches(name, pattern) for name in names), pattern


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "-"),
        (0, "0"),
        (1.234, "1.23"),
        (999.6, "1000"),
        (12345, "12.3k"),
        (123456, "123k"),
        (1234567, "1.23M"),
    ],
)
def test_quantities(value, text):
    assert report.quantity(value) == text


# ---- tables and pictures ----


def test_a_companion_is_shown_and_not_judged():
    samples = {"gyre": [{"rate": 50.0}], "uvloop": [{"rate": 40.0}], "gyre#2": [{"rate": 100.0}]}
    result = {
        "decides": True,
        "companions": ["gyre#2"],
        "metric": {"key": "rate", "higher_is_better": True},
        "runs": [samples],
    }
    judged = report.judge(result, list(samples))
    assert judged["uvloop"]["verdict"] == stats.WON
    assert judged["gyre#2"]["verdict"] is None
    assert judged["gyre#2"]["ratio"] == 0.5
    assert report.cell_verdict(judged) == stats.WON


def test_a_family_has_the_mean_of_its_cells():
    result = made_result([2.0] * 5)
    other = made_result([0.5] * 5)["cells"][0]
    result["cells"].append({**other, "name": "net.proto.c10.64B"})
    assert "| net.proto | 2 | 1.00 (0.50-2.00) |" in report.short(result)


def test_the_short_table_has_a_row_per_cell_and_names_the_lost():
    environment = {
        "date": "2026-01-01", "commit": "abc", "gyre": "1", "uvloop": "0.23.0",
        "python": "3.11.7", "cpu": "a processor", "cores": 2, "hypervisor": True, "kernel": "6.18",
        "server_core": 0, "client_core": 1, "priority": "none", "load": 0.0, "steal_percent": 0.0,
    }  # fmt: skip
    base = {
        "family": "micro", "kind": "micro.task", "decides": True, "errors": {},
        "system_calls": {},
        "metric": {"key": "rate", "label": "per second", "higher_is_better": True},
    }  # fmt: skip
    fast = {"gyre": [{"rate": 20.0}], "uvloop": [{"rate": 10.0}]}
    slow = {"gyre": [{"rate": 5.0}], "uvloop": [{"rate": 10.0}]}
    result = {
        "arms": ["gyre", "uvloop"],
        "environment": environment,
        "seconds": 1.0,
        "settings": {"repetitions": 5, "duration_s": 0.3, "warmup_s": 0.1, "poll": "busy"},
        "cells": [
            {**base, "name": "micro.task.quick", "runs": [fast]},
            {**base, "name": "micro.task.lost", "runs": [slow, slow]},
        ],
    }
    with unittest.mock.patch.object(machine, "warnings", return_value=[]):
        text = report.short(result)
    assert "| micro.task.quick | won | 20 | per second | 2.00 (2.00-2.00) |" in text
    assert "- micro.task.lost against uvloop: 0.50 (0.50-0.50), again 0.50" in text


def test_tables_stay_together_in_pictures():
    plot = pytest.importorskip("bench.plot", exc_type=ImportError)  # needs matplotlib
    names = ["net.unix.a", "net.udp.a", "net.unix.b", "tls.idle.a", "tls.handshake.a"]
    made = made_result([1.1] * 5)
    every = [{**made["cells"][0], "name": name} for name in names]
    rows = [name for name, _ in plot.ratio_rows(every, ["gyre", "uvloop"])]
    assert rows == ["net.unix.a", "net.unix.b", "net.udp.a", "tls.idle.a", "tls.handshake.a"]
    assert plot.dividers(rows) == [2]  # none between tables of one cell


def test_the_marks_of_a_long_axis_do_not_run_into_each_other():
    plot = pytest.importorskip("bench.plot", exc_type=ImportError)  # needs matplotlib
    assert plot.ratio_ticks(0.5, 3) == [0.5, 0.75, 1, 1.5, 2, 3]
    assert plot.ratio_ticks(0.2, 60) == [0.25, 0.5, 1, 2, 5, 10, 20, 50]
