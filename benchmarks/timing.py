"""Times of the calls of one contender at one batch size, and how many stations they mean."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from contender import Contender

WARM_UP = 2
"""Calls before the first one that counts."""
CHUNK_S = 0.64
Clock = Literal["wall", "cpu"]
"""Wall time is what a user waits for; processor time leaves out what others did on the core meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Medians over the calls of one round."""

    batch: int
    calls: int
    wall_s: float
    cpu_s: float
    """Processor time of the thread: what the call would take if nobody else used the core."""

    def time_s(self, clock: Clock) -> float:
        """Median time of a call by that clock."""
        return self.wall_s if clock == "wall" else self.cpu_s

    def stations(self, clock: Clock) -> float:
        """Stations that the core serves in real time, a call for each batch of them every 0.64 s."""
        return self.batch * CHUNK_S / self.time_s(clock)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value a round."""
        return cls(median=median(values), least=min(values), greatest=max(values))


def time_calls(contender: Contender, batch: int, budget_s: float, least_calls: int) -> Timing:
    """Time calls until they have taken ``budget_s``, at least ``least_calls`` of them."""
    contender.begin(batch)
    wall_s: list[float] = []
    cpu_s: list[float] = []
    while len(wall_s) < WARM_UP + least_calls or sum(wall_s[WARM_UP:]) < budget_s:
        contender.prepare()
        cpu_before, wall_before = time.thread_time(), time.perf_counter()
        contender.call()
        wall_s.append(time.perf_counter() - wall_before)
        cpu_s.append(time.thread_time() - cpu_before)
    counted = slice(WARM_UP, None)
    return Timing(
        batch=batch, calls=len(wall_s) - WARM_UP, wall_s=median(wall_s[counted]), cpu_s=median(cpu_s[counted])
    )


Rounds = dict[int, list[Timing]]
"""Batch to one timing a round."""


def best_batch(rounds: Rounds, clock: Clock = "wall") -> int:
    """The batch with the most stations in the median of the rounds."""
    return max(rounds, key=lambda batch: stations(rounds, clock, batch).median)


def stations(rounds: Rounds, clock: Clock = "wall", batch: int | None = None) -> Spread:
    """Stations at ``batch`` (default: the best one)."""
    chosen = best_batch(rounds, clock) if batch is None else batch
    return Spread.of([timing.stations(clock) for timing in rounds[chosen]])
