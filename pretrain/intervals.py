"""Bootstrap intervals of the metric: of one picker's figures, and of the difference between two on the same records.

Shapes: D draws, R records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pretrain.bootstrap import Interval, draws_of, interval_of, poisson, statistic
from pretrain.metric import PHASES, TOLERANCES_S, PhaseScore, Reference, TracePick, outcome

PERCENTILES = (5, 25, 50, 75, 95)
RESIDUAL_DRAWS = 500


@dataclass(frozen=True, kw_only=True)
class Counts:
    """By record (R,): whether it has the label, whether it was hit, and its false picks."""

    labels: NDArray[np.int64]
    hits: NDArray[np.int64]
    false: NDArray[np.int64]

    def drawn(self, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Recall, precision and F1 of each draw (D,)."""
        labels, hits, false = (weights @ counts for counts in (self.labels, self.hits, self.false))
        with np.errstate(invalid="ignore", divide="ignore"):
            # 2 r p / (r + p) in whole numbers, so that no hit at all is an F1 of 0 as in the metric.
            f1 = 2 * hits / (labels + hits + false)
            return {"recall": hits / labels, "precision": hits / (hits + false), "f1": f1}


def counts_of(
    references: Sequence[Reference], picks: Iterable[TracePick], thresholds: Mapping[str, float]
) -> dict[str, dict[float, Counts]]:
    """Counts by phase and tolerance of the picks at or above ``thresholds``; noise records count nothing here."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pick in picks:
        if pick.probability >= thresholds[pick.phase]:
            found[pick.trace_name, pick.phase].append(pick.sample)
    samples = {key: np.sort(np.array(some, dtype=np.float64)) for key, some in found.items()}
    out: dict[str, dict[float, Counts]] = {}
    for phase in PHASES:
        out[phase] = {}
        for tolerance_s in TOLERANCES_S:
            rows = np.zeros((len(references), 3), dtype=np.int64)
            for row, reference in zip(rows, references, strict=True):
                if reference.arrival(phase) is None:
                    continue
                judged = outcome(reference, phase, samples.get((reference.name, phase), np.zeros(0)), tolerance_s)
                row[:] = 1, judged.hit is not None, judged.false.sum()
            out[phase][tolerance_s] = Counts(labels=rows[:, 0], hits=rows[:, 1], false=rows[:, 2])
    return out


def groups_of(references: Sequence[Reference]) -> list[str]:
    """What is drawn together: the event, or the record itself where that is not known."""
    return [reference.group or reference.name for reference in references]


def score_intervals(
    references: Sequence[Reference], picks: Iterable[TracePick], thresholds: Mapping[str, float]
) -> dict[str, dict[float, dict[str, Interval]]]:
    """Intervals of recall, precision and F1, by phase and tolerance."""
    weights = draws_of(groups_of(references))
    return {
        phase: {
            tolerance_s: {name: interval_of(values) for name, values in counts.drawn(weights).items()}
            for tolerance_s, counts in by_tolerance.items()
        }
        for phase, by_tolerance in counts_of(references, picks, thresholds).items()
    }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """F1 of ours less that of another, ``within`` its paired interval."""

    ours: float
    theirs: float
    within: Interval

    @property
    def value(self) -> float:
        """Positive where ours is better."""
        return self.ours - self.theirs


def paired(
    references: Sequence[Reference],
    ours: tuple[Iterable[TracePick], Mapping[str, float]],
    theirs: tuple[Iterable[TracePick], Mapping[str, float]],
) -> dict[str, dict[float, Difference]]:
    """Differences of F1 by phase and tolerance between two pickers (each picks and thresholds) on the same draws."""
    weights = draws_of(groups_of(references))
    whole = np.ones((1, len(references)), dtype=np.int64)
    mine, other = (counts_of(references, *picker) for picker in (ours, theirs))
    out: dict[str, dict[float, Difference]] = {}
    for phase, by_tolerance in mine.items():
        out[phase] = {}
        for tolerance_s, counts in by_tolerance.items():
            rival = other[phase][tolerance_s]
            out[phase][tolerance_s] = Difference(
                ours=float(counts.drawn(whole)["f1"][0]),
                theirs=float(rival.drawn(whole)["f1"][0]),
                within=interval_of(counts.drawn(weights)["f1"] - rival.drawn(weights)["f1"]),
            )
    return out


def residual_figures(values_s: NDArray[np.float64], groups: Sequence[str]) -> dict[str, tuple[float, Interval]]:
    """Mean, mean absolute value, standard deviation and percentiles of residuals (hits at 0.5 s), with intervals.

    ``groups`` names the event of each; without any hit there are no figures.
    """
    if not len(values_s):
        return {}
    of: dict[str, Callable[[NDArray[np.float64]], float]] = {
        "mean": lambda some: float(some.mean()),
        "mae": lambda some: float(np.abs(some).mean()),
        "std": lambda some: float(some.std()),
    }
    of |= {f"p{k:02d}": partial(_percentile, k) for k in PERCENTILES}
    weights = draws_of(groups, RESIDUAL_DRAWS)
    return {name: (figure(values_s), statistic(values_s, weights, figure)) for name, figure in of.items()}


def _percentile(which: int, values: NDArray[np.float64]) -> float:
    return float(np.percentile(values, which))


def noise_interval(of_phase: PhaseScore) -> Interval:
    """False picks an hour of noise records."""
    return poisson(of_phase.noise_picks, of_phase.noise_hours)
