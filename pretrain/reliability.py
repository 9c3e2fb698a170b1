"""Whether probabilities and uncertainties are true: reliability, expected calibration error, coverage.

A pick is right where it serves a label at 0.5 s, wrong where the metric calls it false, and left out where that does
not know. Expected calibration error (Naeini et al. 2015): the mean distance between the mean probability and the share
of right picks, over bins of equally many picks. Few picks are never spread evenly, so a picker whose probabilities are
perfect has an error too: ``by_chance`` says how large.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain.bootstrap import Interval, draws_of, interval_of
from pretrain.data.trace import RATE_HZ
from pretrain.intervals import groups_of
from pretrain.metric import PHASES, TOLERANCES_S, Reference, TracePick, outcome

MOST_BINS, LEAST_IN_BIN = 10, 20
COVERAGE_AIM = 0.6827
"""Share of a Gaussian within one standard deviation."""


@dataclass(frozen=True, kw_only=True)
class JudgedPick:
    """A pick that counts: of a ``phase``, ``right`` or false; ``residual_s`` where it is right."""

    pick: TracePick
    group: str
    source: str
    right: bool
    residual_s: float | None = None


def judged(references: Sequence[Reference], picks: Iterable[TracePick]) -> list[JudgedPick]:
    """Every pick that is right or false at 0.5 s, in order of record, phase and time."""
    by_record: dict[tuple[str, str], list[TracePick]] = defaultdict(list)
    for pick in picks:
        by_record[pick.trace_name, pick.phase].append(pick)
    out: list[JudgedPick] = []
    for reference, group in zip(references, groups_of(references), strict=True):
        for phase in PHASES:
            some = sorted(by_record.get((reference.name, phase), ()), key=lambda pick: pick.sample)
            became = outcome(reference, phase, np.array([pick.sample for pick in some]), TOLERANCES_S[-1])
            for number, pick in enumerate(some):
                if number == became.hit:
                    residual = (pick.sample - (reference.arrival(phase) or 0.0)) / RATE_HZ
                    out.append(
                        JudgedPick(group=group, source=reference.source, pick=pick, right=True, residual_s=residual)
                    )
                elif became.false[number]:
                    out.append(JudgedPick(group=group, source=reference.source, pick=pick, right=False))
    return out


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Bins (mean probability, share of right picks, picks), the error with its interval, and that of a perfect one."""

    bins: Sequence[tuple[float, float, int]]
    error: float
    within: Interval
    by_chance: float


def stated(one: JudgedPick) -> float:
    """The probability that the daemon tells; the raw one of a picker that states no other."""
    return one.pick.probability if one.pick.stated_probability is None else one.pick.stated_probability


def bin_count(picks: int) -> int:
    """Ten bins where each gets 20 picks or more, else fewer."""
    return max(1, min(MOST_BINS, picks // LEAST_IN_BIN))


def binned(probability: NDArray[np.float64], right: NDArray[np.bool_], count: int) -> list[tuple[float, float, int]]:
    """Bins of equally many picks in order of probability."""
    order = np.argsort(probability, kind="stable")
    parts = (part for part in np.array_split(order, count) if len(part))
    return [(float(probability[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def calibration_error(probability: NDArray[np.float64], right: NDArray[np.bool_], count: int) -> float:
    """Expected calibration error over ``count`` bins; NaN without picks."""
    if not len(probability):
        return float("nan")
    return sum(abs(mean - share) * size for mean, share, size in binned(probability, right, count)) / len(probability)


def reliability(picks: Sequence[JudgedPick], draws: int = 1000) -> Reliability | None:
    """The reliability of picks (of one phase or of all), resampled by event; None without picks."""
    if not picks:
        return None
    probability = np.array([stated(one) for one in picks])
    right = np.array([one.right for one in picks])
    count = bin_count(len(picks))
    numbers = np.arange(len(picks))
    drawn = [np.repeat(numbers, row) for row in draws_of([one.group for one in picks], draws)]
    errors = [calibration_error(probability[some], right[some], count) for some in drawn]
    luck = np.random.default_rng(1).random((200, len(picks))) < probability
    return Reliability(
        bins=binned(probability, right, count),
        error=calibration_error(probability, right, count),
        within=interval_of(np.array(errors)),
        by_chance=float(np.mean([calibration_error(probability, row, count) for row in luck])),
    )


def coverage(picks: Sequence[JudgedPick], draws: int = 1000) -> tuple[float, Interval, int] | None:
    """Share of right picks whose residual lies within the stated uncertainty, its interval, and their number."""
    sure = [one for one in picks if one.residual_s is not None and one.pick.uncertainty_samples is not None]
    if not sure:
        return None
    inside = np.array(
        [abs(one.residual_s or 0.0) <= (one.pick.uncertainty_samples or 0.0) / RATE_HZ for one in sure], dtype=np.int64
    )
    weights = draws_of([one.group for one in sure], draws)
    with np.errstate(invalid="ignore"):
        shares = (weights @ inside) / weights.sum(axis=1)
    return float(inside.mean()), interval_of(shares), len(sure)
