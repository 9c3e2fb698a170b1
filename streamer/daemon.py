"""The daemon: servers, picking and publisher as named tasks of one group, and how they start and end.

```
SeedLinkReader (one a server) -> queue -> Picking -> outbox -> Publisher
```
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from picker.bundle import Bundle
from picker.version import installed_version
from streamer.assembly import make_model, make_picking, make_publisher, make_shadow_publisher
from streamer.capture.recorder import recorder_of
from streamer.endpoint import Endpoint
from streamer.engine import Model
from streamer.health import Health
from streamer.metrics import Metrics
from streamer.model_run import ModelRun
from streamer.outbox import Outbox
from streamer.picking import Picking
from streamer.resume import ResumePoint
from streamer.seedlink import SeedLinkReader
from streamer.settings import Settings
from streamer.shadow import Shadow
from streamer.shadow_service import ShadowService
from streamer.snapshot import capture, resumed
from streamer.snapshot_keeper import SnapshotKeeper
from streamer.station_status import StationReporter
from streamer.status import report_status
from streamer.status_message import ATTENTION, DaemonFacts
from streamer.swap import Swap

PICKING_S = 2.5
"""From the request to stop until what was received must be worked off."""
PUBLISHING_S = 3.5
"""From the request to stop until the last picks must be acknowledged; connections end after that."""

_log = structlog.get_logger(__name__)


class Daemon:
    """Everything that runs. Made before the event loop, so that wrong settings are known before anything starts.

    ``outbox`` is the one to publish from, the caller's to close; without one picks wait in memory. ``keep`` says
    whether to resume from the snapshot that the settings name, and to keep it. ``shadow`` is the model of [shadow].
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        stepper: Model,
        *,
        outbox: Outbox | None = None,
        shadow: tuple[Bundle, Model] | None = None,
        keep: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        known = settings.stations.known()
        self.settings, self.metrics, self.clock_ns = settings, Metrics(), clock_ns
        self.finished = False
        """Whether all that was asked for before the end is done, save the orderly end of connections."""
        self.publisher = make_publisher(settings, outbox, self._facts, clock_ns)
        self.publisher.on_acknowledged = self.metrics.publish_s.observe
        self._started = DaemonFacts(
            version=installed_version(),
            bundle_label=bundle.label,
            bundle_digest=bundle.digest,
            started_ns=clock_ns(),
        )

        def picking() -> Picking:
            return make_picking(settings, known, bundle, stepper, self.publisher.put, self.metrics, clock_ns)

        path = settings.snapshot.file() if keep else None
        self.picking = picking() if path is None else resumed(path, bundle, picking)
        self.keeper = None if path is None else self._keeper(path)
        self.recorder = recorder_of(settings, bundle.digest) if keep else None
        if self.recorder is not None:
            self.recorder.register(self.metrics)
        self.shadow = None if shadow is None else self._shadow(*shadow)
        self.picking.shadow = None if self.shadow is None else self.shadow.model
        if self.shadow is None and settings.shadow.path is not None:
            self.metrics.add_gauge("shadow_running", "Whether the shadow model runs (0 or 1)", lambda: 0)
        self.readers = [
            SeedLinkReader(
                server,
                self.picking.deliver,
                self.metrics,
                resume=self._resume(server.address),
                clock_ns=clock_ns,
                on_packet=None if self.recorder is None else partial(self.recorder.take, server.address),
            )
            for server in settings.seedlink
        ]
        self.reporter = self._reporter()
        self.health = Health(self)

    def _keeper(self, path: Path) -> SnapshotKeeper:
        """Keeps the snapshot of the picking; metrics say how it fares."""
        keeper = SnapshotKeeper(
            path,
            self.settings.snapshot.every_s,
            lambda: capture(self.picking, self.clock_ns()),
            lambda: self.publisher.outbox.unwritten,
        )
        self.picking.between_rounds = keeper.between_rounds
        keeper.register(self.metrics)
        return keeper

    def _shadow(self, bundle: Bundle, stepper: Model) -> ShadowService:
        """The model of [shadow] and its way to the broker."""
        picks = self.settings.shadow.picks(self.settings.picks)
        model = make_model(self.settings, picks, bundle, stepper, self.clock_ns)
        facts = replace(self._started, bundle_label=bundle.label, bundle_digest=bundle.digest)
        publisher = make_shadow_publisher(self.settings, lambda: facts, self.clock_ns)
        service = ShadowService(Shadow(model, publisher.put), publisher)
        service.register(self.metrics)
        return service

    @property
    def swapping(self) -> bool:
        """Whether another model is about to take over."""
        return self.picking.swap is not None

    def swap(self, settings: Settings, bundle: Bundle, stepper: Model) -> None:
        """Let ``bundle`` take over when it is warm, with its thresholds and the warm-up of ``settings``.

        Raises ConfigError where the thresholds do not fit the bundle.
        """
        picks = self.settings.picks.model_copy(
            update={"thresholds": settings.picks.thresholds, "stations": settings.picks.stations}
        )
        successor = make_model(self.settings, picks, bundle, stepper, self.clock_ns)
        taken = self.settings.model_copy(update={"bundle": settings.bundle, "picks": picks})

        def done(model: ModelRun) -> None:
            self.settings = taken
            self._started = replace(self._started, bundle_label=model.bundle.label, bundle_digest=model.bundle.digest)
            _log.info("bundle swapped", bundle=model.bundle.label, digest=model.bundle.digest[:12])

        swap = Swap(self.picking.model, successor, settings.bundle.warm_up_s, done)
        self.picking.swap = swap
        _log.info("bundle warms up", bundle=bundle.label, stations=len(self.picking.trackers),
                  warm_up_s=settings.bundle.warm_up_s)  # fmt: skip

    def _reporter(self) -> StationReporter:
        """Tells how the stations are; metrics say so too."""
        watch, topic = self.picking.watch, self.publisher.station_topic
        assert watch is not None
        reporter = StationReporter(watch, self.publisher.board, self.settings.status, topic, clock_ns=self.clock_ns)
        reporter.register(self.metrics)
        return reporter

    def _facts(self) -> DaemonFacts:
        """What the daemon's own status tells."""
        return replace(
            self._started,
            servers=tuple((reader.settings.address, reader.receiving) for reader in self.readers),
            stations=self.picking.engine.stations,
            attention=tuple((kind, count) for kind in ATTENTION if (count := self.reporter.attention[kind])),
        )

    def _resume(self, address: str) -> ResumePoint | None:
        """From where to go on at a server; a copy, since the picking is behind the reader."""
        point = self.picking.worked.get(address)
        return None if point is None else ResumePoint.restored(point.saved())

    async def run(self, stop: asyncio.Event, on_serving: Callable[[], object] = lambda: None) -> int:
        """Serve until ``stop`` is set, then work off what was received. Returns how many picks could not be delivered.

        An exception in any task ends all of them and is raised, in a group.
        """
        with self._metrics_server():
            async with asyncio.TaskGroup() as tasks:
                publisher = tasks.create_task(self.publisher.run(), name="publisher")
                status = tasks.create_task(report_status(self), name="status")
                health = tasks.create_task(self.health.run(), name="health")
                reporter = tasks.create_task(
                    self.reporter.run(self.publisher.status_topic, self._facts), name="station status"
                )
                keeper = tasks.create_task(self.keeper.run(), name="snapshots") if self.keeper else None
                shadow = tasks.create_task(self.shadow.run(), name="shadow") if self.shadow else None
                if self.recorder is not None:
                    tasks.create_task(self.recorder.run(), name="capture")
                picking = tasks.create_task(self.picking.run(), name="picking")
                readers = [
                    tasks.create_task(reader.run(), name=f"seedlink {reader.settings.address}")
                    for reader in self.readers
                ]
                on_serving()
                await stop.wait()
                health.cancel()
                reporter.cancel()
                held = await self._finish(readers, picking)
                if self.recorder is not None:
                    worked_off = picking.done() and not picking.cancelled()
                    self.recorder.stop(flushed=worked_off and self.keeper is None, hurry=True)
                publisher.cancel()
                status.cancel()
                for task in (keeper, shadow):
                    if task is not None:
                        task.cancel()
        return held

    async def _finish(self, readers: list[asyncio.Task[None]], picking: asyncio.Task[None]) -> int:
        """Stop reading, work off, publish: in this order and in time. Returns how many picks were not delivered."""
        begun_s = time.monotonic()
        _log.info("stopping", records_waiting=self.picking.depth, picks_held=len(self.publisher.outbox))
        for reader in self.readers:
            reader.stop()
        ending = asyncio.create_task(self._end_picking(readers), name="end of picking")
        await asyncio.wait({ending, picking}, timeout=PICKING_S)
        if not picking.done():
            _log.error("records received were not all worked off in time", records_waiting=self.picking.depth)
            for task in (ending, picking, *readers):
                task.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        left_s = begun_s + PUBLISHING_S - time.monotonic()
        held, _, _ = await asyncio.gather(
            self.publisher.drain(left_s), self._keep_last(picking, left_s), self._drain_shadow(left_s)
        )
        self.finished = True
        return held

    async def _keep_last(self, picking: asyncio.Task[None], timeout_s: float) -> None:
        """One more snapshot, where the picking came to its end and is nowhere in between."""
        if self.keeper is not None and picking.done() and not picking.cancelled():
            await self.keeper.last(timeout_s)

    async def _drain_shadow(self, timeout_s: float) -> None:
        if self.shadow is not None:
            await self.shadow.drain(timeout_s)

    async def _end_picking(self, readers: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(readers)
        await self.picking.end()

    def _metrics_server(self) -> Endpoint | nullcontext[None]:
        wanted = self.settings.metrics
        if not wanted.enabled:
            return nullcontext()
        server = Endpoint(self.metrics.registry, self.health.report, wanted.host, wanted.port)
        _log.info("metrics are served", address=f"http://{wanted.host}:{server.port}/metrics")
        return server
