"""From records to picks: the loop that feeds stations, steps the engine and hands picks over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import NamedTuple

from picker.bundle import Bundle
from picker.decision import PhaseRule
from streamer.announce import announce
from streamer.chunk import Chunk, StationKey
from streamer.engine import Engine
from streamer.metrics import Metrics
from streamer.model_run import ModelRun
from streamer.origin import Origin
from streamer.payload import PickReport
from streamer.record import Record
from streamer.resume import ResumePoint
from streamer.shadow import Shadow
from streamer.station_watch import StationWatch
from streamer.stations import Stations
from streamer.swap import Swap
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
    """Owns the stations and the models that pick on them. ``run`` is its task; ``end`` lets it finish what it has."""

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
        self.stations = stations
        self.model = ModelRun(
            bundle,
            rules,
            engine,
            guard_s=guard_s,
            rules_of=station_rules,
            provisional=provisional,
            latency_high_s=latency_high_s,
            clock_ns=clock_ns,
        )
        """The model whose picks are published; a swap replaces it."""
        self.shadow: Shadow | None = None
        self.swap: Swap | None = None
        """The hand-over to another model, while there is one; to be set between two rounds."""
        self.taken = self.worked_off = 0
        """Records taken from the queue, and those whose round is complete: stepped and handed over."""
        self._publish, self._metrics, self._clock_ns, self._most_rows = publish, metrics, clock_ns, most_rows
        self._queue: asyncio.Queue[Arrival | None] = asyncio.Queue(QUEUE_RECORDS)
        self.watch = watch
        """What is told of stations beside their picks, and which picks are held back."""
        self.between_rounds = between_rounds
        """Called when nothing is half done; whoever gives it keeps the state, and the end is not that of the data."""
        self.worked: dict[str, ResumePoint] = {}
        """By server: up to where records are worked off, as opposed to received."""

    @property
    def depth(self) -> int:
        """Records that wait."""
        return self._queue.qsize()

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases that are picked."""
        return self.model.phases

    @property
    def engine(self) -> Engine:
        """That of the model."""
        return self.model.engine

    @property
    def counts(self) -> Counter[str]:
        """What its trackers count."""
        return self.model.counts

    @property
    def trackers(self) -> Mapping[StationKey, Tracker]:
        """Those of the model."""
        return self.model.trackers

    @property
    def steps(self) -> int:
        """Chunks stepped, those of a successor too."""
        return self.engine.counts["steps"] + (self.swap.successor.engine.counts["steps"] if self.swap else 0)

    def tracker(self, station: StationKey) -> Tracker:
        """The model's tracker of ``station``, made where there is none."""
        return self.model.tracker(station)

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
                if self.swap is not None and (ended or self.swap.done):
                    self._end_swap(self.swap)
                self.worked_off += len(arrivals)
                if self.between_rounds is not None:
                    self.between_rounds()
            if self.between_rounds is None:
                await self._pick(executor, self.stations.flush())
                for tracker in self.trackers.values():
                    self._hand_over(self.model, tracker.flush())
            if self.shadow is not None:
                self.shadow.flush(self.stations)

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
        rounds = batches(chunks, self._most_rows)
        for batch in rounds:
            await self._primary(executor, batch)
        if self.shadow is not None:  # after all picks of the first model: it must not delay them
            for batch in rounds:
                behind = self.depth > QUEUE_RECORDS // 2
                await self.shadow.feed(executor, batch, self.stations, give_way=behind)

    async def _primary(self, executor: ThreadPoolExecutor, batch: Sequence[Chunk]) -> None:
        """The chunks, at most one a station, through the model that picks their station, and its successor's if any."""
        if self.watch is not None:
            for chunk in batch:
                self.watch.chunk(chunk)
        swap = self.swap  # a request may come while a call of the graph is awaited
        if swap is None:
            await self._feed(executor, self.model, batch)
            return
        swap.note(batch)
        waiting = [chunk for chunk in batch if chunk.station not in swap.handed]
        await self._feed(executor, self.model, waiting)
        try:
            await self._feed(executor, swap.successor, batch, only=swap.handed)
        except Exception as error:
            self._hand_over(swap.successor, swap.abort(error))
            self.swap = None
            await self._feed(executor, self.model, [chunk for chunk in batch if chunk.station in swap.handed])
            return
        for chunk in waiting:
            self._hand_over(self.model, swap.fed(chunk))

    async def _feed(
        self,
        executor: ThreadPoolExecutor,
        model: ModelRun,
        batch: Sequence[Chunk],
        only: Collection[StationKey] | None = None,
    ) -> None:
        """Step ``batch`` and hand over what ``model`` picks, of the stations ``only`` where they are given."""
        if not batch:
            return
        results = await model.step(executor, batch)
        self._metrics.step_s.observe(model.step_s)
        for chunk, probabilities in zip(batch, results, strict=True):
            tracked = model.tracker(chunk.station).feed(chunk, probabilities)
            if only is None or chunk.station in only:
                self._hand_over(model, tracked)

    def _end_swap(self, swap: Swap) -> None:
        self._hand_over(self.model, swap.finish())
        self.model, self.swap = swap.successor, None
        swap.on_done(self.model)

    def _hand_over(self, model: ModelRun, tracked: Sequence[TrackedPick]) -> None:
        for one in tracked:
            if self.watch is not None and not self.watch.pick(one):
                continue
            report = model.report(one, self.stations)
            self._publish(report)
            if one.status != "confirmed":
                continue  # a pick counts once, whatever is said of it before
            self._metrics.picks.labels(one.pick.phase).inc()
            self._metrics.latency_s.labels(one.pick.phase).observe((self._clock_ns() - report.time_ns) / 1e9)


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
