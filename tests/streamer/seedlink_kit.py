"""What the tests of the SeedLink reader share: a reader at work, and its records."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from daemon_kit import DURATION_S, START_NS

from streamer.metrics import Metrics
from streamer.origin import Origin
from streamer.record import Nslc, Record
from streamer.resume import ResumePoint
from streamer.seedlink import SeedLinkReader
from streamer.seedlink_settings import SeedLinkSettings


class Reading:
    """A reader at work, its records, and the delays that it slept."""

    def __init__(self, port: int, *, resume: ResumePoint | None = None, **settings: Any) -> None:
        self.records: list[Record] = []
        self.origins: list[Origin] = []
        self.slept_s: list[float] = []
        self.metrics = Metrics()
        self.room = asyncio.Event()
        self.room.set()
        streams = settings.pop("streams", [{"network": "XX", "station": "*", "channels": ["HH?"]}])
        clock_ns = settings.pop("clock_ns", lambda: START_NS + DURATION_S * 10**9)
        given = SeedLinkSettings.model_validate({"host": "127.0.0.1", "port": port, "streams": streams, **settings})
        self.reader = SeedLinkReader(
            given, self._deliver, self.metrics, resume=resume, clock_ns=clock_ns, sleep=self._sleep,
            fraction=lambda: 0.0,
        )  # fmt: skip

    async def _deliver(self, record: Record, received_ns: int, origin: Origin) -> None:
        await self.room.wait()
        self.records.append(record)
        self.origins.append(origin)

    async def _sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait for ``condition``."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - it may be any condition
                await asyncio.sleep(0.01)

    def resumed(self) -> dict[str, int]:
        """Connections by how they went on."""
        kinds = ("sequence", "window", "live")
        return {kind: int(n) for kind in kinds if (n := self.count("onset_resume_total", kind=kind))}

    def seen(self) -> int:
        """Records that came a second time."""
        return int(self.count("onset_records_seen_total", server=self.reader.settings.address))

    def samples(self) -> dict[str, int]:
        """How many samples each channel has brought; raises where they are not in order or a record comes twice."""
        ends: dict[Nslc, int] = {}
        counts: Counter[str] = Counter()
        for record in self.records:
            assert record.start_ns >= ends.get(record.nslc, 0), record.nslc
            ends[record.nslc] = record.end_ns
            counts[str(record.nslc)] += len(record.samples)
        return dict(counts)

    def count(self, name: str, **labels: str) -> float:
        """A sample of the metrics."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def reading(port: int, **settings: Any) -> AsyncIterator[Reading]:
    one = Reading(port, **settings)
    task = asyncio.create_task(one.reader.run())
    try:
        yield one
        one.room.set()
        one.reader.stop()
        await asyncio.wait_for(task, 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
