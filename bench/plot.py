#!/usr/bin/env python3
"""Draws results.json: ratios per cell, latency against load, cost against connections.

python bench/plot.py [results.json] [--output FOLDER]
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):
    sys.path[0] = str(ROOT)  # not bench/: its http would hide the standard library's

import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot, ticker  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from bench import arms, report, stats  # noqa: E402

# Colours that stay apart for colour-blind readers (Okabe and Ito).
BLUE, ORANGE, GREEN, RED, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#8A8A8A",
)
VERDICT_COLOURS = {stats.LOST: RED, stats.SUSPECT: RED, stats.EQUAL: GREY, stats.WON: BLUE}
LOOP_COLOURS = {
    "gyre": BLUE,
    "uvloop": ORANGE,
    "asyncio": GREEN,
    "c-epoll": "black",
    "c-uring": GREY,
}
ROWS_PER_COLUMN = 44
RATIO_TICKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50)
BETWEEN = (0.75, 1.5, 3)
WIDE = 50

pyplot.rcParams.update(
    {
        "font.size": 9,
        "font.family": "DejaVu Sans",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "svg.hashsalt": "gyre",  # the same file for the same figures
    }
)


def colour_of(spec, specs):
    """Each loop has its colour; a second arm of the same loop gets a free one."""
    arm = arms.parse_arm(spec)
    first = next(other for other in specs if arms.parse_arm(other).loop == arm.loop)
    if spec == first and arm.loop in LOOP_COLOURS:
        return LOOP_COLOURS[arm.loop]
    spare = ("#CC79A7", SKY, RED, "#8C564B")
    return spare[specs.index(spec) % len(spare)]


def style_of(spec):
    return "--" if arms.parse_arm(spec).is_c else "-"


def save(figure, folder, name):
    paths = []
    for suffix in ("svg", "png"):
        path = folder / f"{name}.{suffix}"
        metadata = {"Date": None} if suffix == "svg" else None
        figure.savefig(path, dpi=130, bbox_inches="tight", metadata=metadata)
        paths.append(path)
    pyplot.close(figure)
    return paths


def caption(result):
    environment = result["environment"]
    return (
        f"{environment['cpu']}, Linux {environment['kernel']}, Python {environment['python']}, "
        f"uvloop {environment['uvloop']}, {environment['date'][:10]}"
    )


# ---- ratios per cell ----


def ratio_rows(cells, specs):
    """[(name, {baseline: entry})] with the cells of a table together, in their order."""
    rows = defaultdict(list)
    for cell in cells:
        judged = report.judge(cell, specs)
        if cell["decides"] and judged:
            rows[kind_of(cell["name"])].append((cell["name"], judged))
    return [row for table in rows.values() for row in table]


def kind_of(name):
    return ".".join(name.split(".")[:2])


def dividers(names):
    """Where a line separates two tables; tables of one cell need none between them."""
    kinds = [kind_of(name) for name in names]
    return [
        index
        for index in range(1, len(kinds))
        if kinds[index] != kinds[index - 1]
        and (kinds.count(kinds[index]) > 1 or kinds.count(kinds[index - 1]) > 1)
    ]


def ratio_ticks(low, high):
    # Where the axis is long those between the halves and doubles would run into each other.
    ticks = RATIO_TICKS if high / low < WIDE else [t for t in RATIO_TICKS if t not in BETWEEN]
    chosen = [tick for tick in ticks if low <= tick <= high]
    return chosen or [1]


def draw_ratio_column(axes, rows, specs, bounds):
    others = report.baselines(specs)
    for index in dividers([name for name, _ in rows]):
        axes.axhline(0.5 - index, color="#CCCCCC", linewidth=0.8)
    for index, (_, judged) in enumerate(rows):
        y = -index
        for other in reversed(others):
            entry = judged.get(other)
            if entry is None:
                continue
            if other == others[0]:
                colour = VERDICT_COLOURS[entry["verdict"]]
                axes.plot([entry["low"], entry["high"]], [y, y], color=colour, linewidth=1.6)
                axes.plot([entry["ratio"]], [y], "o", color=colour, markersize=5)
            else:
                axes.plot(
                    [entry["ratio"]], [y], "D", color="none", markersize=4,
                    markeredgecolor=colour_of(other, specs), markeredgewidth=1.0,
                )  # fmt: skip
    axes.set_yticks([-index for index in range(len(rows))], [name for name, _ in rows])
    axes.set_ylim(-len(rows) + 0.4, 0.6)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_xscale("log")
    axes.set_xlim(*bounds)
    ticks = ratio_ticks(*bounds)
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.axvspan(stats.LOST_BELOW, stats.WON_ABOVE, color="#EEEEEE", zorder=0)
    axes.axvline(1, color="#AAAAAA", linewidth=0.8, zorder=0)
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.6, zorder=0)


def ratio_legend(specs):
    others = report.baselines(specs)
    marks = [
        Line2D([], [], color=BLUE, marker="o", label=f"better than {others[0]}, with range"),
        Line2D([], [], color=GREY, marker="o", label="equal (0.97 to 1.03)"),
        Line2D([], [], color=RED, marker="o", label="lost"),
    ]
    for other in others[1:]:
        marks.append(
            Line2D(
                [],
                [],
                linestyle="none",
                marker="D",
                color="none",
                markeredgecolor=colour_of(other, specs),
                label=f"against {other}",
            )  # fmt: skip
        )
    return marks


ECHO = ("net.proto", "net.buffered", "net.streams", "net.sock")
# A picture each, with what belongs into it: too many rows cannot be read.
PICTURES = {
    "echo": ("TCP echo", lambda cell: cell["kind"] in ECHO),
    "net": ("network", lambda cell: cell["family"] == "net" and cell["kind"] not in ECHO),
    "http": ("HTTP", lambda cell: cell["family"] == "http"),
    "micro": ("tasks, loop, children", lambda cell: cell["family"] == "micro"),
    "files": ("files", lambda cell: cell["family"] == "files"),
}


def draw_ratios(result, folder, name):
    title, belongs = PICTURES[name]
    cells = [cell for cell in result["cells"] if belongs(cell) and any(cell["runs"])]
    took_part = {spec for cell in cells for spec in cell["runs"][0]}
    specs = [spec for spec in result["arms"] if spec in took_part]
    rows = ratio_rows(cells, specs)
    if not rows:
        return []
    columns = -(-len(rows) // ROWS_PER_COLUMN)
    height = -(-len(rows) // columns)
    values = [
        value for _, judged in rows for e in judged.values() for value in (e["low"], e["high"])
    ]
    bounds = (min(0.7, min(values) / 1.1), max(1.5, max(values) * 1.1))
    figure, grid = pyplot.subplots(
        1, columns, squeeze=False, figsize=(5.6 * columns, 1.2 + 0.19 * height)
    )
    for index, axes in enumerate(grid[0]):
        draw_ratio_column(axes, rows[index * height : (index + 1) * height], specs, bounds)
        axes.set_xlabel(f"times better than {report.baselines(specs)[0]}")
    figure.suptitle(f"{specs[0]}, {title}: each cell against the others", x=0.02, ha="left")
    figure.legend(
        handles=ratio_legend(specs), loc="upper left", bbox_to_anchor=(0.01, 0.0), ncols=4,
        frameon=False, fontsize=8, title=caption(result), title_fontsize=7, alignment="left",
    ).set_in_layout(True)  # fmt: skip
    figure.tight_layout()
    return save(figure, folder, f"ratios-{name}")


# ---- curves ----


def point(cell, spec, metric):
    run = cell["runs"][0] if cell["runs"] else {}
    return stats.median_of(run.get(spec) or [], metric)


def curve(cells, spec, x_key, metric):
    points = []
    for cell in cells:
        value = point(cell, spec, metric)
        if value is not None:
            points.append((cell["parameters"][x_key], value))
    return sorted(points)


def draw_curve(axes, cells, specs, x_key, metric):
    for spec in specs:
        points = curve(cells, spec, x_key, metric)
        if points:
            axes.plot(
                *zip(*points, strict=True), style_of(spec), marker="o", markersize=3.5,
                color=colour_of(spec, specs), label=spec,
            )  # fmt: skip


def plain_ticks(axis):
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: report.quantity(value)))


def legend_below(figure, all_axes, text):
    """One legend for all: an arm may be missing in some of them."""
    handles = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(), handles, loc="upper left", bbox_to_anchor=(0.01, 0.0), ncols=6,
        frameon=False, fontsize=8, title=text, title_fontsize=7, alignment="left",
    )  # fmt: skip


def draw_load(result, folder):
    """p50 and p99 against the rate at which messages are sent."""
    specs = result["arms"]
    cells = [cell for cell in result["cells"] if cell["kind"] == "net.load" and any(cell["runs"])]
    if len(cells) < 2:
        return []
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharex=True)
    for axes, metric, title in ((left, "p50_us", "median"), (right, "p99_us", "99 %")):
        draw_curve(axes, cells, specs, "rate", metric)
        axes.set_yscale("log")
        plain_ticks(axes.xaxis)
        plain_ticks(axes.yaxis)
        axes.set_xlabel("messages per second (1 KiB, 100 connections)")
        axes.set_title(f"latency in us, {title}")
        axes.grid(color="#EEEEEE")
    legend_below(figure, (left, right), caption(result))
    figure.tight_layout()
    return save(figure, folder, "latency")


def draw_connections(result, folder):
    """CPU time per message and rate against the number of connections."""
    specs = result["arms"]
    groups = defaultdict(list)
    for cell in result["cells"]:
        if cell["kind"] in ("net.proto", "net.streams") and any(cell["runs"]):
            groups[cell["kind"], cell["parameters"]["size"]].append(cell)
    groups = {key: cells for key, cells in groups.items() if len(cells) > 1}
    wanted = [key for key in (("net.proto", 64), ("net.proto", 16384), ("net.streams", 1024))
              if key in groups] or list(groups)[:3]  # fmt: skip
    if not wanted:
        return []
    figure, grid = pyplot.subplots(
        2, len(wanted), squeeze=False, figsize=(3.4 * len(wanted) + 0.6, 5.6), sharex=True
    )
    for column, key in enumerate(wanted):
        for row, (metric, title) in enumerate(
            (("cpu_us", "CPU us per message"), ("rate", "messages per second"))
        ):
            axes = grid[row][column]
            draw_curve(axes, groups[key], specs, "connections", metric)
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
            plain_ticks(axes.xaxis)
            plain_ticks(axes.yaxis)
            axes.set_title(f"{key[0]}, {key[1]} bytes: {title}", fontsize=8)
            axes.grid(color="#EEEEEE")
        grid[1][column].set_xlabel("connections")
    legend_below(figure, grid.flat, caption(result))
    figure.tight_layout()
    return save(figure, folder, "connections")


def draw_all(source, folder):
    result = json.loads(Path(source).read_text())
    paths = []
    if report.baselines(result["arms"]):
        for name in PICTURES:
            paths += draw_ratios(result, folder, name)
    paths += draw_load(result, folder)
    paths += draw_connections(result, folder)
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    latest = ROOT / "bench" / "results" / "latest" / "results.json"
    parser.add_argument("results", nargs="?", type=Path, default=latest)
    parser.add_argument("--output", type=Path, help="a folder; where the results are by default")
    args = parser.parse_args()
    if not args.results.exists():
        sys.exit(f"{args.results} does not exist; ./dev bench makes one")
    folder = args.output or args.results.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in draw_all(args.results, folder):
        print(path)


if __name__ == "__main__":
    main()
