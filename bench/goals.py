"""What gyre is to reach against uvloop, and whether a run shows it.

A goal names its cells; it is reached when every one of them reaches the figure. The worst cell
stands in the table, so that a goal is not reached on average.
"""

from dataclasses import dataclass

from bench import cells, stats

UVLOOP, LIMIT = "uvloop", "the C limit"

# What a figure is: the ratio that decides the cell (above 1 is better), a plain ratio of a cost
# (below 1 is better), or the figure of the subject alone.
RATIO, COST, FIGURE = "ratio", "cost", "figure"


@dataclass(frozen=True)
class Goal:
    name: str
    needed: float
    cells: tuple  # patterns, as --only takes them
    against: str = UVLOOP
    kind: str = RATIO
    metric: str | None = None  # of a COST or FIGURE; the deciding one of the cell otherwise

    @property
    def at_most(self):
        return self.kind != RATIO

    def holds(self, value):
        return value <= self.needed if self.at_most else value >= self.needed

    def worst(self, values):
        return max(values) if self.at_most else min(values)


def echo(mode, connections, sizes):
    return tuple(f"net.{mode}.c{count}.{size}" for count in connections for size in sizes)


SMALL = ("64B", "1K")
UP_TO_16K = ("64B", "1K", "16K")
UP_TO_128K = (*UP_TO_16K, "128K")
ALL = (*UP_TO_128K, "1M")

GOALS = (
    Goal("TCP Protocol echo, 1 connection", 1.05, echo("proto", (1,), UP_TO_16K)),
    Goal("the same, looking before sleeping", 1.8, echo("proto", (1,), SMALL)),
    Goal("TCP Protocol echo, 10-100 x 64 B-1 KiB", 1.15, echo("proto", (10, 100), SMALL)),
    Goal("TCP Protocol echo, 1000 connections", 1.3, echo("proto", (1000,), UP_TO_16K)),
    Goal("TCP Protocol echo, 100 x 16 KiB", 1.3, echo("proto", (100,), ("16K",))),
    Goal("TCP Protocol echo, 128 KiB", 1.1, echo("proto", (1, 10, 100, 1000), ("128K",))),
    Goal("TCP Protocol echo, 10-100", 0.8, echo("proto", (10, 100), ALL), LIMIT),
    Goal("TCP Protocol echo, 1000", 0.75, echo("proto", (1000,), UP_TO_128K), LIMIT),
    Goal("streams echo, 10-100 x 64 B-1 KiB", 1.3, echo("streams", (10, 100), SMALL)),
    Goal("streams echo, 1000 connections", 1.5, echo("streams", (1000,), SMALL)),
    Goal("streams echo, 16 KiB", 2.0, echo("streams", (1, 10, 100, 1000), ("16K",))),
    Goal("sock_* echo", 1.5, ("net.sock",)),
    Goal("UNIX echo", 1.2, ("net.unix",)),
    Goal("UDP echo", 1.2, ("net.udp.echo",)),
    Goal(
        "UDP one way with segmentation offload", 3.0, ("net.udp.sink-gso", "net.udp.source")
    ),
    Goal("TLS echo, 1-16 KiB", 1.5, ("tls.*.c*.1K", "tls.*.c*.16K")),
    Goal("uvicorn", 1.15, ("http.h11", "http.httptools")),
    Goal("aiohttp server", 1.1, ("http.aiohttp",)),
    Goal("HTTP, 400 connections, p99", 0.7, ("http.*.c400",), kind=COST, metric="p99_us"),
    Goal("churn, server CPU per connection", 0.75, ("net.churn",), kind=COST, metric="cpu_us"),
    Goal("sleep(0)", 1.9, ("micro.task.sleep0_*",)),
    Goal("a future wakes a task", 3.0, ("micro.task.wakeup",)),
    Goal("two tasks hand over", 4.0, ("micro.task.handover",)),
    Goal("spawn and await", 3.0, ("micro.task.spawn_*",)),
    Goal("gather(100)", 2.0, ("micro.task.gather_100",)),
    Goal("Queue ping-pong", 2.0, ("micro.task.queue",)),
    Goal("call_soon", 2.5, ("micro.loop.call_soon_*",)),
    Goal("call_soon_threadsafe", 1.5, ("micro.loop.threadsafe_*",)),
    Goal("call_later and cancel", 2.0, ("micro.loop.timer_cancel_*",)),
    Goal(
        "timers, mean lateness in us", 100.0, ("micro.loop.timer_lateness",),
        kind=FIGURE, metric="lateness_us",
    ),
    Goal(
        "memory per idle TCP connection", 0.5, ("net.idle",), kind=COST,
        metric="rss_per_connection",
    ),
)  # fmt: skip


def names_of(goal, names):
    return [name for name in names if any(cells.matches(name, each) for each in goal.cells)]


@dataclass(frozen=True)
class Reached:
    """A goal beside what a run shows: the figure of each cell that was measured."""

    goal: Goal
    figures: dict

    @property
    def holds(self):
        return all(self.goal.holds(value) for value in self.figures.values())

    @property
    def count(self):
        return sum(self.goal.holds(value) for value in self.figures.values())

    @property
    def worst(self):
        """(name of the cell, its figure)"""
        value = self.goal.worst(self.figures.values())
        return next((name, each) for name, each in self.figures.items() if each == value)


def samples_of(result, spec, metric):
    run = result["runs"][0] if result["runs"] else {}
    return stats.column(run.get(spec) or [], metric)


def figure_of(goal, result, specs, compare_limit):
    """The figure of one cell, or None where it was not measured."""
    metric = goal.metric or result["metric"]["key"]
    if goal.kind == FIGURE:
        return stats.median_of(result["runs"][0].get(specs[0]) or [], metric)
    if goal.against == LIMIT:
        return compare_limit(result, specs)
    if UVLOOP not in specs:
        return None
    higher = True if goal.kind == COST else result["metric"]["higher_is_better"]
    compared = stats.compare(
        samples_of(result, specs[0], metric), samples_of(result, UVLOOP, metric), higher
    )
    return compared.ratio if compared else None


def reached(results, specs, compare_limit):
    """[Reached] of all goals of which at least one cell was measured."""
    by_name = {result["name"]: result for result in results if any(result["runs"])}
    found = []
    for goal in GOALS:
        figures = {
            name: figure_of(goal, by_name[name], specs, compare_limit)
            for name in names_of(goal, by_name)
        }
        figures = {name: value for name, value in figures.items() if value is not None}
        if figures:
            found.append(Reached(goal, figures))
    return found
