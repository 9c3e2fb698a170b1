"""Runs of exact zeros that chance does not explain: somebody before us has filled a gap with them.

Data loggers, plugins and archives do so, and the edges of such a gap look like arrivals. How long a run may be follows
from the channel's own data: of a share z of zeros among its samples, a run of n has the chance z**n. Channels that are
zero more often than ``MOST_SHARE``, such as accelerometers whose noise is below one count, are left as they are.

Every sample is judged by those before it and by its own run, however the samples were cut.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEARNT_SAMPLES = 3000
"""The share of zeros is taken from so many samples at least; before that no run is judged."""
MOST_SHARE = 0.25
CHANCE = 1e-12
SHORTEST = 8
"""No shorter run is a fill, however rare zeros are."""


class Verdict(NamedTuple):
    """Of the samples given: which are fill (n,); how many just before them turn out to be; how many at the end may yet
    turn out to be."""

    fill: NDArray[np.bool_]
    before: int
    open: int


class ZeroFill:
    """Follows the samples of one channel."""

    def __init__(self) -> None:
        self._limit: int | None = None
        """Shortest run that is a fill; None where none is judged."""
        self._run = 0
        """Zeros at the end of what was given."""
        self._seen = self._zeros = 0
        """Samples since the share was last taken, and the zeros among them; fills count in neither."""

    def begin(self) -> None:
        """What comes next does not follow on: the run at the end is over."""
        self._end_run()

    def follow(self, samples: NDArray[np.float64]) -> Verdict:
        """Judge ``samples`` (n,), which follow on from those before."""
        fill = np.zeros(len(samples), dtype=np.bool_)
        zero = samples == 0
        if not zero.any():
            self._end_run()
            self._seen += len(samples)
            return Verdict(fill, 0, 0)
        before, position = 0, 0
        edges = np.flatnonzero(np.diff(np.concatenate([[False], zero, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2).tolist():
            if first > 0:
                self._end_run()
            self._seen += first - position
            if self._run == 0:
                self._learn()
            held = 0 if self._is_fill() else self._run
            self._run += last - first
            if self._is_fill():
                fill[first:last] = True
                before += held
            position = last
        if position < len(samples):
            self._end_run()
            self._seen += len(samples) - position
        return Verdict(fill, before, 0 if self._limit is None or self._is_fill() else self._run)

    def _is_fill(self) -> bool:
        return self._limit is not None and self._run >= self._limit

    def _end_run(self) -> None:
        if not self._is_fill():
            self._seen += self._run
            self._zeros += self._run
        self._run = 0

    def _learn(self) -> None:
        if self._seen >= LEARNT_SAMPLES:
            share = max(self._zeros, 1) / self._seen
            length = math.ceil(math.log(CHANCE) / math.log(share)) if share <= MOST_SHARE else None
            self._limit = None if length is None else max(SHORTEST, length)
            self._seen = self._zeros = 0
