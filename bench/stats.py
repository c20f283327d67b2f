"""The arithmetic of a comparison: medians of paired ratios, spread, verdicts.

A repetition gives one value per arm, taken one right after the other. The host drifts by 30 % over
seconds to minutes; within a repetition all arms drift together, so the ratio of two values of one
repetition is what can be trusted. The result is the median of these ratios and their range.
"""

import math
from dataclasses import asdict, dataclass

LOST_BELOW = 0.97
WON_ABOVE = 1.03

LOST, EQUAL, WON = "lost", "equal", "won"
SUSPECT = "lost once"  # below the line in one run of two, or in the only one


def median(values):
    ordered = sorted(values)
    if not ordered:
        raise ValueError("the median of nothing")
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True)
class Comparison:
    """How many times better the subject is than a baseline: above 1 is better, in any unit."""

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self):
        if self.ratio < LOST_BELOW:
            return LOST
        return WON if self.ratio > WON_ABOVE else EQUAL

    def as_dict(self):
        return {**asdict(self), "verdict": self.verdict}


def paired_ratios(subject, baseline, higher_is_better=True):
    """Ratios of the values at the same index; pairs with a missing or zero value are left out."""
    ratios = []
    for mine, theirs in zip(subject, baseline, strict=False):
        if not mine or not theirs:
            continue
        ratios.append(mine / theirs if higher_is_better else theirs / mine)
    return ratios


def compare(subject, baseline, higher_is_better=True):
    """A Comparison, or None when no repetition has both values."""
    ratios = paired_ratios(subject, baseline, higher_is_better)
    if not ratios:
        return None
    return Comparison(median(ratios), min(ratios), max(ratios), len(ratios))


def best_of(columns, higher_is_better=True):
    """The best value of each repetition over several arms (the C limits)."""
    best = max if higher_is_better else min
    rows = zip(*columns, strict=False)
    return [best((value for value in row if value), default=None) for row in rows]


def final_verdict(first, second=None):
    """A cell is lost when it is below the line in two runs; once is only a suspicion."""
    if first is None:
        return None
    if first.verdict != LOST:
        return first.verdict
    if second is None:
        return SUSPECT
    return LOST if second.verdict == LOST else SUSPECT


def geometric_mean(ratios):
    ratios = list(ratios)
    if not ratios:
        return None
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))


def column(samples, metric):
    """One metric out of a list of samples (dicts, or None for a failed repetition)."""
    return [sample.get(metric) if sample else None for sample in samples]


def median_of(samples, metric):
    values = [value for value in column(samples, metric) if value is not None]
    return median(values) if values else None
