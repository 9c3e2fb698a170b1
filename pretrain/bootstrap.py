"""Intervals: by resampling events, and for counts of rare things by Poisson's law.

Records of one event are not independent, so whole groups (events) are drawn, with replacement. Two pickers on the same
records are compared by the same draws: the interval of a difference is much narrower than the difference of intervals.
Shapes: D draws, G groups, R records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
SEED = 0
LEVEL = 0.95


class Interval(NamedTuple):
    """A 95 % interval; NaN where there is nothing to tell."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3f} to {self.high:.3f}"


NOTHING = Interval(float("nan"), float("nan"))


def draws_of(groups: Sequence[str], draws: int = DRAWS, seed: int = SEED) -> NDArray[np.int64]:
    """(D, R): how often each record is in each draw; records with the same group go together."""
    if not len(groups):
        return np.zeros((draws, 0), dtype=np.int64)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.asarray(counts[:, index], dtype=np.int64)


def interval_of(values: NDArray[np.float64]) -> Interval:
    """Percentiles of the draws, those that are NaN left out."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return NOTHING
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def statistic(
    values: NDArray[np.float64], weights: NDArray[np.int64], of: Callable[[NDArray[np.float64]], float]
) -> Interval:
    """Interval of ``of`` over ``values`` (R,), each as often as ``weights`` (D, R) say."""
    drawn = (np.repeat(values, row) for row in weights)
    return interval_of(np.array([of(some) if len(some) else np.nan for some in drawn], dtype=np.float64))


def poisson(count: int, hours: float) -> Interval:
    """Exact interval of a rate an hour of which ``count`` were seen in ``hours`` (Garwood 1936)."""
    if hours <= 0:
        return NOTHING
    from scipy.special import gammaincinv

    tail = (1 - LEVEL) / 2
    low = float(gammaincinv(count, tail)) if count else 0.0
    return Interval(low / hours, float(gammaincinv(count + 1, 1 - tail)) / hours)
