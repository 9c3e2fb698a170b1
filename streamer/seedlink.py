"""One SeedLink server (v3 or v4): packets in, records out, and a way back after every failure.

The client library waits a fixed time before it reconnects and has no limit on a frame that stops half way, so both are
done here and in ``seedlink_session``. A reader that waits for its records to be taken does not read from the socket, so
back-pressure reaches the server through TCP. How it goes on after a lost connection is in ``resumption``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain, pairwise

import structlog
from seedlink_client import SeedLinkPacket

from picker.errors import ConfigError
from streamer.backoff import Backoff
from streamer.decode import decode_each
from streamer.errors import BadRecord, RemoteError
from streamer.metrics import Metrics
from streamer.origin import Deliver, Origin
from streamer.rate_limit import RateLimit
from streamer.record import Record
from streamer.recovery import Recovery
from streamer.resume import ResumePoint
from streamer.seedlink_session import Connection, Ended
from streamer.seedlink_settings import SeedLinkSettings
from streamer.seen import Seen
from streamer.subscription import Subscriptions, one_by_one

MINISEED_FORMATS = frozenset("23")
WARN_INTERVAL_S = 60.0
YIELD_EVERY = 64
"""Records of one packet after which other servers have their turn."""

OnPacket = Callable[[SeedLinkPacket, str, int, bool], object]
"""Told of each packet, the protocol version, when it came (int ns UTC) and whether its records were delivered."""

_log = structlog.get_logger(__name__)


class SeedLinkReader:
    """Reads one server until it is stopped. ``run`` is its task; ``resume`` is what a snapshot says of this server."""

    def __init__(
        self,
        settings: SeedLinkSettings,
        deliver: Deliver,
        metrics: Metrics,
        *,
        resume: ResumePoint | None = None,
        on_packet: OnPacket | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        settings.auth()
        settings.tls_context()
        self.settings = settings
        self.receiving = False
        """Whether the server delivers data now."""
        self._deliver, self._metrics = deliver, metrics
        self._clock_ns, self._sleep, self._on_packet = clock_ns, sleep, on_packet
        self._backoff = Backoff(fraction=fraction)
        self._bad_limit = RateLimit(WARN_INTERVAL_S, monotonic)
        self._recovery = Recovery(settings, metrics, resume or ResumePoint(), clock_ns, monotonic)
        self._seen = Seen()
        self._subscriptions = Subscriptions(settings, monotonic)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._delivering = False
        self._absence_told = False
        self._login_told = False
        metrics.connected.labels(settings.address).set(0)

    async def run(self) -> None:
        """Connect, read and reconnect until ``stop``."""
        self._task = asyncio.current_task()
        try:
            while not self._stopping:
                try:
                    await self._read()
                except (RemoteError, ConfigError) as error:
                    if self._recovery.at_once:
                        self._recovery.at_once = False
                        continue
                    delay_s = self._backoff.delay_s()
                    self._went_away(error, delay_s)
                    await self._sleep(delay_s)
        except asyncio.CancelledError:
            if not self._stopping:
                raise

    def stop(self) -> None:
        """End ``run`` as soon as the records of the packet in hand are delivered."""
        self._stopping = True
        if self._task is not None and not self._delivering:
            self._task.cancel()

    async def _read(self) -> None:
        """One connection; raises RemoteError however it ends, save by ``stop``."""
        recovery = self._recovery
        async with Connection(self.settings) as connection:
            self._warn_of_login(connection)
            wanted, inventory = await self._subscriptions.choose(connection, recovery.living)
            plan = recovery.plan(connection, one_by_one(wanted), inventory)
            try:
                await connection.subscribe(wanted, plan)
            except Ended as error:
                if error.refused:
                    recovery.refused(str(error))
                raise
            recovery.subscribed(inventory)
            with self._subscriptions.looking(connection, wanted):
                await self._read_packets(connection)

    async def _read_packets(self, connection: Connection) -> None:
        recovery = self._recovery
        while not self._stopping:
            connection.deadline_s = recovery.deadline_s
            try:
                packet = await connection.packet()
            except Ended as error:
                recovery.judge()
                if self._subscriptions.changed:
                    recovery.at_once = True
                else:
                    recovery.ended(error)
                raise
            if not connection.unreadable:
                self._came_back(connection)
                recovery.heard(packet.station_id)
            await self._take(packet, connection.protocol)
            recovery.judge()

    async def _take(self, packet: SeedLinkPacket, protocol: str) -> None:
        """Deliver a packet's records, then tell ``on_packet``: so packets are told in the order of delivery."""
        now_ns, taken = self._clock_ns(), False
        try:
            if not await self._deliver_packet(packet, protocol, now_ns):
                self._recovery.point.pass_over(packet.station_id, packet.seqnum, protocol)
            taken = True
        finally:
            if self._on_packet is not None:
                self._on_packet(packet, protocol, now_ns, taken)

    async def _deliver_packet(self, packet: SeedLinkPacket, protocol: str, now_ns: int) -> int:
        """Decode a packet and deliver its records; this much is finished even when ``stop`` comes meanwhile.

        Returns how many there were. Raises Ended before a record is delivered that would leave behind what can still
        be had.
        """
        self._metrics.packets.labels(self.settings.address).inc()
        if packet.payload_format not in MINISEED_FORMATS:
            self._refuse(packet, BadRecord("not_miniseed", f"payload of format {packet.payload_format!r}"))
            return 0
        self._delivering, count = True, 0
        try:
            for count, (record, following) in enumerate(pairwise(chain(self._usable(packet), (None,))), 1):
                assert record is not None
                sequence = packet.seqnum if following is None else None
                await self._take_record(
                    record, now_ns, Origin(self.settings.address, packet.station_id, sequence, protocol)
                )
                if count % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        finally:
            self._delivering = False
        return count

    async def _take_record(self, record: Record, now_ns: int, origin: Origin) -> None:
        self._metrics.records.labels(self.settings.address).inc()
        if self._seen.knows(record):
            self._metrics.seen.labels(self.settings.address).inc()
            self._recovery.point.note(record, now_ns, origin)
            return
        self._recovery.check(record, now_ns)
        self._seen.note(record, now_ns)
        self._recovery.point.note(record, now_ns, origin)
        await self._deliver(record, now_ns, origin)

    def _usable(self, packet: SeedLinkPacket) -> Iterator[Record]:
        for item in decode_each(packet.payload):
            if isinstance(item, BadRecord):
                self._refuse(packet, item)
            else:
                yield item

    def _warn_of_login(self, connection: Connection) -> None:
        """User names and tokens that go over the network in clear, or nowhere, are worth a word; one each."""
        if not self.settings.logs_in or self._login_told:
            return
        self._login_told = True
        if connection.protocol == "3":
            _log.warning(
                "server speaks SeedLink 3, which knows no login: going on without", server=self.settings.address
            )
        elif not connection.secure:
            _log.warning("user name or token go over the network in clear: set tls", server=self.settings.address)

    def _refuse(self, packet: SeedLinkPacket, error: BadRecord) -> None:
        self._metrics.bad_records.labels(error.reason).inc()
        held_back = self._bad_limit.admit((packet.station_id, error.reason))
        if held_back is not None:
            _log.warning(
                "record dropped",
                server=self.settings.address,
                station=packet.station_id,
                sequence=packet.seqnum,
                reason=error.reason,
                detail=str(error),
                held_back=held_back,
            )

    def _came_back(self, connection: Connection) -> None:
        """The first packet of a connection: only now is the server well."""
        if self.receiving:
            return
        self.receiving, self._absence_told = True, False
        self._backoff.reset()
        self._metrics.connected.labels(self.settings.address).set(1)
        _log.info(
            "server delivers",
            server=self.settings.address,
            protocol=connection.protocol,
            software=connection.software,
        )

    def _went_away(self, error: RemoteError | ConfigError, delay_s: float) -> None:
        """One line for a change of state; the attempts that fail after it are only counted."""
        self.receiving = False
        self._metrics.connected.labels(self.settings.address).set(0)
        self._metrics.reconnects.labels(self.settings.address).inc()
        tell = _log.debug if self._absence_told else _log.warning
        self._absence_told = True
        tell(
            "server absent: trying again",
            server=self.settings.address,
            reason=str(error),
            retry_s=round(delay_s, 1),
        )
