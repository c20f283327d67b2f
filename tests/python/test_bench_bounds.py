"""bench.bounds and bench.profiles: what a profile says about a goal. Nothing is measured here."""

import collections
import dataclasses
import json
import sys
from pathlib import Path

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
        "     7f12367aee35 operator new(unsigned long) (/usr/lib/libstdc++.so.6)\n"
        "     7f12367aee35 _PyObject_Free (/opt/lib/libpython3.11.so.1.0)\n"
        "\n"
        "     7f12367aee99 [unknown] (/opt/lib/libpython3.11.so.1.0)\n"
    )
    parts = profiles.read_script(text)
    assert parts == {profiles.KERNEL: 1, profiles.OTHER: 1, profiles.PYTHON: 2}


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
    assert shown.verdict == "reached in the run with the profile"
    assert "| 1.50; 2.10 |" in bounds.table([shown])
