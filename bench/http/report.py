"""From the samples of a run to medians, paired ratios and a table.

A run is {"samples": {case: {arm: [cell of repetition 1, 2, ...]}}, "system_calls": {arm: {...}}}.
Within a repetition the arms ran one right after the other, so only ratios of the same repetition
are compared; absolute figures drift with the machine.
"""

from __future__ import annotations

import re
import statistics
from typing import Any

from load import Case

Run = dict[str, Any]

# key, what the table calls it, how it is written, whether more is better
METRICS = (
    ("requests_per_s", "requests/s", "{:,.0f}", True),
    ("p50_ms", "p50 ms", "{:.2f}", False),
    ("p99_ms", "p99 ms", "{:.2f}", False),
    ("cpu_us_per_request", "server CPU us/request", "{:.1f}", False),
)
BUSY = 0.95


def values(run: Run, case: str, arm: str, metric: str) -> list[float]:
    return [cell[metric] for cell in run["samples"].get(case, {}).get(arm, [])]


def median(run: Run, case: str, arm: str, metric: str) -> float | None:
    found = values(run, case, arm, metric)
    return statistics.median(found) if found else None


def paired(run: Run, case: str, one: str, other: str, metric: str) -> tuple[float, float, float]:
    """Median, least and greatest of one/other over the repetitions."""
    pairs = zip(values(run, case, one, metric), values(run, case, other, metric))
    ratios = [a / b for a, b in pairs if b]
    return statistics.median(ratios), min(ratios), max(ratios)


def arms_of(run: Run, case: str) -> list[str]:
    return [arm for arm in run["arms"] if run["samples"].get(case, {}).get(arm)]


def table(run: Run, cases: tuple[Case, ...]) -> str:
    """The whole result as Markdown; plain enough to be read in a terminal."""
    rows = [["case", "loop", *(title for _, title, _, _ in METRICS)]]
    for case in cases:
        for arm in arms_of(run, case.name):
            row = [case.name, arm]
            for metric, _, form, _ in METRICS:
                value = median(run, case.name, arm, metric)
                row.append("" if value is None else form.format(value))
            rows.append(row)
    parts = [f"Medians of {run['repetitions']} repetitions, {run['duration_s']:g} s each.\n"]
    parts.append(grid(rows))
    if run["system_calls"]:
        parts.append(_calls(run))
    ratios = _ratios(run, cases)
    if ratios:
        parts.append(ratios)
    return "\n".join(parts)


def grid(rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns; those that are all figures stand to the right."""
    columns = list(zip(*rows))
    widths = [max(map(len, column)) for column in columns]
    text = [not all(re.fullmatch(r"[\d.,]*", cell) for cell in column[1:]) for column in columns]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, text)
        ]
        return "| " + " | ".join(cells) + " |"

    rule = [("-" * w if left else "-" * (w - 1) + ":") for w, left in zip(widths, text)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])]) + "\n"


def _calls(run: Run) -> str:
    rows = [["case", "loop", "system calls/request", "the most frequent"]]
    for arm, counts in run["system_calls"].items():
        top = [f"{name} {n:.2f}" for name, n in counts.items() if name != "total"][:4]
        rows.append([run["system_calls_case"], arm, f"{counts['total']:.2f}", ", ".join(top)])
    return f"System calls, from a separate short run under strace -c -f.\n\n{grid(rows)}"


def _ratios(run: Run, cases: tuple[Case, ...]) -> str | None:
    """gyre against each of the others: how many times as much, and the range."""
    if "gyre" not in run["arms"]:
        return None
    others = [arm for arm in run["arms"] if arm != "gyre"]
    titles = [title for _, title, _, _ in METRICS]
    rows = [["case", "gyre against", *titles]]
    for case in cases:
        for other in others:
            if "gyre" not in arms_of(run, case.name) or other not in arms_of(run, case.name):
                continue
            row = [case.name, other]
            for metric, _, _, _ in METRICS:
                middle, low, high = paired(run, case.name, "gyre", other, metric)
                row.append(f"x{middle:.2f} ({low:.2f}-{high:.2f})")
            rows.append(row)
    if len(rows) == 1:
        return None
    explain = (
        "gyre divided by the other, pair by pair: median (least-greatest). Above 1 is better for\n"
        "requests/s; below 1 is better for the rest."
    )
    return f"{explain}\n\n{grid(rows)}"


def idle_server(run: Run) -> list[str]:
    """Cells in which the server was not the limit, so that the figures say little of it."""
    found = []
    for case, arms in run["samples"].items():
        shares = {
            arm: statistics.median(cell["utilisation"] for cell in cells)
            for arm, cells in arms.items()
            if cells
        }
        idle = [f"{arm} {share:.0%}" for arm, share in shares.items() if share < BUSY]
        if idle:
            found.append(f"{case}: {', '.join(idle)}")
    if found:
        text = "The server did not have its core to itself, or wrk was the limit; its share of it:"
        found.insert(0, text)
    return found
