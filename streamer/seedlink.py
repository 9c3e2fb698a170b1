"""One SeedLink server (v3 or v4): packets in, records out, and a way back after every failure.

The client library waits a fixed time before it reconnects and has no limit on a frame that stops half way, so both are
done here. A reader that waits for its records to be taken does not read from the socket, so back-pressure reaches the
server through TCP.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime

import structlog
from seedlink_client import AsyncSeedLink, Protocol, SeedLinkError, SeedLinkPacket

from streamer.backoff import Backoff
from streamer.decode import decode_each
from streamer.errors import BadRecord, RemoteError
from streamer.metrics import Metrics
from streamer.rate_limit import RateLimit
from streamer.record import Record
from streamer.resume import ResumePoint
from streamer.settings import SeedLinkSettings

MINISEED_FORMATS = frozenset("23")
WARN_INTERVAL_S = 60.0
NEVER_S = float("inf")

Deliver = Callable[[Record, int], Awaitable[None]]
"""Takes a record and when it arrived (int ns UTC); waits where there is no room."""

_log = structlog.get_logger(__name__)


class SeedLinkReader:
    """Reads one server until it is stopped. ``run`` is its task."""

    def __init__(
        self,
        settings: SeedLinkSettings,
        deliver: Deliver,
        metrics: Metrics,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.receiving = False
        """Whether the server delivers data now."""
        self._deliver, self._metrics = deliver, metrics
        self._clock_ns, self._sleep = clock_ns, sleep
        self._backoff = Backoff(fraction=fraction)
        self._bad_limit = RateLimit(WARN_INTERVAL_S, monotonic)
        self._resume = ResumePoint()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._delivering = False
        self._absence_told = False
        metrics.connected.labels(settings.address).set(0)

    async def run(self) -> None:
        """Connect, read and reconnect until ``stop``."""
        self._task = asyncio.current_task()
        try:
            while not self._stopping:
                try:
                    await self._read()
                except RemoteError as error:
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
        client = self._client()
        try:
            await client.connect()
            since_ns = self._subscribe(client)
            try:
                # `collect` would subscribe as well, but a refusal must not count as a connection that brought nothing.
                await client.negotiate()
                await self._read_packets(client)
            finally:
                self._resume.closed(resumed=since_ns is not None)
        except (SeedLinkError, OSError, ValueError, EOFError) as error:
            raise RemoteError(str(error) or type(error).__name__) from error
        finally:
            await client.close()

    async def _read_packets(self, client: AsyncSeedLink) -> None:
        idle_s = self.settings.idle_timeout_s
        async with aclosing(client.collect(reconnect=False)) as packets:
            while not self._stopping:
                try:
                    async with asyncio.timeout(idle_s):
                        packet = await anext(packets, None)
                except TimeoutError as error:
                    raise RemoteError(f"nothing received for {idle_s:g} s") from error
                if packet is None:
                    raise RemoteError("the server has ended the stream")
                self._came_back(client)
                await self._take(packet)

    async def _take(self, packet: SeedLinkPacket) -> None:
        """Decode a packet and deliver its records; this much is finished even when ``stop`` comes meanwhile."""
        now_ns = self._clock_ns()
        self._metrics.packets.labels(self.settings.address).inc()
        if packet.payload_format not in MINISEED_FORMATS:
            self._refuse(packet, BadRecord("not_miniseed", f"payload of format {packet.payload_format!r}"))
            return
        self._delivering = True
        try:
            for item in decode_each(packet.payload):
                if isinstance(item, BadRecord):
                    self._refuse(packet, item)
                    continue
                self._metrics.records.labels(self.settings.address).inc()
                self._resume.note(item, now_ns)
                await self._deliver(item, now_ns)
        finally:
            self._delivering = False

    def _client(self) -> AsyncSeedLink:
        settings = self.settings
        client = AsyncSeedLink(
            settings.host,
            settings.port,
            timeout=settings.connect_timeout_s,
            protocol=None if settings.protocol == "auto" else Protocol(settings.protocol),
            idle_timeout=NEVER_S,
            clientname="onset",
        )
        first = settings.streams[0]
        if len(settings.streams) == 1 and (first.network, first.station) == ("*", "*"):
            client.set_all_stations(first.selectors)
        else:
            for stream in settings.streams:
                client.add_stream(stream.station_id, stream.selectors)
        return client

    def _subscribe(self, client: AsyncSeedLink) -> int | None:
        """Ask for what was missed, where that is known; returns from when (int ns UTC)."""
        since_ns = self._resume.start_ns()
        if since_ns is None:
            return None
        if client.protocol is Protocol.V4 and "TIME" not in client.server_capabilities:
            _log.warning("server cannot resume by time: what was missed is lost", server=self.settings.address)
            return None
        since = datetime.fromtimestamp(since_ns // 1_000_000_000, UTC)
        client.set_timewindow(since)
        _log.info("asking for what was missed", server=self.settings.address, since=since.isoformat())
        return since_ns

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

    def _came_back(self, client: AsyncSeedLink) -> None:
        """The first packet of a connection: only now is the server well."""
        if self.receiving:
            return
        self.receiving, self._absence_told = True, False
        self._backoff.reset()
        self._metrics.connected.labels(self.settings.address).set(1)
        version = client.protocol.value if client.protocol else "?"
        _log.info("server delivers", server=self.settings.address, protocol=version, software=client.server_id)

    def _went_away(self, error: RemoteError, delay_s: float) -> None:
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
