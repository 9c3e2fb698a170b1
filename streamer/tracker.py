"""A tracker: the probabilities of one station in, picks out, with what a pick needs to be explained."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.decision import Decider, PhaseRule
from picker.pick import Pick
from picker.spec import PickerSpec
from streamer.chunk import Chunk

FLAG_SPAN_S = 1.0
"""Flags of the data this long before the first crossing, and up to the decision, are those of the pick."""


@dataclass(frozen=True, kw_only=True)
class TrackedPick:
    """A pick, the chunk whose step decided it, the flags of the data around it, and the components valid there.

    ``time_shift_ns`` is that of the chunk which holds the picked sample. ``components`` is a part of ``ZNE``.
    """

    pick: Pick
    chunk: Chunk
    time_shift_ns: int
    flags: frozenset[str]
    components: str


class Tracker:
    """Follows one station. ``counts`` may be shared: picks dropped in the guard, picks made, discontinuities."""

    def __init__(
        self,
        spec: PickerSpec,
        rules: Mapping[str, PhaseRule] | None = None,
        *,
        guard_s: float = 3.0,
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._spec = spec
        self._decider = Decider(spec, rules)
        self._guard_samples = guard_s * spec.sampling_rate_hz
        self._origin: int | None = None
        """First sample since the model last started afresh."""
        self._next: int | None = None
        longest_s = max((rule.longest_s for rule in (rules or {}).values()), default=PhaseRule().longest_s)
        # A candidate may be followed for longer than longest_s where it keeps rising: room for a few more.
        kept_samples = spec.lookahead_samples + (FLAG_SPAN_S + 4 * longest_s) * spec.sampling_rate_hz
        self._recent: deque[Chunk] = deque(maxlen=2 + int(kept_samples // spec.chunk_samples))

    def feed(self, chunk: Chunk, probabilities: NDArray[np.float32]) -> list[TrackedPick]:
        """Picks decided by the probabilities (P, L) that the step of ``chunk`` yielded.

        A chunk with ``reset`` decides what was open and starts afresh, as do a chunk that does not follow the last one
        and probabilities that are not finite (see Engine). Probabilities that speak of samples before a fresh start are
        no use and are left out; picks within the guard after it are dropped and counted.
        """
        tracked = []
        follows = self._next is None or chunk.first_sample == self._next
        if chunk.reset or not follows or self._origin is None:
            self.counts["discontinuity"] += not follows and not chunk.reset
            tracked = self.flush()
            self._restart(chunk.first_sample)
        self._next = chunk.first_sample + self._spec.chunk_samples
        self._recent.append(chunk)
        if not np.isfinite(probabilities).all():
            tracked += self.flush()
            self._restart(self._next)
            return tracked
        assert self._origin is not None
        first = chunk.first_sample - self._spec.lookahead_samples
        early = max(0, min(self._origin - first, probabilities.shape[1]))
        if early < probabilities.shape[1]:
            picks = self._decider.feed(first + early, probabilities[:, early:])
            tracked += self._tracked(picks)
        return tracked

    def flush(self) -> list[TrackedPick]:
        """Decide what is still open: at the end of data, or before a fresh start."""
        return self._tracked(self._decider.flush()) if self._recent else []

    def _restart(self, origin: int) -> None:
        self._decider.reset()
        self._origin = origin

    def _tracked(self, picks: list[Pick]) -> list[TrackedPick]:
        assert not picks or self._origin is not None
        kept = []
        for pick in picks:
            if pick.sample < (self._origin or 0) + self._guard_samples:
                self.counts["guard"] += 1
                continue
            self.counts[pick.phase] += 1
            kept.append(self._explained(pick))
        return kept

    def _explained(self, pick: Pick) -> TrackedPick:
        length = self._spec.chunk_samples
        earliest = pick.crossed_sample - FLAG_SPAN_S * self._spec.sampling_rate_hz
        around = [
            chunk
            for chunk in self._recent
            if chunk.first_sample + length > earliest and chunk.first_sample <= pick.decided_sample
        ]
        sample = int(np.floor(pick.sample))
        holder = next((chunk for chunk in around if 0 <= sample - chunk.first_sample < length), self._recent[-1])
        return TrackedPick(
            pick=pick,
            chunk=self._recent[-1],
            time_shift_ns=holder.time_shift_ns,
            flags=frozenset[str]().union(*(chunk.flags for chunk in around)),
            components="".join(
                name for name, valid in zip(self._spec.components, holder.valid, strict=True) if valid.any()
            ),
        )
