"""When snapshots are taken and written: on a schedule between two rounds of picking, and at the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from streamer.metrics import Metrics
from streamer.snapshot_file import SnapshotFile, write

DURABLE_S = 5.0
"""A snapshot waits so long for the picks made before it to be safe; then the next one is waited for."""
POLL_S = 0.01

_log = structlog.get_logger(__name__)


class SnapshotKeeper:
    """Keeps the snapshot at ``path``. ``capture`` gives the present state; ``picks_at_risk`` says how many picks would
    be lost if the process ended now: a snapshot that is newer than they are must not be written, or nobody would make
    them again."""

    def __init__(
        self,
        path: Path,
        every_s: float,
        capture: Callable[[], SnapshotFile],
        picks_at_risk: Callable[[], int],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        durable_s: float = DURABLE_S,
    ) -> None:
        self.path = path
        self.failures: Counter[str] = Counter()
        """Snapshots not written, by reason: ``picks_at_risk``, ``write``."""
        self.capture_s = self.write_s = 0.0
        """How long the last one held up the picking, and how long its writing took."""
        self.size_bytes = 0
        self._every_s, self._capture, self._at_risk = every_s, capture, picks_at_risk
        self._monotonic, self._durable_s = monotonic, durable_s
        self._next_s = self._written_s = monotonic()
        """When the next is due (the first at once: it holds from where to resume) and when the last was written."""
        self._waiting: SnapshotFile | None = None
        self._offered, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._failing = False

    @property
    def age_s(self) -> float:
        """Since the last one was written, or since the start."""
        return self._monotonic() - self._written_s

    def register(self, metrics: Metrics) -> None:
        """Serve what is known of snapshots as metrics."""
        metrics.add_gauge("snapshot_age_seconds", "Since the last snapshot was written", lambda: self.age_s)
        metrics.add_gauge(
            "snapshot_capture_seconds", "How long the last snapshot held up the picking", lambda: self.capture_s
        )
        metrics.add_gauge("snapshot_write_seconds", "How long writing the last snapshot took", lambda: self.write_s)
        metrics.add_gauge("snapshot_bytes", "Size of the last snapshot", lambda: self.size_bytes)
        metrics.add_counters("snapshot_failures", "Snapshots not written", lambda: Counter(self.failures))

    def between_rounds(self) -> None:
        """Called by the picking when nothing is half done: takes a snapshot where it is time for one."""
        if self._idle.is_set() and self._monotonic() >= self._next_s:
            self._next_s = self._monotonic() + self._every_s
            self._take()

    async def run(self) -> None:
        """Write what was taken, until cancelled."""
        while True:
            await self._offered.wait()
            self._offered.clear()
            if self._waiting is not None:
                await self._write(self._waiting)
            self._waiting = None
            self._idle.set()

    async def last(self, timeout_s: float) -> bool:
        """One more at the end, when the picking has ended and ``run`` still runs; whether it was written in time."""
        begun_s, before = self._monotonic(), self.failures.total()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
                self._take()
                await self._idle.wait()
        except TimeoutError:
            waited_s = round(self._monotonic() - begun_s, 1)
            _log.error("last snapshot was not written in time: what came since the one before is worked off again",
                       file=str(self.path), waited_s=waited_s)  # fmt: skip
            return False
        return self.failures.total() == before

    def _take(self) -> None:
        begun_s = self._monotonic()
        self._waiting = self._capture()
        self.capture_s = self._monotonic() - begun_s
        self._idle.clear()
        self._offered.set()

    async def _write(self, snapshot: SnapshotFile) -> None:
        if not await self._picks_are_safe():
            self._failed("picks_at_risk", "picks made before it are not yet on the disk or at the broker")
            return
        begun_s = self._monotonic()
        try:
            self.size_bytes = await asyncio.to_thread(write, self.path, snapshot)
        except OSError as error:
            self._failed("write", str(error))
            return
        self._written_s = self._monotonic()
        self.write_s = self._written_s - begun_s
        if self._failing:
            self._failing = False
            _log.info("snapshots are written again", file=str(self.path))

    async def _picks_are_safe(self) -> bool:
        until_s = self._monotonic() + self._durable_s
        while self._at_risk():
            if self._monotonic() >= until_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _failed(self, kind: str, reason: str) -> None:
        """One line for a change of state; the failures after it are only counted."""
        self.failures[kind] += 1
        if not self._failing:
            self._failing = True
            _log.error(
                "snapshot not written: a killed daemon would begin at the one before",
                file=str(self.path),
                reason=reason,
                age_s=round(self.age_s),
            )
