"""Turns results.json into tables that a person reads. No measuring here."""

import sys
from collections import defaultdict

from bench import arms, goals, machine, stats

FAILED = "failed"
MARKS = {
    stats.LOST: "**LOST**",
    stats.SUSPECT: "lost once",
    stats.EQUAL: "equal",
    stats.WON: "won",
    FAILED: "**FAILED**",
}


GOALS_TEXT = (
    "What gyre is to reach, by `bench/goals.py`; a goal is reached when every one of its cells "
    "reaches the figure, and the worst stands here."
)


FAMILIES_TEXT = "Geometric means of the ratios of a family's cells, the lowest and the highest."


def duration(seconds):
    seconds = round(seconds)
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def quantity(value):
    """A number with three digits that count."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g}{unit}" if abs(scaled) < 1000 else f"{scaled:.0f}{unit}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def times(value):
    return "-" if value is None else f"{value:.2f}"


def baselines(specs):
    """The arms that the first one is judged against: all others but the limits."""
    return [spec for spec in specs[1:] if not arms.parse_arm(spec).is_limit]


def limits(specs):
    return [spec for spec in specs if arms.parse_arm(spec).is_c]


def compare_run(result, run_index, subject, other, metric=None, higher=None):
    if run_index >= len(result["runs"]):
        return None
    run = result["runs"][run_index]
    if subject not in run or other not in run:
        return None
    metric = metric or result["metric"]["key"]
    higher = result["metric"]["higher_is_better"] if higher is None else higher
    return stats.compare(
        stats.column(run[subject], metric), stats.column(run[other], metric), higher
    )


def judge(result, specs):
    """{baseline: {ratio, low, high, pairs, verdict}} of the deciding metric."""
    judged = {}
    for other in baselines(specs):
        first = compare_run(result, 0, specs[0], other)
        if first is None:
            continue
        entry = first.as_dict()
        second = compare_run(result, 1, specs[0], other)
        judges = result["decides"] and other not in result.get("companions", ())
        entry["verdict"] = stats.final_verdict(first, second) if judges else None
        entry["second_ratio"] = second.ratio if second else None
        judged[other] = entry
    return judged


def limit_share(result, specs):
    """How the subject's deciding figure compares with the better C server's: 1 is the limit."""
    run = result["runs"][0] if result["runs"] else {}
    metric, higher = result["metric"]["key"], result["metric"]["higher_is_better"]
    columns = [stats.column(run[spec], metric) for spec in limits(specs) if run.get(spec)]
    if not columns or specs[0] not in run:
        return None
    best = stats.best_of(columns, higher)
    compared = stats.compare(stats.column(run[specs[0]], metric), best, higher)
    return compared.ratio if compared else None


def cost_ratio(result, specs, metric):
    """A plain ratio subject / first baseline of something that should be small."""
    others = baselines(specs)
    if not others:
        return None
    compared = compare_run(result, 0, specs[0], others[0], metric, higher=True)
    return compared.ratio if compared else None


def most_common(samples, key):
    values = [sample[key] for sample in samples if sample and key in sample]
    return max(set(values), key=values.count) if values else None


def notes(result, specs):
    """What the numbers alone do not say."""
    found = []
    run = result["runs"][0] if result["runs"] else {}
    for spec in specs:
        if result["errors"].get(spec):
            found.append(f"{spec} failed: {result['errors'][spec]}")
    if any(most_common(run.get(spec) or [], "limited_by") == "client" for spec in specs[:2]):
        found.append("the client was the limit")
    for spec in specs:
        unserved = stats.median_of(run.get(spec) or [], "unserved")
        if unserved:
            found.append(f"{spec} answered {unserved:.0f} connections not once")
    cost = cost_ratio(result, specs, "cpu_us")
    if cost and cost > stats.WON_ABOVE and result["metric"]["key"] != "cpu_us":
        found.append(f"costs {cost:.2f} x the CPU")
    faults = stats.median_of(run.get(specs[0]) or [], "faults")
    if faults and faults > 0.05:
        found.append(f"{faults:.2f} page faults per message")
    return "; ".join(text.replace("|", "/") for text in found)


def spread(entry):
    text = f"{entry['ratio']:.2f} ({entry['low']:.2f}-{entry['high']:.2f})"
    if entry["second_ratio"]:
        text += f", again {entry['second_ratio']:.2f}"
    return text


def cell_verdict(judged):
    """The worst of the verdicts against the baselines."""
    for verdict in (stats.LOST, stats.SUSPECT, stats.EQUAL, stats.WON):
        if any(entry["verdict"] == verdict for entry in judged.values()):
            return verdict
    return None


def row_verdict(result, judged, specs):
    """What stands in the row: a cell whose subject failed is no draw."""
    return FAILED if specs[0] in result["errors"] else cell_verdict(judged)


def row(cells_of_row):
    return "| " + " | ".join(cells_of_row) + " |"


def value_columns(result, specs):
    """The deciding figure of each Python arm: the median over the repetitions."""
    metric = result["metric"]["key"]
    run = result["runs"][0] if result["runs"] else {}
    return [quantity(stats.median_of(run.get(spec) or [], metric)) for spec in specs]


def took_part(results, specs):
    measured = {spec for result in results for run in result["runs"][:1] for spec in run}
    return [spec for spec in specs if spec in measured]


def net_columns(result, specs):
    run = result["runs"][0] if result["runs"] else {}
    mine = run.get(specs[0]) or []
    calls = result["system_calls"]
    traced = [spec for spec in specs if spec in calls]
    return [
        times(cost_ratio(result, specs, "cpu_us")),
        times(limit_share(result, specs)),
        " / ".join(quantity(stats.median_of(mine, key)) for key in ("p50_us", "p99_us", "p999_us")),
        times(cost_ratio(result, specs, "p99_us")),
        " / ".join(f"{calls[spec]['total']:.2f}" for spec in traced) or "-",
        quantity(stats.median_of(mine, "utilisation")),
    ]


def table(kind, results, specs):
    """One Markdown table: all cells that start alike, and the arms that took part."""
    specs = took_part(results, specs)
    python_specs = [spec for spec in specs if not arms.parse_arm(spec).is_c]
    others = baselines(specs)
    unit = results[0]["metric"]["label"]
    head = ["cell", "verdict", *[f"{spec}, {unit}" for spec in python_specs]]
    head += [f"{specs[0]} vs {other} (range)" for other in others]
    net = results[0]["family"] == "net"
    if net:
        first = others[0] if others else "-"
        head += [f"CPU per message / {first}", "share of the C limit", "p50 / p99 / p99.9 us"]
        head += [f"p99 / {first}", "system calls per message", "utilisation"]
    lines = [f"### {kind}", "", row([*head, "notes"]), row(["---"] * (len(head) + 1))]
    for result in results:
        judged = judge(result, specs)
        line = [result["name"], MARKS.get(row_verdict(result, judged, specs), "-")]
        line += value_columns(result, python_specs)
        line += [spread(judged[other]) if other in judged else "-" for other in others]
        line += net_columns(result, specs) if net else []
        lines.append(row([*line, notes(result, specs)]))
    return "\n".join(lines)


def shares(numbers):
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.3g}" for name, share in ordered) or "-"


def calls_table(results, specs):
    """System calls per message by name, and the loop's own counters."""
    lines = [row(["cell", "arm", "system calls per message", "counters per message"])]
    lines.append(row(["---"] * 4))
    for result in results:
        for spec in specs:
            counted = result["system_calls"].get(spec)
            if counted:
                texts = [shares(counted["calls"]), shares(counted["counters"])]
                lines.append(row([result["name"], spec, *texts]))
    return "\n".join(lines) if len(lines) > 2 else None


def summary(results, specs):
    """How many cells were won against each baseline, and the geometric mean of the ratios."""
    failed = [result["name"] for result in results if specs[0] in result["errors"]]
    lines = [f"{specs[0]} failed in {len(failed)} cells: {', '.join(failed)}."] if failed else []
    for other in baselines(specs):
        entries = [judge(result, specs).get(other) for result in results if result["decides"]]
        entries = [entry for entry in entries if entry]
        if not entries:
            continue
        count = defaultdict(int)
        for entry in entries:
            count[entry["verdict"]] += 1
        mean = stats.geometric_mean(entry["ratio"] for entry in entries)
        parts = [f"{count[verdict]} {verdict}" for verdict in MARKS if count[verdict]]
        parts = parts or [f"{len(entries)} cells, not judged"]
        lines.append(f"{specs[0]} against {other}: {', '.join(parts)}; geometric mean {mean:.2f}.")
    return lines


def losses(results, specs):
    lines = []
    for result in results:
        for other, entry in judge(result, specs).items():
            if entry["verdict"] in (stats.LOST, stats.SUSPECT):
                lines.append(f"- {result['name']} against {other}: {spread(entry)}")
    return lines


def families_table(results, specs):
    """A row per family: the geometric mean of its cells against each baseline, and their range."""
    families = defaultdict(list)
    for result in results:
        judged = judge(result, specs)
        if result["decides"] and any(entry["verdict"] for entry in judged.values()):
            families[result["kind"]].append(judged)
    others = baselines(specs)
    lines = [row(["cells", "", *[f"/ {other}" for other in others]])]
    lines.append(row(["---"] * (2 + len(others))))
    for kind, judged in families.items():
        columns = []
        for other in others:
            ratios = [entries[other]["ratio"] for entries in judged if other in entries]
            mean = f"{stats.geometric_mean(ratios):.2f}" if ratios else "-"
            columns.append(mean + (f" ({min(ratios):.2f}-{max(ratios):.2f})" if ratios else ""))
        lines.append(row([kind, str(len(judged)), *columns]))
    return "\n".join(lines)


def goals_lines(results, specs):
    """A table: what was aimed at, and what this run shows. None when it has no cell of a goal."""
    found = goals.reached(results, specs, limit_share)
    if not found:
        return None
    lines = [row(["goal", "needed", "worst cell", "its figure", "cells that reach it", "reached"])]
    lines.append(row(["---"] * 6))
    for each in found:
        goal = each.goal
        name, value = each.worst
        unit = {goals.RATIO: f"x {goal.against}", goals.COST: f"of {goal.against}'s"}
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.needed:g}"
        needed = f"{bound} {unit.get(goal.kind, '')}".strip()
        count = f"{each.count} of {len(each.figures)}"
        shown = times(value)
        if goal.holds(float(shown)) != goal.holds(value):
            shown = f"{value:.3f}"  # not "1.20" beside "at least 1.2" and "no"
        lines.append(row([goal.name, needed, name, shown, count, GOAL_MARKS[each.holds]]))
    reached = sum(each.holds for each in found)
    return "\n".join([f"{reached} of {len(found)} goals are reached in every cell.", "", *lines])


GOAL_MARKS = {True: "yes", False: "**no**"}


def skipped_text(reason, names):
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{reason} ({len(names)} cells: {shown})"


def disturbed_text(result):
    counts = result.get("disturbed") or {"taken_again": 0, "kept": 0}
    if not counts["taken_again"] and not counts["kept"]:
        return None
    text = (
        f"Of {counts['repetitions']} repetitions {counts['taken_again']} were taken again because "
        "the host took CPU time away meanwhile or an arm failed"
    )
    kept = f", and {counts['kept']} stayed although it did" if counts["kept"] else ""
    return f"{text}{kept}."


SLOWEST = 10


def seconds_lines(results):
    """Where the time of the run went: by family, and the cells that took longest."""
    spent = defaultdict(float)
    for result in results:
        spent[result["family"]] += result.get("seconds", 0)
    if not sum(spent.values()):
        return []
    order = sorted(spent, key=spent.get, reverse=True)
    families = ", ".join(f"{family} {duration(spent[family])}" for family in order)
    slowest = sorted(results, key=lambda result: -result["seconds"])[:SLOWEST]
    cells = ", ".join(f"{result['name']} {result['seconds']:.0f} s" for result in slowest)
    return [f"Time: {families}. The longest: {cells}."]


def context(result):
    environment = result["environment"]
    settings = result["settings"]
    versions = ", ".join(
        f"{name} {environment[name]}" for name in ("gyre", "uvloop") if environment.get(name)
    )
    virtual = ", virtual" if environment["hypervisor"] else ""
    return [
        f"{environment['date']}, commit {environment['commit']}; {versions}, "
        f"Python {environment['python']}.",
        f"{environment['cpu']}, {environment['cores']} cores{virtual}, "
        f"Linux {environment['kernel']}; server on core {environment['server_core']}, "
        f"client on core {environment['client_core']}, priority: {environment['priority']}.",
        f"{settings['repetitions']} repetitions, windows of {settings['duration_s']} s after "
        f"{settings['warmup_s']} s of warm-up, client: {settings['poll']}; "
        f"{duration(result['seconds'])} in all.",
    ]


def markdown(result):
    specs = result["arms"]
    measured = [cell for cell in result["cells"] if any(cell["runs"])]
    tables = defaultdict(list)
    for cell in measured:
        tables[cell["kind"]].append(cell)
    parts = ["# Benchmark results", *context(result)]
    parts += [f"Doubtful: {text}" for text in machine.warnings(result["environment"])]
    parts += [f"Not measured: {spec}: {why}" for spec, why in result["missing"].items()]
    skipped = result.get("skipped", {}).items()
    parts += [f"Not measured: {skipped_text(reason, names)}" for reason, names in skipped]
    parts += filter(None, [disturbed_text(result)])
    if result["interrupted"]:
        parts.append("The run was interrupted: some repetitions are missing.")
    if result["settings"]["repetitions"] < 5:
        parts.append("Fewer than 5 repetitions: do not quote these figures.")
    parts += summary(measured, specs)
    lost = losses(measured, specs)
    if lost:
        parts += ["## Lost cells", "\n".join(lost)]
    goal_lines = goals_lines(measured, specs)
    if goal_lines:
        parts += ["## Goals", GOALS_TEXT, goal_lines]
    parts.append("## All cells")
    parts.append(
        "A ratio is the median of the ratios within each repetition, above 1 when "
        f"{specs[0]} is better. Lost: below {stats.LOST_BELOW} in two runs. Equal: up to "
        f"{stats.WON_ABOVE}. Costs (CPU, p99) are plain ratios: below 1 is better."
    )
    parts += [table(kind, entries, specs) for kind, entries in tables.items()]
    calls = calls_table(measured, specs)
    if calls:
        parts += ["## System calls", calls]
    parts += seconds_lines(measured)
    return "\n\n".join(parts) + "\n"


def aligned(rows):
    """Rows of texts as lines with columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for texts in rows:
        first, rest = texts[0].ljust(widths[0]), zip(texts[1:], widths[1:])
        lines.append("  ".join([first, *(text.rjust(width) for text, width in rest)]).rstrip())
    return lines


def terminal(result):
    """The short form, for a person at a terminal; everything else stands in the Markdown file."""
    specs = result["arms"]
    measured = [cell for cell in result["cells"] if any(cell["runs"])]
    lines = []
    for files in (False, True):  # compared with other arms
        chosen = [cell for cell in measured if (cell["family"] == "files") is files]
        lines += [*terminal_table(chosen, took_part(chosen, specs)), ""] if chosen else []
    lines += summary(measured, specs)
    found = goals.reached(measured, specs, limit_share)
    if found:
        missed = [each.goal.name for each in found if not each.holds]
        text = f"{len(found) - len(missed)} of {len(found)} goals are reached"
        lines.append(f"{text}; not: {', '.join(missed)}." if missed else f"{text}.")
    skipped = result.get("skipped", {}).items()
    lines += [f"Not measured: {skipped_text(reason, names)}" for reason, names in skipped]
    lines += filter(None, [disturbed_text(result), *seconds_lines(measured)])
    lines += [f"Doubtful: {text}" for text in machine.warnings(result["environment"])]
    return "\n".join(lines) + "\n"


def terminal_table(chosen, specs):
    others = baselines(specs)
    rows = [["cell", specs[0], "", *[f"/ {other}" for other in others], "C limit", "verdict"]]
    for cell in chosen:
        judged = judge(cell, specs)
        run = cell["runs"][0]
        value = stats.median_of(run.get(specs[0]) or [], cell["metric"]["key"])
        ratios = [times(judged[other]["ratio"]) if other in judged else "-" for other in others]
        verdict = row_verdict(cell, judged, specs) or "-"
        rows.append(
            [
                cell["name"],
                quantity(value),
                cell["metric"]["label"],
                *ratios,
                times(limit_share(cell, specs)),
                verdict.upper() if verdict in (stats.LOST, FAILED) else verdict,
            ]
        )
    return aligned(rows)


def short(result):
    """One row per cell, for docs/results.md: the verdicts, the ratios and what they cost."""
    measured = [cell for cell in result["cells"] if any(cell["runs"])]
    specs = took_part(measured, result["arms"])
    tables = []
    for files in (False, True):  # compared with other arms
        chosen = [cell for cell in measured if (cell["family"] == "files") is files]
        if chosen:
            tables.append("\n".join(short_table(chosen, took_part(chosen, specs))))
    parts = [
        "# Results",
        "Made by `./dev bench`; [the benchmarks](benchmarks.md) say how to read it.",
    ]
    # Without gyre's version: the commit says more, and the documentation does not repeat it.
    environment = {**result["environment"], "gyre": None}
    parts += [*context({**result, "environment": environment}), *summary(measured, specs)]
    parts += [f"Doubtful: {text}" for text in machine.warnings(environment)]
    lost = losses(measured, specs)
    parts += ["## Lost", "\n".join(lost)] if lost else []
    goal_lines = goals_lines(measured, specs)
    parts += ["## Goals", GOALS_TEXT, goal_lines] if goal_lines else []
    parts += ["## Families", FAMILIES_TEXT, families_table(measured, specs)]
    return "\n\n".join([*parts, "## All cells", *tables]) + "\n"


def short_table(chosen, specs):
    others = baselines(specs)
    head = ["cell", "verdict", specs[0], "", *[f"/ {other}" for other in others]]
    head += [f"CPU / {others[0]}", f"p99 / {others[0]}", "of the C limit"] if others else []
    lines = [row(head), row(["---"] * len(head))]
    for cell in chosen:
        judged = judge(cell, specs)
        value = value_columns(cell, specs[:1])
        ratios = [spread(judged[other]) if other in judged else "-" for other in others]
        costs = [times(cost_ratio(cell, specs, metric)) for metric in ("cpu_us", "p99_us")]
        costs.append(times(limit_share(cell, specs)))
        verdict = MARKS.get(row_verdict(cell, judged, specs), "-")
        unit = cell["metric"]["label"]
        lines.append(
            row([cell["name"], verdict, *value, unit, *ratios, *(costs if others else [])])
        )
    return lines


if __name__ == "__main__":
    import json

    # python -m bench.report [--short] results.json
    with open(sys.argv[-1]) as file:
        print((short if "--short" in sys.argv else markdown)(json.load(file)), end="")
