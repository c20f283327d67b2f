"""Draws a run: one panel per figure, one group of bars per case, one colour per loop."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from load import Case
from matplotlib.axes import Axes
from report import Run, arms_of, values

COLOURS = {"asyncio": "#9aa0a6", "uvloop": "#3b78c2", "gyre": "#e07a1f"}
PANELS = (
    ("requests_per_s", "Thousands of requests per second", "more is better", 1e-3),
    ("p99_ms", "Latency, 99th percentile (ms, logarithmic)", "less is better", 1),
    ("cpu_us_per_request", "Server CPU per request (µs)", "less is better", 1),
)
GROUP = 0.8  # of the room of a case, in bars


def draw(run: Run, cases: tuple[Case, ...], stem: Path) -> list[Path]:
    """Writes stem.svg and stem.png; returns their paths."""
    shown = [case for case in cases if arms_of(run, case.name)]
    plt.rcParams.update({"font.size": 10, "svg.fonttype": "none", "axes.titlesize": 12})
    figure, axes = plt.subplots(4, 1, figsize=(9.5, 12), height_ratios=(3, 3, 3, 1.5))
    for axis, panel in zip(axes, PANELS):
        _panel(axis, run, shown, *panel)
    _system_calls(axes[3], run)
    handles, labels = axes[0].get_legend_handles_labels()
    place = {"loc": "upper right", "ncols": len(labels), "frameon": False}
    figure.legend(handles, labels, bbox_to_anchor=(0.985, 0.962), **place)
    figure.suptitle(
        "One ASGI application, uvicorn, three event loops",
        x=0.015,
        y=0.99,
        ha="left",
        fontsize=15,
        fontweight="bold",
    )
    figure.text(0.015, 0.955, _subtitle(run), fontsize=9, color="#444444", va="center")
    figure.tight_layout(rect=(0, 0, 1, 0.945), h_pad=1.6)
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    for path in paths:
        figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)
    return paths


def _subtitle(run: Run) -> str:
    versions = run["versions"]
    names = ("python", "uvicorn", "uvloop", "gyre")
    text = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    return (
        f"{text}; kernel {run['machine']['kernel']}\n"
        f"bars: median of {run['repetitions']} repetitions; lines: least and greatest"
    )


def _panel(
    axis: Axes, run: Run, cases: list[Case], metric: str, title: str, hint: str, unit: float
) -> None:
    """`unit` turns the samples into what the axis shows."""
    arms = run["arms"]
    width = GROUP / len(arms)
    low, top = float("inf"), 0.0
    for index, arm in enumerate(arms):
        for group, case in enumerate(cases):
            found = [value * unit for value in values(run, case.name, arm, metric)]
            if not found:
                continue
            middle = statistics.median(found)
            x = group + (index - (len(arms) - 1) / 2) * width
            label = arm if group == 0 else None
            axis.bar(x, middle, width * 0.92, color=COLOURS[arm], label=label)
            axis.vlines(x, min(found), max(found), color="#222222", linewidth=1)
            _value(axis, x, max(found), f"{middle:.1f}", arm)
            low, top = min(low, *found), max(top, *found)
    if metric == "p99_ms":
        # One slow cell must not flatten the others.
        axis.set_yscale("log")
        axis.set_ylim(min(0.5, low * 0.7), top * 2.5)
    else:
        axis.set_ylim(0, top * 1.16 or 1)
    axis.set_xticks(range(len(cases)), [_two_lines(case) for case in cases])
    _plain(axis, f"{title}: {hint}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _value(axis: Axes, x: float, y: float, text: str, arm: str) -> None:
    weight = "bold" if arm == "gyre" else "normal"
    place = {"textcoords": "offset points", "ha": "center", "fontsize": 8, "fontweight": weight}
    axis.annotate(text, (x, y), xytext=(0, 3), **place)


def _system_calls(axis: Axes, run: Run) -> None:
    if not run["system_calls"]:
        axis.set_visible(False)
        return
    totals = {arm: counts["total"] for arm, counts in run["system_calls"].items()}
    for row, (arm, total) in enumerate(totals.items()):
        axis.barh(row, total, 0.75, color=COLOURS[arm])
        top = [f"{name} {n:.2f}" for name, n in run["system_calls"][arm].items() if name != "total"]
        text = f" {total:.2f}   ({', '.join(top[:4])})"
        axis.annotate(text, (total, row), va="center", fontsize=8)
    axis.set_yticks(range(len(totals)), list(totals))
    axis.invert_yaxis()
    axis.set_xlim(0, max(totals.values()) * 1.9)
    _plain(axis, f"System calls per request ({run['system_calls_case']}): less is better")
    axis.grid(axis="y", visible=False)


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontweight="bold")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(which="both", length=0)
    axis.set_axisbelow(True)
    axis.grid(axis="y" if axis.get_visible() else "x", color="#e6e6e6")


def _two_lines(case: Case) -> str:
    return f"{case.name.split(',')[0]}\n{case.connections} connections"
