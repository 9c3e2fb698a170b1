"""The hand-over from one model to its successor, station by station, so that no onset is lost and none is made twice.

Both are given the same chunks. Until its hand-over a station is picked by the old model, and what the new one says of
it is not published. It is handed over at the end of a chunk when the new one has seen ``warm_up_s`` of it (or both
started afresh there, and are equally warm) and both are quiet: nothing open, no pick in the last second. So an onset
that one crosses before that moment and the other after it is made by exactly one. A station that is never quiet is
handed over all the same after ``LONGEST_S`` more: the old model decides what it has open, the new one forgets it.

Time is that of the data: the same data give the same hand-over. A station of which nothing has come while others went
on for ``warm_up_s`` is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from streamer.chunk import Chunk, StationKey
from streamer.model_run import ModelRun
from streamer.tracker import TrackedPick

_log = structlog.get_logger(__name__)

QUIET_S = 1.0
LONGEST_S = 180.0
"""A station is waited for no longer than this after its warm-up (s of its data)."""


class Swap:
    """Owns the successor while it warms up. ``on_done`` is called with it when it has taken over."""

    def __init__(
        self, old: ModelRun, successor: ModelRun, warm_up_s: float, on_done: Callable[[ModelRun], object]
    ) -> None:
        self.old, self.successor, self.on_done = old, successor, on_done
        self.handed: set[StationKey] = set()
        """Stations that the successor picks."""
        self._seen: dict[StationKey, int] = {}
        """Samples of each that the successor has seen."""
        self._heard: dict[StationKey, int] = {}
        """How far the newest data were when each last delivered."""
        spec = successor.bundle.spec
        self._length, self._rate_hz = spec.chunk_samples, spec.sampling_rate_hz
        self._warm_up = warm_up_s * spec.sampling_rate_hz
        # The one with the shorter look-ahead has spoken of more: what it said of that must be nothing too.
        apart = max(abs(spec.lookahead_of(phase) - old.bundle.spec.lookahead_of(phase)) for phase in spec.phases)
        self._quiet = QUIET_S * spec.sampling_rate_hz + apart
        self._begun: int | None = None
        self._newest = 0

    def note(self, chunks: Sequence[Chunk]) -> None:
        """Stations have completed ``chunks``."""
        for chunk in chunks:
            self._begun = chunk.first_sample if self._begun is None else self._begun
            self._newest = max(self._newest, self._begun, chunk.first_sample)
            if chunk.station not in self.old.trackers:  # new: fresh in both
                self.handed.add(chunk.station)
                self.successor.tracker(chunk.station).counts = self.old.counts
        self._heard.update(dict.fromkeys((chunk.station for chunk in chunks), self._newest))

    def fed(self, chunk: Chunk) -> list[TrackedPick]:
        """Both have been given ``chunk`` of a station not handed over; what the old one decides where it is now."""
        station = chunk.station
        seen = self._warm_up if chunk.reset else self._seen.get(station, 0) + self._length
        self._seen[station] = int(max(seen, self._seen.get(station, 0)))
        if seen < self._warm_up:
            return []
        quiet = all(model.tracker(station).decider.quiet(self._quiet) for model in (self.old, self.successor))
        longest = self._warm_up + LONGEST_S * self._rate_hz
        return self._hand_over(station) if quiet or self._seen[station] >= longest else []

    @property
    def done(self) -> bool:
        """Whether no station is waited for."""
        begun = self._newest if self._begun is None else self._begun
        return all(
            station in self.handed or self._newest - self._heard.get(station, begun) > self._warm_up
            for station in self.old.trackers
        )

    def finish(self) -> list[TrackedPick]:
        """Hand over all that is left; what the old model decides by that. The successor is then the model."""
        tracked = [one for station in list(self.old.trackers) for one in self._hand_over(station)]
        counts = self.old.counts  # those that are served as metrics go on
        self.successor.counts = counts
        self.successor.engine.counts.update(self.old.engine.counts)
        for tracker in self.successor.trackers.values():
            tracker.counts = counts
        return tracked

    def abort(self, error: Exception) -> list[TrackedPick]:
        """The successor has failed: what it had open of its stations, which the old model picks again, afresh."""
        _log.error(
            "bundle not swapped: the new model has failed, the old one goes on",
            bundle=self.successor.bundle.label,
            reason=f"{type(error).__name__}: {error}",
        )
        tracked = []
        for station in self.handed:
            tracked += self.successor.tracker(station).flush()
            self.old.trackers.pop(station, None)
            self.old.engine.remove(station)
        return tracked

    def _hand_over(self, station: StationKey) -> list[TrackedPick]:
        if station in self.handed:
            return []
        self.handed.add(station)
        tracked = self.old.tracker(station).flush()
        if station in self.successor.trackers:
            tracker = self.successor.tracker(station)
            tracker.abandon()
            tracker.counts = self.old.counts
        return tracked
