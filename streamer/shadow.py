"""A second model that is given the chunks of the first and publishes elsewhere, without ever being in its way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import structlog

from streamer.chunk import Chunk, StationKey
from streamer.model_run import ModelRun
from streamer.payload import PickReport
from streamer.stations import Stations

_log = structlog.get_logger(__name__)


class Shadow:
    """Steps ``model`` after the first one and gives its picks to ``publish``.

    It leaves chunks out where it is told to give way; their stations start afresh then, so that no state ever skips
    data. An exception ends it for good: one error line, and the first model goes on.
    """

    def __init__(self, model: ModelRun, publish: Callable[[PickReport], object]) -> None:
        self.model = model
        self.running = True
        """False once it has failed."""
        self.skipped = 0
        """Chunks left out."""
        self._publish = publish
        self._missed: set[StationKey] = set()
        self._gives_way = False

    @property
    def counts(self) -> Counter[str]:
        """Its work and its picks, in words of the metrics of the first model, and ``skipped``."""
        return Counter({**self.model.engine.counts, **self.model.counts, "skipped": self.skipped})

    async def feed(self, executor: Executor, batch: Sequence[Chunk], stations: Stations, *, give_way: bool) -> None:
        """Step ``batch`` (one chunk a station at most), or leave it out. Raises nothing."""
        if not self.running:
            return
        self._say(give_way)
        if give_way:
            self.skipped += len(batch)
            self._missed.update(chunk.station for chunk in batch)
            return
        try:
            await self._work(executor, batch, stations)
        except Exception as error:
            self.fail(error)

    def flush(self, stations: Stations) -> None:
        """Decide and publish what is open, at the end of the data."""
        if self.running:
            try:
                for tracker in self.model.trackers.values():
                    for tracked in tracker.flush():
                        self._publish(self.model.report(tracked, stations))
            except Exception as error:
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """It is over."""
        if self.running:
            self.running = False
            _log.error(
                "shadow model has failed and is off until a restart: picks of the first model go on",
                bundle=self.model.bundle.label,
                reason=f"{type(error).__name__}: {error}",
            )

    async def _work(self, executor: Executor, batch: Sequence[Chunk], stations: Stations) -> None:
        batch = [replace(chunk, reset=True) if chunk.station in self._missed else chunk for chunk in batch]
        self._missed.difference_update(chunk.station for chunk in batch)
        results = await self.model.step(executor, batch)
        for chunk, probabilities in zip(batch, results, strict=True):
            for tracked in self.model.tracker(chunk.station).feed(chunk, probabilities):
                self._publish(self.model.report(tracked, stations))

    def _say(self, give_way: bool) -> None:
        if give_way and not self._gives_way:
            _log.warning("shadow model gives way: records wait, its stations start afresh after it")
        elif self._gives_way and not give_way:
            _log.info("shadow model goes on", skipped_chunks=self.skipped)
        self._gives_way = give_way
