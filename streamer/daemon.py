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

import structlog

from picker.bundle import Bundle
from picker.stepper import Stepper
from streamer.broker import Broker
from streamer.engine import Engine
from streamer.message import Source
from streamer.metrics import Metrics, MetricsServer
from streamer.picking import Picking
from streamer.publisher import Publisher
from streamer.seedlink import SeedLinkReader
from streamer.settings import MqttSettings, Settings
from streamer.station import StationPolicy
from streamer.stations import Stations
from streamer.status import report_status

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
    )
    return broker if settings.client_id is None else replace(broker, client_id=settings.client_id)


class Daemon:
    """Everything that runs. Made before the event loop, so that wrong settings are known before anything starts."""

    def __init__(
        self, settings: Settings, bundle: Bundle, stepper: Stepper, *, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        stations = settings.stations
        policy = StationPolicy(
            component_wait_s=stations.component_wait_s, interpolate_s=stations.interpolate_s, hold_s=stations.hold_s
        )
        self.settings, self.metrics = settings, Metrics()
        self.finished = False
        """Whether all that was asked for before the end is done, save the orderly end of connections."""
        self.publisher = Publisher(
            broker_of(settings.mqtt),
            Source(agencyID=settings.agency, author=settings.author),
            topic_root=settings.mqtt.topic_root,
            clock_ns=clock_ns,
        )
        self.picking = Picking(
            bundle,
            settings.picks.rules(bundle.spec),
            Stations(policy, stations.prefer),
            Engine(stepper),
            self.publisher.put,
            self.metrics,
            guard_s=stations.guard_s,
            clock_ns=clock_ns,
        )
        self.readers = [
            SeedLinkReader(server, self.picking.deliver, self.metrics, clock_ns=clock_ns)
            for server in settings.seedlink
        ]

    async def run(self, stop: asyncio.Event, on_serving: Callable[[], object] = lambda: None) -> int:
        """Serve until ``stop`` is set, then work off what was received. Returns how many picks could not be delivered.

        An exception in any task ends all of them and is raised, in a group.
        """
        with self._metrics_server():
            async with asyncio.TaskGroup() as tasks:
                publisher = tasks.create_task(self.publisher.run(), name="publisher")
                status = tasks.create_task(report_status(self), name="status")
                picking = tasks.create_task(self.picking.run(), name="picking")
                readers = [
                    tasks.create_task(reader.run(), name=f"seedlink {reader.settings.address}")
                    for reader in self.readers
                ]
                on_serving()
                await stop.wait()
                held = await self._finish(readers, picking)
                publisher.cancel()
                status.cancel()
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
        held = await self.publisher.drain(begun_s + PUBLISHING_S - time.monotonic())
        self.finished = True
        return held

    async def _end_picking(self, readers: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(readers)
        await self.picking.end()

    def _metrics_server(self) -> MetricsServer | nullcontext[None]:
        wanted = self.settings.metrics
        if not wanted.enabled:
            return nullcontext()
        server = MetricsServer(self.metrics, wanted.host, wanted.port)
        _log.info("metrics are served", address=f"http://{wanted.host}:{server.port}/metrics")
        return server
