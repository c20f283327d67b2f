"""How far from its goal a cell is, and how far a loop that cost nothing would be.

    python -m bench.bounds bench/results/latest/results.json     the cells that miss a goal there
    python -m bench.bounds --only net.proto.c10.64B micro.task   these, if they belong to a goal

Each cell is measured again, gyre and what the goal is set against, in turn, in pairs, and for a
profile with a profiler attached (bench/profiles.py). Two answers:

The floor (bench/net/floor.c, bench/micro/floor.c), in the same pairs, does nothing but call the
program's Python: where it does not reach the goal either, no loop does. What is held together and
what looks before it sleeps are kinds of it, of which the better counts.

The bound is what gyre would reach if its own code and what the C library does for it took no time,
with the same system calls, the same Python and the same OpenSSL: whatever is then still missing is
not the loop's to give. It is an estimate, and the only one where there is no floor.

Prints a Markdown table; --output keeps the samples as JSON, and several such files make one table
with --merge. With a results.json "reached" is its figure, and that of the run here is second.
"""

import argparse
import collections
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

from bench import (
    arms,
    build,
    cells,
    goals,
    machine,
    measure,
    nursery,
    profiles,
    report,
    servers,
    stats,
)
from bench.micro import floor as micro_floor
from bench.net import floor

GYRE, UVLOOP = "gyre", goals.UVLOOP
C_SERVERS = ("c-epoll", "c-uring")
FLOOR, LOOKING, TOGETHER, WHOLE = FLOORS = (
    "floor",
    "floor@spin_us=50",
    "floor@send=together",
    "floor@future=whole",
)
TOGETHER_BYTES_MAX = 4096  # what is larger is sent at once
# A loop that costs nothing: these parts of the time are gone.
REMOVABLE = (profiles.LOOP, profiles.LIBC)
FULL_ENOUGH = 0.9  # utilisation from which on the CPU time is all of the time
NOISE = 0.03  # gyre that far ahead of the floor does what the floor does not
# Samples with a profiler; the figures of network and micro cells come from others.
PROFILES = {"net": 1, "http": 2, "micro": 3}
PAIRED = ("net", "micro")
SLICES = 5  # of each arm in a repetition of a micro cell
LIMIT_REPETITIONS = 3  # of the C servers, where no goal is against them


# ---- arithmetic ----


def shares(parts):
    """{part: share of all samples}"""
    total = sum(parts.values())
    return {part: parts.get(part, 0) / total if total else 0.0 for part in profiles.PARTS}


def removable(parts, utilisation=1.0):
    """The share of the time that a loop that costs nothing would save. Of a process that was not
    busy all the time, only what it was busy with."""
    busy = 1.0 if utilisation >= FULL_ENOUGH else utilisation
    return busy * sum(shares(parts)[part] for part in REMOVABLE)


def bound(reached, gone, at_most=False):
    """What `reached` becomes when the share `gone` of gyre's time is gone."""
    return reached * (1 - gone) if at_most else reached / (1 - gone)


def share_to_go(goal, reached):
    """The share of gyre's time that would have to go for the goal; 0 when it is reached."""
    if goal.holds(reached):
        return 0.0
    return 1 - (goal.needed / reached if goal.at_most else reached / goal.needed)


@dataclass(frozen=True)
class Row:
    """One cell of one goal, as measured here."""

    goal: goals.Goal
    name: str
    reached: float
    c_server: float | None  # a C server in gyre's place, as a ratio to the same baseline
    cpu_us: tuple  # gyre's and the baseline's, per operation
    parts: tuple  # Counters of gyre's and the baseline's samples
    utilisation: float
    here: float | None = None  # what the run here reached, if `reached` is of another one
    floor: stats.Comparison | None = None  # in gyre's place, to the same baseline
    of_floor: stats.Comparison | None = None  # gyre / floor

    @property
    def gone(self):
        busy = 1.0 if self.goal.kind == goals.COST else self.utilisation
        return removable(self.parts[0], busy)

    @property
    def bound(self):
        return bound(self.reached, self.gone, self.goal.at_most)

    @property
    def c_server_is_evidence(self):
        """It does not reach the goal, and gyre does not do what it leaves out (it never looks
        before it sleeps, so with one connection it is the slower of the two)."""
        if self.c_server is None or self.goal.holds(self.c_server):
            return False
        return self.goal.worst((self.c_server, self.reached)) == self.reached

    @property
    def floor_is_evidence(self):
        """It does not reach the goal, and is no slower than gyre."""
        if self.floor is None or self.goal.holds(self.floor.ratio):
            return False
        ahead = 1 / self.of_floor.ratio if self.goal.at_most else self.of_floor.ratio
        return ahead <= 1 + NOISE

    @property
    def verdict(self):
        if self.goal.holds(self.reached):
            return "reached here"
        if self.here is not None and self.goal.holds(self.here):
            return "reached in the second run"
        if self.floor_is_evidence:
            return "out of reach: a loop that does nothing but call Python does not either"
        if self.floor is not None and self.goal.holds(self.floor.ratio):
            beyond = abs(self.floor.ratio / self.goal.needed - 1)
            what = "cost" if self.goal.at_most else "rate"
            return (
                f"ours: the floor is {beyond:.0%} beyond the goal, gyre at "
                f"{self.of_floor.ratio:.2f} of its {what}"
            )
        if self.c_server_is_evidence:
            return "a C server without Python does not reach it"
        needed = share_to_go(self.goal, self.reached)
        if not self.goal.holds(self.bound):
            return f"out of reach: {self.rest()} are not the loop's"
        return f"ours: {needed:.0%} of the time would have to go, of {self.gone:.0%}"

    def rest(self):
        """The two largest parts of gyre's time that no loop can do without."""
        left = [
            (share, part) for part, share in shares(self.parts[0]).items() if part not in REMOVABLE
        ]
        return " and ".join(f"{part} {share:.0%}" for share, part in sorted(left)[:-3:-1])


def profile_text(cpu_us, parts):
    """4.32: 84/5/7/4, and the rest by name."""
    found = shares(parts)
    text = "/".join(f"{100 * found[part]:.0f}" for part in profiles.PARTS[:4])
    more = [
        f"{part} {100 * found[part]:.0f}" for part in profiles.PARTS[4:] if found[part] >= 0.005
    ]
    return f"{cpu_us:.3g}: {', '.join([text, *more])}"


HEADINGS = (
    "cell", "needed", "reached", "floor", "gyre / floor", "gyre", "baseline", "C server", "bound",
    "what that says",
)  # fmt: skip


def spread(comparison):
    """1.18 (1.06-1.30)"""
    if comparison is None:
        return "-"
    return f"{comparison.ratio:.2f} ({comparison.low:.2f}-{comparison.high:.2f})"


def table(rows):
    """Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join(["---"] * len(HEADINGS)) + " |"]
    for row in rows:
        against = "" if row.goal.against == UVLOOP else " of the C limit"
        limit = "-" if row.c_server is None else f"{row.c_server:.2f}"
        texts = [profile_text(*each) for each in zip(row.cpu_us, row.parts, strict=True)]
        here = "" if row.here is None else f"; {row.here:.2f}"
        values = [f"`{row.name}`", f"{row.goal.needed:g}{against}", f"{row.reached:.2f}{here}"]
        values += [spread(row.floor), spread(row.of_floor), *texts]
        values += [limit, f"{row.bound:.2f}", row.verdict]
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


# ---- which cells, and which arms ----


def wanted(every, chosen):
    """[(goal, cell)] of the cells with these names that a goal is about and perf can explain."""
    by_name = {cell.name: cell for cell in every}
    found = []
    for goal in goals.GOALS:
        for name in goals.names_of(goal, chosen):
            cell = by_name[name]
            is_memory = cell.parameters.get("load") in ("idle", "burst")
            if not is_memory and cell.family in profiles.BY_FAMILY and goal.kind != goals.FIGURE:
                found.append((goal, cell))
    return found


def missed(result):
    """{(name of a goal, name of a cell): figure} of what misses a goal in a results.json."""
    reached = goals.reached(result["cells"], result["arms"], report.limit_share)
    return {
        (each.goal.name, name): value
        for each in reached
        for name, value in each.figures.items()
        if not each.goal.holds(value)
    }


def with_figures(rows, figures):
    """The rows of these cells alone, with the figures of a longer run in place of their own."""
    return [
        replace(row, reached=figures[key], here=row.reached)
        for row in rows
        if (key := (row.goal.name, row.name)) in figures
    ]


def floors_for(cell):
    """The kinds of the floor that may be the best of a cell."""
    if cell.family == "micro":
        if micro_floor.reason(cell.parameters):
            return []
        return [WHOLE if cell.parameters["workload"] in micro_floor.TASKS else FLOOR]
    if cell.family != "net" or floor.reason(cell.parameters):
        return []
    if cell.metric is not cells.RATE:
        return [FLOOR]
    if cell.parameters["connections"] == 1:
        return [LOOKING]
    return [FLOOR, TOGETHER] if cell.parameters["size"] <= TOGETHER_BYTES_MAX else [FLOOR]


def arms_for(cell):
    specs = [GYRE, UVLOOP, *floors_for(cell)]
    if cell.c_limit:
        udp = cell.parameters.get("mode") == "udp"
        specs += C_SERVERS[:1] if udp else C_SERVERS
    return specs


# ---- measuring ----


def new_samples(pairs):
    """One per cell, with the goals that it belongs to."""
    names = {}
    for goal, cell in pairs:
        names.setdefault(cell, []).append(goal.name)
    return {
        cell: {
            "goals": names[cell],
            "cell": cell.name,
            "taken": {
                spec: {"figures": [], "parts": collections.Counter()} for spec in arms_for(cell)
            },
        }
        for cell in names
    }


def is_against_limit(sample):
    return any(goal.name in sample["goals"] for goal in goals.GOALS if goal.against == goals.LIMIT)


def pair_arms(sample, repetition):
    """The arms of one repetition. The C servers are the ones that matter least."""
    all_of_them = repetition < LIMIT_REPETITIONS or is_against_limit(sample)
    return [spec for spec in sample["taken"] if all_of_them or spec not in C_SERVERS]


def with_utilisation(figures):
    """A micro sample says how long an operation took and how much of that was CPU time."""
    if figures is None or "wall_us" not in figures:
        return figures
    return {**figures, "utilisation": figures["cpu_us"] / figures["wall_us"]}


def take_pairs(samples, repetitions, bench, done=lambda: None):
    """Repetitions outside, cells inside: those of a cell are spread over the whole run."""
    chosen = {cell: sample for cell, sample in samples.items() if cell.family in PAIRED}
    for repetition in range(repetitions if chosen else 0):
        print(f"pairs, {repetition + 1}/{repetitions}", file=sys.stderr)
        with nursery.Nurseries() as nurseries:
            for cell, sample in chosen.items():
                specs = pair_arms(sample, repetition)
                figures, errors = measure.repetition(cell, specs, repetition, (*bench, nurseries))
                for spec, error in errors.items():
                    print(f"{cell.name} {spec}: {error}", file=sys.stderr)
                for spec, each in sample["taken"].items():
                    each["figures"].append(with_utilisation(figures.get(spec)))
        done()


def take_profiles(cell, sample, repetitions, bench):
    """Samples with a profiler. Where there are no pairs without one, the figures are theirs."""
    placement, settings = bench
    profile = profiles.BY_FAMILY[cell.family]
    taken = sample["taken"]
    shown = (GYRE, UVLOOP, *(C_SERVERS if is_against_limit(sample) else ()))
    specs = [spec for spec in taken if spec in shown]
    for repetition in range(repetitions):
        for spec in specs if repetition % 2 == 0 else reversed(specs):
            try:
                figures, parts = profile(cell, arms.parse_arm(spec), placement, settings)
            except servers.MeasureError as error:
                print(f"{cell.name} {spec}: {error}", file=sys.stderr)
                figures, parts = None, {}
            if cell.family not in PAIRED:
                taken[spec]["figures"].append(figures)
            taken[spec]["parts"].update(parts)


def best_floor(column, higher_is_better):
    """The name of the better kind, or None. Not the better of each repetition: that would be more
    than any of them."""
    medians = {
        spec: stats.median(values)
        for spec in FLOORS
        if (values := [value for value in column.get(spec, ()) if value])
    }
    best = max if higher_is_better else min
    return best(medians, key=medians.get, default=None)


def row_of(goal, cell, taken):
    """A Row, or None when an arm failed."""
    metric = goal.metric or cell.metric.key
    higher = True if goal.kind == goals.COST else cell.metric.higher_is_better
    column = {spec: stats.column(each["figures"], metric) for spec, each in taken.items()}
    limits = [column[spec] for spec in C_SERVERS if spec in column]
    limit = stats.best_of(limits, cell.metric.higher_is_better) if limits else []
    is_limit = goal.against == goals.LIMIT
    against = limit if is_limit else column[UVLOOP]
    reached = stats.compare(column[GYRE], against, higher)
    if reached is None:
        return None
    c_server = None if is_limit else stats.compare(limit, column[UVLOOP], higher)
    baseline = UVLOOP
    if is_limit:
        baseline = max(
            (spec for spec in C_SERVERS if spec in column),
            key=lambda spec: stats.median_of(taken[spec]["figures"], "rate") or 0,
        )
    both = [taken[GYRE], taken[baseline]]
    lowest = column.get(best_floor(column, cell.metric.higher_is_better), [])
    return Row(
        goal,
        cell.name,
        reached.ratio,
        c_server.ratio if c_server else None,
        tuple(stats.median_of(each["figures"], "cpu_us") for each in both),
        tuple(collections.Counter(each["parts"]) for each in both),
        stats.median_of(taken[GYRE]["figures"], "utilisation"),
        floor=stats.compare(lowest, against, higher),
        of_floor=stats.compare(column[GYRE], lowest, higher),
    )


def rows_of(samples, every):
    """The Rows of what --output kept, in the order of the goals."""
    by_cell = {cell.name: cell for cell in every}
    rows = (
        row_of(goal, by_cell[each["cell"]], each["taken"])
        for goal in goals.GOALS
        for each in samples
        if goal.name in each["goals"]
    )
    return [row for row in rows if row is not None]


def measured(pairs, args):
    placement = machine.Placement(args.server_core, args.client_core)
    settings = SimpleNamespace(
        warmup_s=args.warmup, duration_s=args.window, poll="busy", slices=SLICES
    )
    bench = (placement, settings)
    samples = new_samples(pairs)

    def keep():  # what there is, should it be interrupted
        if args.output:
            args.output.write_text(json.dumps(list(samples.values())) + "\n")

    with machine.priority():
        take_pairs(samples, args.reps, bench, keep)
        for number, (cell, sample) in enumerate(samples.items(), 1):
            print(f"profiles, {number}/{len(samples)} {cell.name}", file=sys.stderr)
            take_profiles(cell, sample, PROFILES[cell.family], bench)
            keep()
    return list(samples.values())


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="?", type=Path, help="of a run of the benchmarks")
    parser.add_argument("--only", nargs="+", default=[], metavar="CELL", help="names or patterns")
    parser.add_argument("--reps", type=int, default=7, help="pairs of each network and micro cell")
    parser.add_argument("--warmup", type=float, default=0.08)
    parser.add_argument("--window", type=float, default=0.3, help="seconds")
    parser.add_argument("--server-core", type=int)
    parser.add_argument("--client-core", type=int)
    parser.add_argument("--output", type=Path, metavar="JSON", help="keeps the samples")
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="JSON", help="tables of kept samples; no run"
    )
    args = parser.parse_args(argv)
    if not (args.results or args.only or args.merge):
        parser.error("which cells? a results.json, --only or --merge")
    return args


def main(argv=None):
    args = parse_arguments(argv)
    every = cells.all_cells()
    figures = missed(json.loads(args.results.read_text())) if args.results else None
    if args.merge:
        samples = [each for path in args.merge for each in json.loads(path.read_text())]
    else:
        chosen = cells.select(every, args.only)
        pairs = wanted(every, [cell.name for cell in chosen])
        if figures is not None:
            pairs = [pair for pair in pairs if (pair[0].name, pair[1].name) in figures]
        try:
            build.build("loadgen")
            build.build_module("floor")
            build.build_module(micro_floor.MODULE)
            samples = measured(pairs, args)
        except build.BuildError as error:
            sys.exit(str(error))
    rows = rows_of(samples, every)
    print(table(rows if figures is None else with_figures(rows, figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
