#!/usr/bin/env python3
"""Measures gyre against uvloop, asyncio and the C limit. docs/benchmarks.md says how to read it.

python bench/run.py                      everything, half an hour (--list says what takes long)
python bench/run.py --quick              the cells that matter most, 3 minutes
python bench/run.py --only net.proto     one table; also micro.task, net.*.c100.1K, ...
python bench/run.py --arms gyre gyre@busy_poll=50 --only net.proto.c1
"""

import argparse
import collections
import contextlib
import importlib.util
import json
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path[0] = str(ROOT)  # not bench/: its http would hide the standard library's

from bench import (  # noqa: E402
    arms,
    build,
    calls,
    cells,
    expect,
    machine,
    measure,
    nursery,
    report,
    servers,
    stats,
)
from bench.micro import floor as micro_floor  # noqa: E402
from bench.net import floor  # noqa: E402

DEFAULT_ARMS = ["gyre", "uvloop", "asyncio", "c-epoll", "c-uring"]
# Without --arms, gyre's other backend is measured beside it: shown, neither won nor lost.
COMPANION = "gyre@GYRE_BACKEND=epoll"
COMPANION_KINDS = ("net.proto", "net.streams", "net.sock", "net.unix", "net.churn")
RESULTS = ROOT / "bench" / "results"

FAILURES_MAX = 2  # of an arm in a cell; then it is not tried again
# A repetition during which the host took CPU time away is taken again.
STOLEN_TICKS_MIN = 3
STOLEN_SHARE = 0.01
RETAKES_MAX = 2  # of one repetition
RETAKES_SHARE = 0.1  # of all repetitions
TRACED_WARMUP_S, TRACED_WINDOW_S = 0.03, 0.1


@dataclass
class Settings:
    repetitions: int
    warmup_s: float
    duration_s: float
    poll: str
    slices: int
    trace: bool
    confirm: bool
    quick: bool = False


class Progress:
    """What is going on and how long it will still take, on stderr: one line that changes on a
    terminal, a line every few seconds elsewhere."""

    PAUSE_S = 10.0

    def __init__(self, expected_s, stream=sys.stderr):
        self.expected_s = max(expected_s, 0.001)
        self.done_s = 0.0  # of the expected time
        self.start = time.monotonic()
        self.stream = stream
        self.terminal = stream.isatty()
        self.shown = float("-inf")

    def left_s(self):
        """The rest of the expectation, corrected by how right it was so far."""
        elapsed = time.monotonic() - self.start
        pace = elapsed / self.done_s if self.done_s > 5 else 1.0
        return max(0.0, (self.expected_s - self.done_s) * pace)

    def show(self, text):
        now = time.monotonic()
        if not self.terminal and now - self.shown < self.PAUSE_S:
            return
        self.shown = now
        share = min(99, int(100 * self.done_s / self.expected_s))
        line = f"[{share:2d} %, {report.duration(self.left_s())} left] {text}"
        if self.terminal:
            self.stream.write(f"\r\x1b[K{line[:110]}")
        else:
            self.stream.write(line + "\n")
        self.stream.flush()

    def note(self, text):
        self.stream.write(("\r\x1b[K" if self.terminal else "") + text + "\n")
        self.stream.flush()

    def finish(self):
        if self.terminal:
            self.stream.write("\r\x1b[K")


class Run:
    """All repetitions of all cells, and what came out of them."""

    def __init__(self, selected, specs, settings, placement, companions=()):
        self.cells = selected
        self.specs = specs
        self.companions = companions
        self.settings = settings
        self.placement = placement
        self.missing = {}  # {arm: why it does not take part}
        self.skipped = {}  # {why: [name of a cell]}
        self.failures = collections.Counter()
        self.disturbed = {"repetitions": 0, "taken_again": 0, "kept": 0}
        self.results = {cell.name: self.empty_result(cell) for cell in selected}
        self.progress = None

    def empty_result(self, cell):
        return {
            "name": cell.name,
            "family": cell.family,
            "kind": cell.kind,
            "title": cell.title,
            "metric": asdict(cell.metric),
            "decides": cell.verdict,
            "companions": list(self.companions),
            "parameters": cell.parameters,
            "seconds": 0.0,
            "runs": [],
            "system_calls": {},
            "errors": {},
        }

    def specs_for(self, cell):
        return [
            spec
            for spec in self.specs
            if spec not in self.missing
            and (not arms.parse_arm(spec).is_c or can_echo(spec, cell))
            and self.takes_part(spec, cell)
        ]

    def takes_part(self, spec, cell):
        if arms.parse_arm(spec).is_floor:
            floors = {"net": floor, "micro": micro_floor}
            if "future" in arms.parse_arm(spec).options:
                del floors["net"]
            return cell.family in floors and not floors[cell.family].reason(cell.parameters)
        if spec in self.companions:
            return cell.kind in COMPANION_KINDS
        if cell.family == "files":
            return arms.parse_arm(spec).loop in ("gyre", *arms.FILES)
        return not arms.parse_arm(spec).is_files

    # ---- how long ----

    def repetition_s(self, cell, specs=None):
        lengths = expect.Lengths(self.settings.warmup_s, self.settings.duration_s)
        return expect.repetition_s(cell, len(specs or self.specs_for(cell)), lengths)

    def repetitions_of(self, cell):
        return min(self.settings.repetitions, cell.repetitions_max or self.settings.repetitions)

    def traced_specs(self, cell):
        if not (self.settings.trace and cell.traced and cell.family == "net"):
            return []
        python = [spec for spec in self.specs_for(cell) if not arms.parse_arm(spec).is_limit]
        return [spec for spec in python if spec not in self.companions]

    def cell_s(self, cell):
        traced_s = sum(expect.traced_s(cell) for _ in self.traced_specs(cell))
        return self.repetition_s(cell) * self.repetitions_of(cell) + traced_s

    def expected_s(self):
        share = 1 + (expect.RETAKE_SHARE if self.settings.confirm else 0)
        return share * sum(self.cell_s(cell) for cell in self.cells)

    # ---- what can be done here ----

    def probe_arms(self):
        """Finds out what cannot run here, once and before anything is measured."""
        for spec in self.specs:
            reason = machine_reason(spec, self.cells)
            if reason:
                self.missing[spec] = reason
        self.specs = [spec for spec in self.specs if spec not in self.missing]

    def probe_cells(self):
        """Leaves out, and counts, the cells that lack a program or a library."""
        kept = []
        for cell in self.cells:
            reason = cell_reason(cell)
            if reason:
                self.skipped.setdefault(reason, []).append(cell.name)
                del self.results[cell.name]
            else:
                kept.append(cell)
        self.cells = kept
        traced = [cell.name for cell in kept if self.traced_specs(cell)]
        if traced and shutil.which("strace") is None:
            self.settings.trace = False
            self.skipped["no system calls are counted: strace is not installed"] = traced

    # ---- measuring ----

    def wanted_nurseries(self, chosen):
        families = {cell.family for cell in chosen}
        wanted = []
        for arm in map(arms.parse_arm, self.specs if "net" in families else ()):
            if not arm.is_c and not arm.is_files:
                wanted.append(((servers.SERVER_MODULE, arm.module), arm.environment))
        for family, module in (("micro", "bench.micro.paired"), ("files", "bench.files.paired")):
            if family in families:
                wanted.append(((module, *measure.TOGETHER[module]), {}))
        return wanted

    def measure_pass(self, chosen):
        """Repetitions outside, cells inside: those of a cell are spread over the whole pass, so
        that a bad phase of the host spoils one of them and not all. `chosen` is {cell: arms}."""
        for cell, specs in chosen.items():
            self.results[cell.name]["runs"].append({spec: [] for spec in specs})
        for rep in range(self.settings.repetitions):
            with nursery.Nurseries() as nurseries:
                with contextlib.suppress(nursery.NurseryError):  # its arm will fail and say why
                    nurseries.prepare(self.wanted_nurseries(chosen))
                for cell, specs in chosen.items():
                    if rep < self.repetitions_of(cell):
                        self.one_repetition(cell, specs, rep, nurseries)

    def one_repetition(self, cell, specs, rep, nurseries):
        result = self.results[cell.name]
        alive = [spec for spec in specs if self.failures[cell.name, spec] < FAILURES_MAX]

        def say(spec):
            self.progress.show(f"{rep + 1}/{self.settings.repetitions} {cell.name} {spec}")

        begin = time.monotonic()
        samples, errors = self.undisturbed(
            lambda: measure.repetition(
                cell, alive, rep, (self.placement, self.settings, nurseries), say
            )
        )
        for spec in specs:
            result["runs"][-1][spec].append(samples.get(spec))
        for spec, error in errors.items():
            self.failures[cell.name, spec] += 1
            if spec not in result["errors"]:
                self.progress.note(f"{cell.name} {spec}: {error}")
            result["errors"][spec] = error
        result["seconds"] += time.monotonic() - begin
        self.progress.done_s += self.repetition_s(cell, specs)

    def undisturbed(self, take):
        """What `take` returns, (samples, errors): taken again while the host took CPU time away
        meanwhile, and once when an arm failed: it may have been the machine."""
        counts = self.disturbed
        counts["repetitions"] += 1
        for attempt in range(RETAKES_MAX + 1):
            before = machine.cpu_steal_ticks()
            taken = take()
            disturbed = was_disturbed(before, machine.cpu_steal_ticks())
            if not disturbed and (attempt > 0 or not taken[1]):
                return taken
            allowed = RETAKES_SHARE * self.settings.repetitions * len(self.cells)
            if attempt == RETAKES_MAX or counts["taken_again"] >= allowed:
                break
            counts["taken_again"] += 1
        counts["kept"] += disturbed
        return taken

    def count_system_calls(self):
        settings = replace(self.settings, warmup_s=TRACED_WARMUP_S, duration_s=TRACED_WINDOW_S)
        with nursery.Nurseries() as nurseries:
            for cell in self.cells:
                for spec in self.traced_specs(cell):
                    if not self.failures[cell.name, spec]:
                        self.count_of(cell, spec, (self.placement, settings, nurseries))

    def count_of(self, cell, spec, bench):
        result = self.results[cell.name]
        self.progress.show(f"system calls {cell.name} {spec}")
        begin = time.monotonic()
        try:
            counted = calls.net_system_calls(cell, arms.parse_arm(spec), *bench)
            result["system_calls"][spec] = counted
        except measure.MeasureError as error:
            if "strace" in str(error):
                self.progress.note(f"no system calls are counted: {error}")
                self.skipped[f"no system calls are counted: {error}"] = [cell.name]
                self.settings.trace = False
            else:
                result["errors"].setdefault(spec, f"system calls: {error}")
        result["seconds"] += time.monotonic() - begin
        self.progress.done_s += expect.traced_s(cell)

    def lost_cells(self):
        """{cell: arms} of what the first pass lost; a second pass must agree before it counts."""
        lost = {}
        for cell in self.cells:
            judged = report.judge(self.results[cell.name], self.specs)
            below = [spec for spec, entry in judged.items() if entry["verdict"] == stats.SUSPECT]
            if below:
                lost[cell] = [self.specs[0], *below]
        return lost

    def run(self):
        self.progress = Progress(self.expected_s())
        self.measure_pass({cell: self.specs_for(cell) for cell in self.cells})
        self.count_system_calls()
        lost = self.lost_cells() if self.settings.confirm else {}
        if lost:
            names = ", ".join(cell.name for cell in lost)
            self.progress.note(f"below the line once, measured again: {names}")
            again_s = sum(
                self.repetition_s(cell, specs) * self.repetitions_of(cell)
                for cell, specs in lost.items()
            )
            self.progress.expected_s = self.progress.done_s + again_s
            self.measure_pass(lost)
        self.progress.finish()


def can_echo(spec, cell):
    """Whether a C server can do the same as the Python ones."""
    udp = cell.parameters.get("mode") == "udp"
    return cell.c_limit and not (udp and arms.parse_arm(spec).loop == "c-uring")


def was_disturbed(before, after):
    """Whether the host took a noticeable share of the time between two cpu_steal_ticks()."""
    stolen, ticks = (now - then for then, now in zip(before, after, strict=True))
    return stolen >= STOLEN_TICKS_MIN and stolen > STOLEN_SHARE * ticks


def cell_reason(cell):
    """Why a cell cannot be measured here, or None."""
    if cell.parameters.get("tls"):
        try:
            build.build("loadgen_tls")
        except build.BuildError as error:
            return str(error)
    if cell.family != "http":
        return None
    server = cell.parameters["server"]
    if server != "client" and shutil.which("wrk") is None:
        return "wrk is not installed"
    for name in {"h11": ("uvicorn", "h11"), "httptools": ("uvicorn", "httptools")}.get(
        server, ("aiohttp",)
    ):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None


def machine_reason(spec, chosen):
    """Why an arm cannot take part, or None. Builds the C programs that are needed."""
    arm = arms.parse_arm(spec)
    if not arm.is_c and not arm.is_floor:
        return arms.missing(arm)
    if arm.is_c and not any(cell.c_limit for cell in chosen):
        return None
    try:
        if arm.is_floor:
            build.build_module("floor")
            build.build_module(micro_floor.MODULE)
        else:
            build.build(servers.LIMIT_PROGRAMS[arm.loop])
    except build.BuildError as error:
        return str(error)
    return None


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the cells that matter most")
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="CELL", help="see --list"
    )
    parser.add_argument("--list", action="store_true", help="the cells, and the expected time")
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="what is compared; the first is compared with the others (bench/arms.py)",
    )
    parser.add_argument(
        "--reps", type=int, default=5, help="repetitions, at least 5 to be believed"
    )
    parser.add_argument("--warmup", type=float, default=0.08, help="seconds before each window")
    parser.add_argument("--window", type=float, default=0.2, help="seconds of each window")
    parser.add_argument("--poll", choices=("busy", "block"), default="busy", help="of the client")
    parser.add_argument("--no-syscalls", action="store_true", help="leave the strace runs out")
    parser.add_argument("--once", action="store_true", help="do not measure lost cells again")
    parser.add_argument("--server-core", type=int)
    parser.add_argument("--client-core", type=int)
    parser.add_argument("--output", type=Path, help="a folder; bench/results/<date> by default")
    parser.add_argument("--no-plots", action="store_true")
    args = parser.parse_args(argv)
    if args.reps < 1 or args.window <= 0 or args.warmup < 0:
        parser.error("--reps, --window and --warmup must be positive")
    args.companions = () if args.arms or args.quick else (COMPANION,)
    if not args.arms:
        args.arms = [*DEFAULT_ARMS[:3], *args.companions, *DEFAULT_ARMS[3:], *arms.FILES]
    for spec in args.arms:
        try:
            arms.parse_arm(spec)
        except ValueError as error:
            parser.error(str(error))
    return args


def settings_of(args):
    return Settings(
        repetitions=args.reps,
        warmup_s=args.warmup,
        duration_s=args.window,
        poll=args.poll,
        slices=5,
        trace=not (args.no_syscalls or args.quick),
        confirm=not (args.once or args.quick),
        quick=args.quick,
    )


def show_list(run):
    seconds = collections.Counter()
    for cell in run.cells:
        seconds[cell.kind] += run.cell_s(cell)
        print(f"{cell.name:34} {run.cell_s(cell):4.0f} s  {cell.title}")
    print("\nTables, the longest first:")
    for kind, total in seconds.most_common():
        print(f"  {kind:20} {report.duration(total)}")
    print(
        f"{len(run.cells)} cells, {run.settings.repetitions} repetitions, "
        f"about {report.duration(run.expected_s())}"
    )


def save(args, result):
    folder = args.output or RESULTS / time.strftime("%Y-%m-%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "results.md").write_text(report.markdown(result))
    latest = RESULTS / "latest"
    if folder.parent == RESULTS:
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name)
    return folder


def draw(folder):
    try:
        from bench import plot
    except ImportError as error:
        print(f"no plots: {error} (pip install -r tools/requirements-bench.txt)", file=sys.stderr)
        return
    for path in plot.draw_all(folder / "results.json", folder):
        print(path, file=sys.stderr)


def measured(run, args):
    """Runs everything; the dict that becomes results.json."""
    with machine.priority() as priority_text:
        environment = machine.describe(run.placement, priority_text)
        for text in machine.warnings(environment):
            print(f"warning: {text}", file=sys.stderr)
        stolen, ticks = machine.cpu_steal_ticks()
        start = time.monotonic()
        interrupted = False
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as by Ctrl-C
        try:
            run.run()
        except KeyboardInterrupt:
            interrupted = True  # what is there is reported
            run.progress.finish()
        stolen_now, ticks_now = machine.cpu_steal_ticks()
    environment["steal_percent"] = round(100 * (stolen_now - stolen) / max(1, ticks_now - ticks), 2)
    return {
        "schema": 1,
        "command": sys.argv[1:],
        "seconds": round(time.monotonic() - start, 1),
        "interrupted": interrupted,
        "environment": environment,
        "settings": asdict(run.settings),
        "arms": run.specs,
        "missing": run.missing,
        "skipped": run.skipped,
        "disturbed": run.disturbed,
        "cells": list(run.results.values()),
    }


def main(argv=None):
    args = parse_arguments(argv)
    try:
        chosen = cells.select(cells.all_cells(), args.only, args.quick)
        placement = machine.Placement(args.server_core, args.client_core)
    except ValueError as error:
        sys.exit(str(error))
    run = Run(chosen, args.arms, settings_of(args), placement, args.companions)
    if args.list:
        show_list(run)
        return 0
    try:
        build.build("loadgen")
    except build.BuildError as error:
        sys.exit(str(error))
    run.probe_arms()
    if args.arms[0] in run.missing:
        sys.exit(f"{args.arms[0]} cannot be measured: {run.missing[args.arms[0]]}")
    run.probe_cells()
    for spec, reason in run.missing.items():
        print(f"warning: {spec} does not take part: {reason}", file=sys.stderr)
    for reason, names in run.skipped.items():
        print(f"warning: {report.skipped_text(reason, names)}", file=sys.stderr)
    print(
        f"{len(run.cells)} cells, {run.settings.repetitions} repetitions, arms "
        f"{' '.join(run.specs)}: about {report.duration(run.expected_s())}",
        file=sys.stderr,
    )
    result = measured(run, args)
    folder = save(args, result)
    print(report.terminal(result))
    for name in ("results.md", "results.json"):
        print(folder / name, file=sys.stderr)
    if not args.no_plots:
        draw(folder)
    return 130 if result["interrupted"] else 0


if __name__ == "__main__":
    sys.exit(main())
