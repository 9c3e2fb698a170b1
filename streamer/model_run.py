"""One model at work: bundle, engine, trackers and rules, so that several can be given the same chunks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from picker.bundle import Bundle
from picker.decision import PhaseRule
from streamer.chunk import Chunk, StationKey
from streamer.engine import Engine
from streamer.instant import sample_time_ns
from streamer.payload import PickReport, reported_channel
from streamer.stations import Stations
from streamer.tracker import TrackedPick, Tracker


class ModelRun:
    """Steps chunks through one model and follows what it says of each station.

    ``rules_of`` gives the rules of a station; ``latency_high_s`` marks late picks, None never.
    """

    def __init__(
        self,
        bundle: Bundle,
        rules: Mapping[str, PhaseRule],
        engine: Engine,
        *,
        guard_s: float,
        rules_of: Callable[[StationKey], Mapping[str, PhaseRule]] | None = None,
        provisional: bool = False,
        latency_high_s: float | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.bundle, self.engine = bundle, engine
        self.counts: Counter[str] = Counter()
        """What trackers count: picks by phase and status, ``guard``, ``clash``, ``discontinuity``."""
        self.trackers: dict[StationKey, Tracker] = {}
        self.step_s = 0.0
        """How long the last call of the graph took."""
        self._rules, self._guard_s = rules, guard_s
        self._rules_of = rules_of or (lambda station: rules)
        self._provisional, self._latency_high_s, self._clock_ns = provisional, latency_high_s, clock_ns
        self._step_ns = (0, 0)
        """When that call began and ended."""

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases that are picked."""
        return tuple(self._rules)

    async def step(self, executor: Executor, batch: Sequence[Chunk]) -> list[NDArray[np.float32]]:
        """Probabilities (P, L) of each chunk, see ``Engine.step``; the call is made in a thread of ``executor``."""
        started_ns = self._clock_ns()
        results = await asyncio.get_running_loop().run_in_executor(executor, self.engine.step, batch)
        self._step_ns = started_ns, self._clock_ns()
        self.step_s = (self._step_ns[1] - started_ns) / 1e9
        return results

    def tracker(self, station: StationKey) -> Tracker:
        """The tracker of ``station``, made where there is none."""
        tracker = self.trackers.get(station)
        if tracker is None:
            tracker = self.trackers[station] = Tracker(
                self.bundle.spec,
                self._rules_of(station),
                guard_s=self._guard_s,
                provisional=self._provisional,
                counts=self.counts,
            )
        return tracker

    def report(self, tracked: TrackedPick, stations: Stations) -> PickReport:
        """What a message says of ``tracked``, which the last step decided; ``stations`` know channels and places."""
        spec, station = self.bundle.spec, tracked.chunk.station
        codes = stations.channels(station)
        valid = {name: codes[name] for name in tracked.crossing.components if name in codes} or codes
        channel = reported_channel(tracked.pick.phase, valid.get("Z"), [valid[c] for c in "NE" if c in valid])
        crossed_ns = sample_time_ns(tracked.crossing.sample, tracked.crossing.time_shift_ns)
        return PickReport(
            pick=tracked.pick,
            station=station,
            channel=channel,
            coordinates=stations.place(station.channel(channel[-1]), crossed_ns),
            time_shift_ns=tracked.time_shift_ns,
            bundle_label=self.bundle.label,
            bundle_digest=self.bundle.digest,
            lookahead_s=spec.lookahead_of(tracked.pick.phase) / spec.sampling_rate_hz,
            rule=self._rules_of(station)[tracked.pick.phase],
            data_complete_ns=tracked.chunk.data_complete_ns,
            step_started_ns=self._step_ns[0],
            step_ended_ns=self._step_ns[1],
            flags=tracked.flags,
            revision=tracked.revision,
            status=tracked.status,
            crossed_shift_ns=tracked.crossing.time_shift_ns,
            reset_age_s=tracked.reset_age_s,
            timing_quality=tracked.timing_quality,
            measures=tracked.measures,
            latency_high_s=self._latency_high_s,
        )
