"""An archive through the daemon's own ``Picking``: records cell by cell in, pick messages out, and what was done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from picker.errors import OnsetError
from streamer.archive.cells import Cells, cell_length_ns
from streamer.archive.reader import ArchiveReader
from streamer.archive.setup import Setup
from streamer.engine import Engine
from streamer.message import PickMessage
from streamer.metrics import Metrics
from streamer.payload import PickReport, build_message
from streamer.picking import MOST_ROWS, Picking
from streamer.station import StationPolicy
from streamer.stations import Stations

Write = Callable[[PickMessage], None]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is."""

    stations: int
    station_s: float
    """Data worked off, summed over stations."""
    picks: Counter[str]
    """By phase."""
    elapsed_s: float

    @property
    def speed(self) -> float:
        """Seconds of data of one station a second."""
        return self.station_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Job:
    """One run over an archive. The clock of the stations is the data's own, so that nothing is late or in the future.

    Every message says that nothing took time: the latencies of an archive mean nothing, and so equal data give equal
    bytes.
    """

    def __init__(
        self,
        setup: Setup,
        write: Write,
        most_rows: int = MOST_ROWS,
    ) -> None:
        settings, bundle = setup.stations, setup.bundle
        policy = StationPolicy(
            component_wait_s=settings.component_wait_s,
            interpolate_s=settings.interpolate_s,
            hold_s=settings.hold_s,
        )
        self.cells = Cells(cell_length_ns(policy.component_wait_s))
        # Within a cell channels come one after the other: the instrument is chosen when all of the first are known.
        self.stations = Stations(policy, settings.prefer, choose_s=self.cells.length_ns / 1e9, known=settings.known())
        self._chunk_s = bundle.spec.chunk_samples / bundle.spec.sampling_rate_hz
        self._source, self._write = setup.source, write
        self._picks: Counter[str] = Counter()
        self._begun_s = time.monotonic()
        self._picking = Picking(
            bundle,
            setup.rules.default,
            self.stations,
            Engine(setup.stepper),
            self._take,
            Metrics(),
            guard_s=settings.guard_s,
            station_rules=setup.rules,
            most_rows=most_rows,
        )

    @property
    def progress(self) -> Progress:
        """How far it is."""
        engine = self._picking.engine
        return Progress(
            stations=engine.stations,
            station_s=engine.counts["steps"] * self._chunk_s,
            picks=Counter(self._picks),
            elapsed_s=time.monotonic() - self._begun_s,
        )

    @property
    def depth(self) -> int:
        """Pieces of records that are in memory and not yet worked off."""
        return self.cells.held + self._picking.depth

    def run(self, reader: ArchiveReader, on_piece: Callable[[], object] = lambda: None) -> None:
        """Work all records off; ``on_piece`` is called after each piece. Whatever a part raises is raised."""
        self._begun_s = time.monotonic()
        try:
            asyncio.run(self._run(reader, on_piece))
        except ExceptionGroup as group:
            # One cause: the first part that fails ends the other.
            raise next((one for one in group.exceptions if isinstance(one, OnsetError)), group.exceptions[0]) from None

    async def _run(self, reader: ArchiveReader, on_piece: Callable[[], object]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._picking.run(), name="picking")
            for piece in self.cells.of(reader):
                await self._picking.deliver(piece, piece.end_ns)
                on_piece()
            await self._picking.end()

    def _take(self, report: PickReport) -> None:
        now_ns = report.decided_ns
        at_once = replace(report, data_complete_ns=now_ns, step_started_ns=now_ns, step_ended_ns=now_ns)
        self._picks[report.pick.phase] += 1
        self._write(build_message(at_once, self._source, now_ns))
