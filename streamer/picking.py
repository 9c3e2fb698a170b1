"""From records to picks: the loop that feeds stations, steps the engine and hands picks over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import NamedTuple

from picker.bundle import Bundle
from picker.decision import PhaseRule
from streamer.announce import announce
from streamer.chunk import Chunk, StationKey
from streamer.engine import Engine
from streamer.instant import sample_time_ns
from streamer.metrics import Metrics
from streamer.origin import Origin
from streamer.payload import PickReport, reported_channel
from streamer.record import Record
from streamer.resume import ResumePoint
from streamer.station_watch import StationWatch
from streamer.stations import Stations
from streamer.tracker import TrackedPick, Tracker

QUEUE_RECORDS = 4096
MOST_RECORDS = 512
"""Records taken before the engine is stepped."""
MOST_ROWS = 512
"""Stations in one call of the graph: bounds its memory and how long a ready station waits."""

Publish = Callable[[PickReport], object]


class Arrival(NamedTuple):
    """A record, when it arrived (int ns UTC), and from where if it came from a server."""

    record: Record
    received_ns: int
    origin: Origin | None = None


class Picking:
    """Owns the stations, their trackers and the engine. ``run`` is its task; ``end`` lets it finish what it has."""

    def __init__(
        self,
        bundle: Bundle,
        rules: Mapping[str, PhaseRule],
        stations: Stations,
        engine: Engine,
        publish: Publish,
        metrics: Metrics,
        *,
        guard_s: float,
        station_rules: Callable[[StationKey], Mapping[str, PhaseRule]] | None = None,
        provisional: bool = False,
        latency_high_s: float | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        most_rows: int = MOST_ROWS,
        between_rounds: Callable[[], None] | None = None,
        watch: StationWatch | None = None,
    ) -> None:
        self.stations, self.engine = stations, engine
        self.counts: Counter[str] = Counter()
        """What trackers count: picks by phase and status, ``guard``, ``clash``, ``discontinuity``."""
        self.taken = self.worked_off = 0
        """Records taken from the queue, and those whose round is complete: stepped and handed over."""
        self._bundle, self._rules, self._guard_s = bundle, rules, guard_s
        self._rules_of = station_rules or (lambda station: rules)
        self._provisional, self._latency_high_s = provisional, latency_high_s
        self._publish, self._metrics, self._clock_ns, self._most_rows = publish, metrics, clock_ns, most_rows
        self._queue: asyncio.Queue[Arrival | None] = asyncio.Queue(QUEUE_RECORDS)
        self.trackers: dict[StationKey, Tracker] = {}
        self.watch = watch
        """What is told of stations beside their picks, and which picks are held back."""
        self.between_rounds = between_rounds
        """Called when nothing is half done; whoever gives it keeps the state, and the end is not that of the data."""
        self.worked: dict[str, ResumePoint] = {}
        """By server: up to where records are worked off, as opposed to received."""
        self._step_ns = (0, 0)
        """When the last call of the graph began and ended."""

    @property
    def depth(self) -> int:
        """Records that wait."""
        return self._queue.qsize()

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases that are picked."""
        return tuple(self._rules)

    async def deliver(self, record: Record, received_ns: int, origin: Origin | None = None) -> None:
        """Hand a record over; waits where the queue is full."""
        await self._queue.put(Arrival(record, received_ns, origin))

    async def end(self) -> None:
        """No more records will come: ``run`` ends when all are worked off."""
        await self._queue.put(None)

    async def run(self) -> None:
        """Work until ``end``; then decide what is still open, unless the state is kept: so nothing received is lost."""
        with ThreadPoolExecutor(1, thread_name_prefix="engine") as executor:
            ended = False
            while not ended:
                arrivals, ended = await self._take()
                self.taken += len(arrivals)
                for record, received_ns, origin in arrivals:
                    self.stations.add(record, received_ns)
                    if origin is not None:
                        self.worked.setdefault(origin.server, ResumePoint()).note(record, received_ns, origin)
                await self._pick(executor, self.stations.ready())
                self.worked_off += len(arrivals)
                if self.between_rounds is not None:
                    self.between_rounds()
            if self.between_rounds is None:
                await self._pick(executor, self.stations.flush())
                for tracker in self.trackers.values():
                    self._hand_over(tracker.flush())

    async def _take(self) -> tuple[list[Arrival], bool]:
        """The records that wait, one at least unless the end has come, and whether it has."""
        arrivals: list[Arrival] = []
        item = await self._queue.get()
        while item is not None:
            arrivals.append(item)
            if self._queue.empty() or len(arrivals) >= MOST_RECORDS:
                return arrivals, False
            item = self._queue.get_nowait()
        return arrivals, True

    async def _pick(self, executor: ThreadPoolExecutor, chunks: Sequence[Chunk]) -> None:
        for event in self.stations.events():
            announce(event)
        self._metrics.chunks.inc(len(chunks))
        loop = asyncio.get_running_loop()
        for batch in batches(chunks, self._most_rows):
            started_ns = self._clock_ns()
            results = await loop.run_in_executor(executor, self.engine.step, batch)
            self._step_ns = started_ns, self._clock_ns()
            self._metrics.step_s.observe((self._step_ns[1] - started_ns) / 1e9)
            for chunk, probabilities in zip(batch, results, strict=True):
                if self.watch is not None:
                    self.watch.chunk(chunk)
                self._hand_over(self.tracker(chunk.station).feed(chunk, probabilities))

    def tracker(self, station: StationKey) -> Tracker:
        """The tracker of ``station``, made where there is none."""
        tracker = self.trackers.get(station)
        if tracker is None:
            tracker = self.trackers[station] = Tracker(
                self._bundle.spec,
                self._rules_of(station),
                guard_s=self._guard_s,
                provisional=self._provisional,
                counts=self.counts,
            )
        return tracker

    def _hand_over(self, tracked: Sequence[TrackedPick]) -> None:
        for one in tracked:
            if self.watch is not None and not self.watch.pick(one):
                continue
            report = self._report(one)
            self._publish(report)
            if one.status != "confirmed":
                continue  # a pick counts once, whatever is said of it before
            self._metrics.picks.labels(one.pick.phase).inc()
            self._metrics.latency_s.labels(one.pick.phase).observe((self._clock_ns() - report.time_ns) / 1e9)

    def _report(self, tracked: TrackedPick) -> PickReport:
        spec, station = self._bundle.spec, tracked.chunk.station
        codes = self._channels(station)
        valid = {name: codes[name] for name in tracked.crossing.components if name in codes} or codes
        channel = reported_channel(tracked.pick.phase, valid.get("Z"), [valid[c] for c in "NE" if c in valid])
        crossed_ns = sample_time_ns(tracked.crossing.sample, tracked.crossing.time_shift_ns)
        return PickReport(
            pick=tracked.pick,
            station=station,
            channel=channel,
            coordinates=self.stations.place(station.channel(channel[-1]), crossed_ns),
            time_shift_ns=tracked.time_shift_ns,
            bundle_label=self._bundle.label,
            bundle_digest=self._bundle.digest,
            lookahead_s=spec.lookahead_samples / spec.sampling_rate_hz,
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

    def _channels(self, key: StationKey) -> dict[str, str]:
        """Channel code of each component that the station is known to have."""
        station = self.stations.sites[key.network, key.station].station
        assert station is not None, "a station that made chunks exists"
        return {component: key.band_instrument + letter for letter, component in station.orientations.items()}


def batches(chunks: Sequence[Chunk], most: int) -> list[list[Chunk]]:
    """``chunks``, in time order within a station, as calls of the graph: one chunk a station, ``most`` stations."""
    queues: dict[StationKey, list[Chunk]] = {}
    for chunk in chunks:
        queues.setdefault(chunk.station, []).append(chunk)
    out = []
    for round_ in zip_longest(*queues.values()):
        present = [chunk for chunk in round_ if chunk is not None]
        out += [present[start : start + most] for start in range(0, len(present), most)]
    return out
