#!/usr/bin/env python3
"""Measures gyre against uvloop, asyncio and the C limit. docs/benchmarks.md says how to read it.

python bench/run.py                      everything (see --list for how long that takes)
python bench/run.py --quick              the cells that matter most, 3 minutes
python bench/run.py --only net.proto     one table; also micro.task, net.*.c100.1K, ...
python bench/run.py --arms gyre gyre@busy_poll=50 --only net.proto.c1
"""

import argparse
import collections
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path[0] = str(ROOT)  # not bench/: its http would hide the standard library's

from bench import arms, build, cells, machine, measure, report, stats  # noqa: E402

DEFAULT_ARMS = ["gyre", "uvloop", "asyncio", "c-epoll", "c-uring"]
# Without --arms, gyre's other backend is measured beside it: shown, neither won nor lost.
COMPANION = "gyre@GYRE_BACKEND=epoll"
COMPANION_KINDS = ("net.proto", "net.streams", "net.sock", "net.unix", "net.churn")
RESULTS = ROOT / "bench" / "results"

# seconds, for the expected time
SERVER_START_S = 0.3
TRACED_RUN_S = 1.2
MICRO_ARM_S = 0.2
MICRO_START_S = 0.35
FILES_ARM_S = 0.5
HTTP_SAMPLE_S = 3.2

FAILURES_MAX = 2  # of an arm in a cell; then it is not tried again


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
        self.missing = {}
        self.failures = collections.Counter()
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
            "runs": [],
            "system_calls": {},
            "errors": {},
        }

    def specs_for(self, cell):
        return [
            spec
            for spec in self.specs
            if spec not in self.missing
            and (cell.c_limit or not arms.parse_arm(spec).is_c)
            and self.takes_part(spec, cell)
        ]

    def takes_part(self, spec, cell):
        if cell.family == "files":
            return arms.parse_arm(spec).loop in ("gyre", *arms.FILES)
        if arms.parse_arm(spec).is_files:
            return False
        return spec not in self.companions or cell.kind in COMPANION_KINDS

    def repetition_s(self, cell):
        count = len(self.specs_for(cell))
        if cell.family == "micro":
            return MICRO_START_S + MICRO_ARM_S * count * self.settings.slices / 5
        if cell.family == "files":
            return MICRO_START_S + FILES_ARM_S * count
        if cell.family == "http":
            return count * (HTTP_SAMPLE_S + max(0.0, self.settings.duration_s - 1))
        return count * (SERVER_START_S + self.settings.warmup_s + self.settings.duration_s)

    def traced_specs(self, cell):
        if not (self.settings.trace and cell.traced):
            return []
        return [spec for spec in self.specs_for(cell) if not arms.parse_arm(spec).is_c]

    def expected_s(self):
        return sum(
            self.repetition_s(cell) * self.settings.repetitions
            + len(self.traced_specs(cell)) * TRACED_RUN_S
            for cell in self.cells
        )

    def probe_arms(self):
        """Finds out what cannot run here, once and before anything is measured."""
        for spec in self.specs:
            reason = machine_reason(spec, self.cells)
            if reason:
                self.missing[spec] = reason
        self.specs = [spec for spec in self.specs if spec not in self.missing]

    def measure_pass(self, chosen):
        """Repetitions outside, cells inside: those of a cell are spread over the whole pass, so
        that a bad phase of the host spoils one of them and not all."""
        for cell in chosen:
            self.results[cell.name]["runs"].append({spec: [] for spec in self.specs_for(cell)})
        for rep in range(self.settings.repetitions):
            for cell in chosen:
                self.one_repetition(cell, rep)

    def one_repetition(self, cell, rep):
        result = self.results[cell.name]
        specs = self.specs_for(cell)
        alive = [spec for spec in specs if self.failures[cell.name, spec] < FAILURES_MAX]

        def say(spec):
            self.progress.show(f"{rep + 1}/{self.settings.repetitions} {cell.name} {spec}")

        samples, errors = measure.repetition(cell, alive, rep, self.placement, self.settings, say)
        for spec in specs:
            result["runs"][-1][spec].append(samples.get(spec))
        for spec, error in errors.items():
            self.failures[cell.name, spec] += 1
            if spec not in result["errors"]:
                self.progress.note(f"{cell.name} {spec}: {error}")
            result["errors"][spec] = error
        self.progress.done_s += self.repetition_s(cell)

    def count_system_calls(self):
        for cell in self.cells:
            for spec in self.traced_specs(cell):
                if self.failures[cell.name, spec]:
                    continue
                self.progress.show(f"system calls {cell.name} {spec}")
                try:
                    self.results[cell.name]["system_calls"][spec] = measure.net_system_calls(
                        cell, arms.parse_arm(spec), self.placement, self.settings
                    )
                except measure.MeasureError as error:
                    if "strace" in str(error):
                        self.progress.note(f"no system calls are counted: {error}")
                        self.settings.trace = False
                        return
                    self.results[cell.name]["errors"].setdefault(spec, str(error))
                self.progress.done_s += TRACED_RUN_S

    def lost_cells(self):
        """Cells that the first pass lost; a second pass must agree before they count."""
        lost = []
        for cell in self.cells:
            judged = report.judge(self.results[cell.name], self.specs)
            if any(entry["verdict"] == stats.SUSPECT for entry in judged.values()):
                lost.append(cell)
        return lost

    def run(self):
        self.progress = Progress(self.expected_s())
        self.measure_pass(self.cells)
        self.count_system_calls()
        lost = self.lost_cells() if self.settings.confirm else []
        if lost:
            names = ", ".join(cell.name for cell in lost)
            self.progress.note(f"below the line once, measured again: {names}")
            self.progress.expected_s += sum(
                self.repetition_s(cell) * self.settings.repetitions for cell in lost
            )
            self.measure_pass(lost)
        self.progress.finish()


def machine_reason(spec, chosen):
    """Why an arm cannot take part, or None. Builds the C programs that are needed."""
    arm = arms.parse_arm(spec)
    if not arm.is_c:
        return arms.missing(arm)
    if not any(cell.c_limit for cell in chosen):
        return None
    try:
        build.build(measure.LIMIT_PROGRAMS[arm.loop])
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
    parser.add_argument("--warmup", type=float, default=0.15, help="seconds before each window")
    parser.add_argument("--window", type=float, default=0.3, help="seconds of each window")
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
    for cell in run.cells:
        print(f"{cell.name:34} {cell.title}")
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
    for spec, reason in run.missing.items():
        print(f"warning: {spec} does not take part: {reason}", file=sys.stderr)
    print(
        f"{len(chosen)} cells, {run.settings.repetitions} repetitions, arms "
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
