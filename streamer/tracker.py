"""A tracker: the probabilities of one station in, picks out, with what a pick needs to be explained.

The life of a pick: where ``provisional`` is asked for, a candidate that a chunk leaves open is reported as revision 1,
``provisional``; what becomes of it is revision 2, ``confirmed`` or ``retracted``. A pick that was not reported before
is ``confirmed`` as revision 1, and a candidate that was not is dropped in silence. Which picks are confirmed does not
depend on ``provisional``. All revisions have the crossing, and so the identity, of the first.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.decision import Decider, PhaseRule
from picker.pick import Pick, PickEvent
from picker.spec import PickerSpec
from streamer.chunk import Chunk
from streamer.component import lowest
from streamer.measure import BEFORE_S, Measures, measure
from streamer.message import Status

FLAG_SPAN_S = 1.0
"""Flags of the data this long before the first crossing, and up to the decision, are those of the pick."""
GAP_SPAN_S = 5.0
"""A gap this long before the crossing is told as ``gap_near``."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """What a pick's identity rests on beside its phase: all revisions have the same.

    ``time_shift_ns`` is that of the reported component in the chunk which holds the sample that crossed,
    ``components`` those valid there, a part of ``ZNE``. ``reported`` says whether a provisional pick was made of it.
    """

    sample: int
    time_shift_ns: int
    components: str
    reported: bool = False


@dataclass(frozen=True, kw_only=True)
class TrackedPick:
    """One revision of a pick, the chunk whose step decided it, flags and lowest timing quality of the data around it.

    ``time_shift_ns`` is that of the reported component in the chunk which holds the picked sample. ``reset_age_s`` is
    the data time from the model's last fresh start to the pick.
    """

    pick: Pick
    status: Status
    revision: int
    chunk: Chunk
    crossing: Crossing
    time_shift_ns: int
    flags: frozenset[str]
    timing_quality: int | None
    reset_age_s: float
    measures: Measures | None


class Tracker:
    """Follows one station. ``counts`` may be shared: picks by phase and status, ``guard``, ``clash``, discontinuities.

    ``FIXED`` names what does not change while it runs; the rest, and that of its decider, is its state.
    """

    FIXED = frozenset({"counts", "decider", "_spec", "_guard_samples", "_provisional"})

    def __init__(
        self,
        spec: PickerSpec,
        rules: Mapping[str, PhaseRule] | None = None,
        *,
        guard_s: float = 3.0,
        provisional: bool = False,
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._spec = spec
        self.decider = Decider(spec, rules)
        self._guard_samples = guard_s * spec.sampling_rate_hz
        self._provisional = provisional
        self._origin: int | None = None
        """First sample since the model last started afresh."""
        self._next: int | None = None
        self._crossings: dict[str, Crossing] = {}
        """Of the candidates that a chunk left open."""
        longest_s = max((rule.longest_s for rule in (rules or {}).values()), default=PhaseRule().longest_s)
        # A candidate may be followed for longer than longest_s where it keeps rising: room for a few more.
        kept_s = max(FLAG_SPAN_S, GAP_SPAN_S, BEFORE_S) + 4 * longest_s
        kept_samples = spec.longest_lookahead_samples + kept_s * spec.sampling_rate_hz
        self._recent: deque[Chunk] = deque(maxlen=2 + int(kept_samples // spec.chunk_samples))

    def feed(self, chunk: Chunk, probabilities: NDArray[np.float32]) -> list[TrackedPick]:
        """What the probabilities (P, L) that the step of ``chunk`` yielded say of picks.

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
            events = self.decider.follow(first + early, probabilities[:, early:])
            tracked += self._tracked(events)
        return tracked

    def flush(self) -> list[TrackedPick]:
        """Decide what is still open: at the end of data, or before a fresh start."""
        return self._tracked(self.decider.finish()) if self._recent else []

    def abandon(self) -> None:
        """Forget what is open, as if it had never crossed; a phase must fall below its threshold before it crosses."""
        self.decider.abandon()
        self._crossings.clear()

    def _restart(self, origin: int) -> None:
        self.decider.reset()
        self._origin = origin

    def _tracked(self, events: Sequence[PickEvent]) -> list[TrackedPick]:
        kept = []
        for event in events:
            pick = event.pick
            guarded = pick.sample < (self._origin or 0) + self._guard_samples
            if event.kind == "crossed":
                reported = self._provisional and not guarded
                crossing = self._crossings[pick.phase] = self._crossing(pick, reported)
                if reported:
                    kept.append(self._explained(pick, "provisional", crossing))
                continue
            known = self._crossings.pop(pick.phase) if pick.phase in self._crossings else None
            crossing = known or self._crossing(pick)
            reason = "clash" if event.kind == "dropped" else "guard" if guarded else None
            self.counts[reason or pick.phase] += 1
            if reason is None:
                kept.append(self._explained(pick, "confirmed", crossing))
            elif crossing.reported:
                kept.append(self._explained(pick, "retracted", crossing))
        return kept

    def _crossing(self, pick: Pick, reported: bool = False) -> Crossing:
        holder = self._holder(pick.crossed_sample)
        names = zip(self._spec.components, holder.valid, strict=True)
        return Crossing(
            sample=pick.crossed_sample,
            time_shift_ns=holder.shift_ns(pick.phase),
            components="".join(name for name, valid in names if valid.any()),
            reported=reported,
        )

    def _explained(self, pick: Pick, status: Status, crossing: Crossing) -> TrackedPick:
        if status != "confirmed":
            self.counts[status] += 1
        return TrackedPick(
            pick=pick,
            status=status,
            revision=2 if crossing.reported and status != "provisional" else 1,
            chunk=self._recent[-1],
            crossing=crossing,
            time_shift_ns=self._holder(pick.sample).shift_ns(pick.phase),
            flags=self._flags(pick),
            timing_quality=lowest(chunk.timing_quality for chunk in self._around(pick, FLAG_SPAN_S)),
            reset_age_s=(pick.sample - (self._origin or 0)) / self._spec.sampling_rate_hz,
            measures=self._measures(pick),
        )

    def _holder(self, sample: float) -> Chunk:
        """The chunk that holds ``sample``, the last one where it is no longer kept."""
        length = self._spec.chunk_samples
        return next((one for one in self._recent if 0 <= sample - one.first_sample < length), self._recent[-1])

    def _flags(self, pick: Pick) -> frozenset[str]:
        flags, wider = (
            frozenset[str]().union(*(chunk.flags for chunk in self._around(pick, span_s)))
            for span_s in (FLAG_SPAN_S, GAP_SPAN_S)
        )
        back = {flag for flag in wider - flags if flag.startswith("missing_")}  # a component that is still away is none
        near = (back or wider & {"gap", "reset"}) and "gap" not in flags
        return flags | {"gap_near"} if near else flags

    def _around(self, pick: Pick, span_s: float) -> list[Chunk]:
        """The chunks from ``span_s`` before the crossing to the decision."""
        earliest = pick.crossed_sample - span_s * self._spec.sampling_rate_hz - self._spec.chunk_samples
        return [one for one in self._recent if earliest < one.first_sample <= pick.decided_sample]

    def _measures(self, pick: Pick) -> Measures | None:
        """Of the chunks kept that follow on from one another, without a fresh start (a new offset) among them."""
        chunks = [self._recent[-1]]
        for earlier, later in zip(list(self._recent)[-2::-1], list(self._recent)[:0:-1], strict=True):
            if later.reset or earlier.first_sample + self._spec.chunk_samples != later.first_sample:
                break
            chunks.insert(0, earlier)
        return measure(
            np.concatenate([chunk.samples for chunk in chunks], axis=1),
            np.concatenate([chunk.valid for chunk in chunks], axis=1),
            pick.sample - chunks[0].first_sample,
            pick.phase,
            self._spec.sampling_rate_hz,
        )
