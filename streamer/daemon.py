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
from picker.stepper import Stepper
from picker.version import installed_version
from streamer.broker import Broker
from streamer.capture.recorder import recorder_of
from streamer.endpoint import Endpoint
from streamer.engine import Engine
from streamer.health import Health
from streamer.memory_outbox import MemoryOutbox
from streamer.message import Source
from streamer.metrics import Metrics
from streamer.outbox import Limits, Outbox
from streamer.picking import Picking
from streamer.publisher import Publisher
from streamer.resume import ResumePoint
from streamer.retained import RetainedBoard
from streamer.seedlink import SeedLinkReader
from streamer.session import Delivery
from streamer.settings import MqttSettings, OutboxSettings, Settings
from streamer.snapshot import capture, resumed
from streamer.snapshot_keeper import SnapshotKeeper
from streamer.sqlite_outbox import SqliteOutbox
from streamer.station import StationPolicy
from streamer.station_status import StationReporter
from streamer.station_watch import StationWatch
from streamer.stations import Stations
from streamer.status import report_status
from streamer.status_message import ATTENTION, DaemonFacts

PICKING_S = 2.5
"""From the request to stop until what was received must be worked off."""
PUBLISHING_S = 3.5
"""From the request to stop until the last picks must be acknowledged; connections end after that."""

_log = structlog.get_logger(__name__)


def broker_of(settings: MqttSettings) -> Broker:
    """The broker that the settings name; raises ConfigError where the password file cannot be read."""
    broker = Broker(
        host=settings.host,
        port=settings.port,
        protocol=settings.protocol,
        username=settings.username,
        password=settings.password(),
        tls=settings.tls,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )
    return broker if settings.client_id is None else replace(broker, client_id=settings.client_id)


def limits_of(settings: OutboxSettings) -> Limits:
    """How much the outbox of the settings holds and remembers."""
    return Limits(
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        max_age_s=settings.max_age_h * 3600,
        keep_acknowledged_s=settings.keep_acknowledged_h * 3600,
    )


def open_outbox(settings: OutboxSettings, clock_ns: Callable[[], int] = time.time_ns) -> Outbox:
    """The outbox that the settings name, opened; raises ConfigError where its file cannot be used."""
    limits, path = limits_of(settings), settings.file()
    if path is None:
        _log.warning("picks are held in memory alone: set outbox.path to keep them where the daemon is killed")
        return MemoryOutbox(limits, clock_ns=clock_ns)
    outbox = SqliteOutbox(path, limits, clock_ns=clock_ns)
    _log.info("outbox opened", file=str(path), held=len(outbox))
    return outbox


class Daemon:
    """Everything that runs. Made before the event loop, so that wrong settings are known before anything starts.

    ``outbox`` is the one to publish from, the caller's to close; without one picks wait in memory. ``keep`` says
    whether to resume from the snapshot that the settings name, and to keep it.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        stepper: Stepper,
        *,
        outbox: Outbox | None = None,
        keep: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        stations, known = settings.stations, settings.stations.known()
        policy = StationPolicy(
            component_wait_s=stations.component_wait_s, interpolate_s=stations.interpolate_s, hold_s=stations.hold_s
        )
        self.settings, self.metrics, self.clock_ns = settings, Metrics(), clock_ns
        self.finished = False
        """Whether all that was asked for before the end is done, save the orderly end of connections."""
        self.publisher = self._publisher(outbox)
        self._started = DaemonFacts(
            version=installed_version(),
            bundle_label=bundle.label,
            bundle_digest=bundle.digest,
            started_ns=clock_ns(),
        )

        def picking() -> Picking:
            return Picking(
                bundle,
                settings.picks.rules(bundle.spec),
                Stations(policy, stations.prefer, known=known),
                Engine(stepper),
                self.publisher.put,
                self.metrics,
                guard_s=stations.guard_s,
                station_rules=settings.picks.station_rules(bundle.spec),
                provisional=settings.picks.provisional,
                latency_high_s=settings.picks.latency_high_s,
                clock_ns=clock_ns,
                watch=StationWatch(settings.status.rate_rule(), settings.mute.rule),
            )

        path = settings.snapshot.file() if keep else None
        self.picking = picking() if path is None else resumed(path, bundle, picking)
        self.keeper = None if path is None else self._keeper(path, bundle)
        self.recorder = recorder_of(settings, bundle.digest) if keep else None
        if self.recorder is not None:
            self.recorder.register(self.metrics)
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

    def _keeper(self, path: Path, bundle: Bundle) -> SnapshotKeeper:
        """Keeps the snapshot of the picking; metrics say how it fares."""
        keeper = SnapshotKeeper(
            path,
            self.settings.snapshot.every_s,
            lambda: capture(self.picking, bundle, self.clock_ns()),
            lambda: self.publisher.outbox.unwritten,
        )
        self.picking.between_rounds = keeper.between_rounds
        keeper.register(self.metrics)
        return keeper

    def _publisher(self, outbox: Outbox | None) -> Publisher:
        settings = self.settings
        return Publisher(
            broker_of(settings.mqtt),
            Source(agencyID=settings.agency, author=settings.author),
            outbox,
            topic_root=settings.mqtt.topic_root,
            delivery=Delivery(message_expiry_s=settings.mqtt.message_expiry_s),
            board=RetainedBoard(settings.status.most_per_s),
            about=self._facts,
            clock_ns=self.clock_ns,
        )

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
                if keeper is not None:
                    keeper.cancel()
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
        held, _ = await asyncio.gather(self.publisher.drain(left_s), self._keep_last(picking, left_s))
        self.finished = True
        return held

    async def _keep_last(self, picking: asyncio.Task[None], timeout_s: float) -> None:
        """One more snapshot, where the picking came to its end and is nowhere in between."""
        if self.keeper is not None and picking.done() and not picking.cancelled():
            await self.keeper.last(timeout_s)

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
