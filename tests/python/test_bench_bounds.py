"""bench.bounds and bench.profiles: what a profile says about a goal. Nothing is measured here."""

import collections
import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import bounds, cells, goals, profiles  # noqa: E402

EVERY = cells.all_cells()
RATIO = goals.Goal("echo", 1.15, ("net.proto.c10.64B",))
COST = goals.Goal("churn", 0.75, ("net.churn",), kind=goals.COST, metric="cpu_us")


@pytest.mark.parametrize(
    "path, symbol, part",
    [
        ("[kernel.kallsyms]", "tcp_sendmsg", profiles.KERNEL),
        ("[nf_tables]", "nft_do_chain", profiles.KERNEL),
        ("[vdso]", "__vdso_clock_gettime", profiles.LOOK),
        ("/x/lib/libpython3.11.so.1.0", "_PyEval_EvalFrameDefault", profiles.PYTHON),
        ("/usr/bin/python3.11", "PyObject_Call", profiles.PYTHON),
        ("/x/lib-dynload/_asyncio.cpython-311-x86_64-linux-gnu.so", "f", profiles.PYTHON),
        ("/x/gyre/_gyre.cpython-311-x86_64-linux-gnu.so", "run_queue", profiles.LOOP),
        ("/x/gyre/_gyre.cpython-311-x86_64-linux-gnu.so", "look_until.lto_priv.0", profiles.LOOK),
        ("/x/uvloop/loop.cpython-311-x86_64-linux-gnu.so", "uv__read", profiles.LOOP),
        ("/x/build/bench/limit_epoll", "main", profiles.LOOP),
        ("/x/build/bench/floor.cpython-311-x86_64-linux-gnu.so", "turn", profiles.LOOP),
        ("/x/build/bench/floor_micro.cpython-311-x86_64-linux-gnu.so", "run", profiles.LOOP),
        ("/lib/x86_64-linux-gnu/libc.so.6", "memmove", profiles.LIBC),
        ("/lib64/ld-linux-x86-64.so.2", "f", profiles.LIBC),
        ("/usr/lib/libcrypto.so.3", "aes", profiles.TLS),
        ("/x/httptools/parser/parser.cpython-311.so", "f", profiles.OTHER),
        ("[unknown]", "[unknown]", profiles.OTHER),
        ("/usr/lib/libc.so.6", "__libc_recvmsg", profiles.KERNEL),
        ("/usr/lib/libc.so.6", "__send", profiles.KERNEL),
        ("/usr/lib/libc.so.6", "epoll_wait@@GLIBC_2.3.2", profiles.KERNEL),
        ("/usr/lib/liburing.so.2.3", "io_uring_enter2", profiles.KERNEL),
        ("/usr/lib/libc.so.6", "_IO_sendto", profiles.LIBC),
    ],
)
def test_the_part_of_a_sample(path, symbol, part):
    assert profiles.part_of(path, symbol) == part


def test_what_perf_script_prints():
    text = (
        " ffffffff81001000 do_syscall_64 ([kernel.kallsyms])\n"
        "     7f12367aee35 _PyObject_Free (/opt/lib/libpython3.11.so.1.0)\n"
        "\n"
        "\n"
        "     7f12367aee35 operator new(unsigned long) (/usr/lib/libstdc++.so.6)\n"
        "     7f12367aee35 _PyObject_Free (/opt/lib/libpython3.11.so.1.0)\n"
        "\n"
        "     7f12367aee99 [unknown] (/opt/lib/libpython3.11.so.1.0)\n"
        "\n"
        "\n"
    )
    parts = profiles.read_script(text)
    assert parts == {profiles.KERNEL: 1, profiles.OTHER: 1, profiles.PYTHON: 1}
    assert profiles.read_script("\n") == {}


LIBC = ("/usr/lib/libc.so.6", "__memmove_avx_unaligned_erms")
MALLOC = ("/usr/lib/libc.so.6", "malloc")
OURS = ("/x/_gyre.cpython-311-x86_64-linux-gnu.so", "gy_stream_write")


@pytest.mark.parametrize(
    ("callers", "part"),
    [
        ([("/usr/lib/libcrypto.so.3", "CRYPTO_malloc"), OURS], profiles.TLS),
        ([MALLOC, ("/usr/bin/python3.11", "PyMem_RawMalloc"), OURS], profiles.PYTHON),
        ([MALLOC, OURS, ("/usr/bin/python3.11", "PyObject_Call")], profiles.LIBC),
        ([("/x/httptools/parser/parser.cpython-311.so", "f")], profiles.OTHER),
        ([("[unknown]", "[unknown]"), ("/usr/bin/python3.11", "f")], profiles.LIBC),
        ([], profiles.LIBC),
    ],
)
def test_the_c_library_works_for_its_caller(callers, part):
    assert profiles.part_of_stack([LIBC, *callers]) == part
    assert profiles.part_of_stack([OURS, *callers]) == profiles.LOOP


def test_shares_and_what_a_costless_loop_saves():
    parts = {profiles.KERNEL: 80, profiles.PYTHON: 10, profiles.LOOP: 6, profiles.LIBC: 4}
    assert bounds.shares(parts)[profiles.KERNEL] == 0.8
    assert bounds.removable(parts) == pytest.approx(0.1)
    # busy for half of the time: half of it is the way between the two, whatever the loop does
    assert bounds.removable(parts, 0.5) == pytest.approx(0.05)
    assert bounds.shares({}) == dict.fromkeys(profiles.PARTS, 0.0)
    assert bounds.removable({}) == 0.0


def test_the_bound_of_a_ratio_and_of_a_cost():
    assert bounds.bound(1.08, 0.1) == pytest.approx(1.2)
    assert bounds.bound(0.8, 0.1, at_most=True) == pytest.approx(0.72)
    assert bounds.share_to_go(RATIO, 1.035) == pytest.approx(0.1)
    assert bounds.share_to_go(COST, 1.0) == pytest.approx(0.25)
    assert bounds.share_to_go(RATIO, 1.2) == 0.0


def row(goal, reached, own, c_server=None, utilisation=1.0):
    parts = collections.Counter(
        {profiles.KERNEL: 80 - own, profiles.PYTHON: 20, profiles.LOOP: own}
    )
    return bounds.Row(goal, "a.cell", reached, c_server, (5.0, 6.0), (parts, parts), utilisation)


def test_verdicts():
    assert row(RATIO, 1.2, 5).verdict == "reached here"
    assert (
        row(RATIO, 1.1, 2).verdict == "out of reach: kernel 78% and Python 20% are not the loop's"
    )
    assert row(RATIO, 1.1, 10).verdict == "ours: 4% of the time would have to go, of 10%"
    assert row(RATIO, 1.1, 10, c_server=1.1).verdict.startswith("a C server")
    assert row(RATIO, 1.1, 10, c_server=1.05).verdict.startswith("ours")  # gyre is ahead of it
    assert row(COST, 0.85, 20, c_server=0.8).verdict.startswith("a C server")
    assert row(COST, 0.8, 10, c_server=0.74).verdict == (
        "ours: 6% of the time would have to go, of 10%"
    )
    # half idle: only half of its own code stands in the way of a rate
    assert row(RATIO, 1.1, 8, utilisation=0.5).verdict == (
        "out of reach: kernel 72% and Python 20% are not the loop's"
    )
    assert row(COST, 0.8, 8, utilisation=0.5).gone == pytest.approx(0.08)


def with_floor(goal, reached, floor, of_floor, **more):
    found = row(goal, reached, 10, **more)
    figures = [
        bounds.stats.Comparison(each, 0.9 * each, 1.1 * each, 7) for each in (floor, of_floor)
    ]
    return dataclasses.replace(found, floor=figures[0], of_floor=figures[1])


def test_verdicts_with_a_floor():
    out = "out of reach: a loop that does nothing but call Python does not either"
    assert with_floor(RATIO, 1.1, 1.14, 0.97).verdict == out
    assert with_floor(RATIO, 1.1, 1.14, 1.03).verdict == out
    assert with_floor(RATIO, 1.16, 1.14, 1.02).verdict == "reached here"
    # gyre does something that the floor does not: then it is no floor
    assert with_floor(RATIO, 1.1, 1.05, 1.05).verdict.startswith("ours: 4% of the time")
    assert with_floor(RATIO, 1.1, 1.05, 1.05, c_server=1.1).verdict.startswith("a C server")
    ours = "ours: the floor is 10% beyond the goal, gyre at 0.87 of its rate"
    assert with_floor(RATIO, 1.1, 1.265, 0.87, c_server=1.1).verdict == ours
    assert with_floor(COST, 0.85, 0.8, 1.06).verdict == out
    assert with_floor(COST, 0.8, 0.85, 0.94).verdict.startswith("ours: 6% of the time")
    ours = "ours: the floor is 20% beyond the goal, gyre at 1.40 of its cost"
    assert with_floor(COST, 0.84, 0.6, 1.4).verdict == ours
    text = bounds.table([with_floor(RATIO, 1.1, 1.14, 0.97), row(RATIO, 1.1, 10)])
    assert "| 1.14 (1.03-1.25) | 0.97 (0.87-1.07) |" in text and "| - | - |" in text


def taken(rates, parts):
    figures = [{"rate": rate, "cpu_us": 1e6 / rate, "utilisation": 1.0} for rate in rates]
    return {"figures": figures, "parts": parts}


def test_rows_of_kept_samples_pair_by_repetition():
    parts = {profiles.KERNEL: 90, profiles.LOOP: 10}
    sample = {
        "goals": ["TCP Protocol echo, 10-100", "TCP Protocol echo, 10-100 x 64 B-1 KiB"],
        "cell": "net.proto.c10.1K",
        "taken": {
            "gyre": taken([110, 55, 220], parts),
            "uvloop": taken([100, 50, 200], parts),
            "c-epoll": taken([130, 70, 260], parts),
            "c-uring": taken([140, 60, 240], parts),
        },
    }
    first, second = bounds.rows_of(json.loads(json.dumps([sample])), EVERY)
    assert first.reached == pytest.approx(1.1) and first.c_server == pytest.approx(1.4)
    assert first.bound == pytest.approx(1.1 / 0.9)
    assert second.goal.against == goals.LIMIT and second.c_server is None
    assert second.reached == pytest.approx(110 / 140)
    text = bounds.table([first, second])
    assert "| `net.proto.c10.1K` | 1.15 | 1.10 |" in text
    assert "0.8 of the C limit" in text
    sample["taken"]["gyre"]["figures"] = [None, None, None]
    assert bounds.rows_of([sample], EVERY) == []


def test_the_better_kind_of_the_floor_is_the_floor():
    parts = {profiles.KERNEL: 90, profiles.LOOP: 10}
    sample = {
        "gyre": taken([110, 55, 220], parts),
        "uvloop": taken([100, 50, 200], parts),
        "floor": taken([120, 60, 239], parts),
        "floor@send=together": taken([130, 10, 240], parts),
    }
    sample["floor"]["figures"][0] = None
    goal = next(goal for goal in goals.GOALS if goal.name.endswith("10-100 x 64 B-1 KiB"))
    cell = next(cell for cell in EVERY if cell.name == "net.proto.c10.1K")
    found = bounds.row_of(goal, cell, sample)
    assert found.floor.ratio == pytest.approx((60 / 50 + 239 / 200) / 2) and found.floor.pairs == 2
    assert found.of_floor.ratio == pytest.approx((55 / 60 + 220 / 239) / 2)
    churn = next(goal for goal in goals.GOALS if goal.name.startswith("churn"))
    cell = next(cell for cell in EVERY if cell.name == "net.churn.proto.c20")
    del sample["floor@send=together"]
    found = bounds.row_of(churn, cell, sample)
    assert found.floor.ratio == pytest.approx((50 / 60 + 200 / 239) / 2)
    assert found.of_floor.ratio == pytest.approx((60 / 55 + 239 / 220) / 2)


def test_which_kinds_of_the_floor_a_cell_has():
    by_name = {cell.name: cell for cell in EVERY}
    kinds = {
        "net.proto.c1.64B": ["floor@spin_us=50"],
        "net.proto.c100.1K": ["floor", "floor@send=together"],
        "net.unix.proto.c100.16K": ["floor"],
        "net.streams.c10.16K": ["floor"],
        "net.sock.c10.1M": ["floor"],
        "net.churn.proto.c20": ["floor"],
        "net.churn.streams.c20": [],
        "net.sink.proto.c4.64K": [],
        "net.udp.echo.c10.200B": [],
        "tls.proto.c10.1K": [],
        "micro.task.queue": ["floor@future=whole"] if sys.version_info < (3, 14) else [],
        "micro.loop.call_soon_fanout_args": ["floor"],
        "micro.task.gather_100": [],
    }
    assert {name: bounds.floors_for(by_name[name]) for name in kinds} == kinds


def test_pairs_take_all_arms_in_turn(monkeypatch):
    cell = next(cell for cell in EVERY if cell.name == "net.proto.c10.64B")
    goal = next(goal for goal in goals.GOALS if goal.name.endswith("10-100 x 64 B-1 KiB"))
    limit = next(goal for goal in goals.GOALS if goal.name == "TCP Protocol echo, 10-100")
    asked = []

    def repetition(cell, specs, number, bench):
        asked.append((number, specs))
        return {spec: {"rate": 1.0} for spec in specs if spec != "uvloop"}, {"uvloop": "gone"}

    monkeypatch.setattr(bounds.measure, "repetition", repetition)
    samples = bounds.new_samples([(goal, cell)])
    bounds.take_pairs(samples, 4, ("placement", "settings"))
    every = ["gyre", "uvloop", "floor", "floor@send=together", "c-epoll", "c-uring"]
    assert asked == [(0, every), (1, every), (2, every), (3, every[:4])]
    found = samples[cell]["taken"]
    assert found["floor"]["figures"] == [{"rate": 1.0}] * 4
    assert found["uvloop"]["figures"] == [None] * 4
    assert found["c-epoll"]["figures"] == [{"rate": 1.0}] * 3 + [None]
    asked.clear()
    bounds.take_pairs(bounds.new_samples([(goal, cell), (limit, cell)]), 4, ("a", "b"))
    assert [specs for _, specs in asked] == [every] * 4


def test_cells_of_goals_that_a_profile_can_explain():
    names = [cell.name for cell in EVERY]
    pairs = bounds.wanted(EVERY, names)
    found = {cell.name for _, cell in pairs}
    assert {"net.proto.c10.64B", "tls.proto.c1.1K", "micro.task.queue"} <= found
    assert not {"net.idle.proto.c10000", "micro.loop.timer_lateness"} & found
    udp = next(cell for cell in EVERY if cell.name == "net.udp.echo.c10.200B")
    assert bounds.arms_for(udp) == ["gyre", "uvloop", "c-epoll"]


def test_the_cells_that_a_run_missed():
    def cell(name, gyre, uvloop):
        parameters = {"metric": {"key": "rate", "higher_is_better": True}}
        run = {"gyre": [{"rate": gyre}], "uvloop": [{"rate": uvloop}]}
        return {"name": name, "runs": [run], **parameters}

    result = {
        "arms": ["gyre", "uvloop"],
        "cells": [cell("micro.task.queue", 1.5, 1.0), cell("micro.task.wakeup", 4.0, 1.0)],
    }
    figures = bounds.missed(result)
    assert figures == {("Queue ping-pong", "micro.task.queue"): 1.5}
    queue = next(goal for goal in goals.GOALS if goal.name == "Queue ping-pong")
    here = dataclasses.replace(row(queue, 2.1, 10), name="micro.task.queue")
    (shown,) = bounds.with_figures([here, row(RATIO, 1.0, 10)], figures)
    assert shown.reached == 1.5 and shown.bound == pytest.approx(1.5 / 0.9)
    assert shown.verdict == "reached in the second run"
    assert "| 1.50; 2.10 |" in bounds.table([shown])


def test_pairs_of_micro_cells_know_how_busy_they_were(monkeypatch):
    cell = next(cell for cell in EVERY if cell.name == "micro.loop.call_soon_fanout")
    goal = next(goal for goal in goals.GOALS if cell.name in goals.names_of(goal, [cell.name]))
    rates = {"gyre": 20.0, "uvloop": 10.0, "floor": 25.0}

    def repetition(cell, specs, number, bench):
        assert specs == list(rates) and bench[1].slices
        figures = {
            spec: {"rate": rate, "wall_us": 1e6 / rate, "cpu_us": 0.5e6 / rate}
            for spec, rate in rates.items()
        }
        return figures, {}

    monkeypatch.setattr(bounds.measure, "repetition", repetition)
    samples = bounds.new_samples([(goal, cell)])
    bounds.take_pairs(samples, 2, (None, SimpleNamespace(slices=5)))
    taken = samples[cell]["taken"]
    taken["gyre"]["parts"].update({profiles.PYTHON: 3, profiles.LOOP: 1})
    row = bounds.row_of(goal, cell, taken)
    assert row.reached == 2.0 and row.floor.ratio == 2.5 and row.of_floor.ratio == 0.8
    assert row.utilisation == 0.5 and row.gone == pytest.approx(0.125)
