"""The replay server: files in, SeedLink v3 and v4 out, on a clock that runs as fast as asked."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog

from picker.errors import ConfigError
from streamer.errors import BadRecord
from streamer.replay.captured import CapturedRing, captured_timeline
from streamer.replay.connection import Connection
from streamer.replay.directory import Directory
from streamer.replay.rewrite import rewrite
from streamer.replay.ring import StationRing, StreamDescription
from streamer.replay.settings import ReplaySettings
from streamer.replay.source import RecordReader, SourceRecord, load_source
from streamer.replay.timecode import format_iso
from streamer.replay.timeline import Timeline, build_timeline

YIELD_EVERY = 16
FLUSH_WAIT_S = 10.0
FLUSH_POLL_S = 0.05

log = structlog.get_logger(__name__)


@dataclass
class ReplayCounters:
    """What has happened so far."""

    records: int = 0
    bad_records: int = 0
    clients: int = 0
    dropped_clients: int = 0
    refused_clients: int = 0


class ReplayServer:
    """Serves a replay while its context lasts: ``async with ReplayServer(settings) as server: server.port``.

    ``clock_ns`` is the wall clock (int ns UTC) that shifted data are tied to; pacing uses the event loop's own clock.
    Entering raises ConfigError for data that cannot be served or an address that cannot be had.
    """

    def __init__(self, settings: ReplaySettings, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.settings = settings
        self.counters = ReplayCounters()
        self.timeline: Timeline
        self.rings: list[StationRing] = []
        self._clock_ns = clock_ns
        self._streams: list[dict[tuple[str, str, str], StreamDescription]] = []
        self._reader = RecordReader()
        self._connections: set[Connection] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._wanted, self._ended, self._finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._data_time_ns: int | None = None

    async def __aenter__(self) -> Self:
        settings = self.settings
        self.timeline = await asyncio.to_thread(_timeline, settings)
        kind = CapturedRing if settings.capture else StationRing
        for station in self.timeline.stations:
            streams = station.streams()
            self._streams.append(streams)
            ring = kind(station.station_id, streams.values(), settings.ring_packets, settings.first_sequence)
            self.rings.append(ring)
        self._directory = Directory(settings.organization, self._clock_ns(), self.rings)
        try:
            self._server = await asyncio.start_server(self._accept, settings.host, settings.port, ssl=_tls(settings))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): "
                "choose another --port, or 0 for any"
            ) from None
        if not settings.wait_for_client:
            self.begin()
        self._tasks = await self._start_tasks()
        return self

    async def _start_tasks(self) -> list[asyncio.Task[None]]:
        return [
            asyncio.create_task(self._feed(), name="replay feed"),
            asyncio.create_task(self._report(), name="replay status"),
        ]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in [*self._tasks, *self._handlers]:
            task.cancel()
        results = await asyncio.gather(*self._tasks, *self._handlers, return_exceptions=True)
        self._reader.close()
        failures = [result for result in results if isinstance(result, Exception)]
        if failures and error is None:
            raise failures[0]

    @property
    def host(self) -> str:
        """Address that the server listens on."""
        return self.settings.host

    @property
    def port(self) -> int:
        """TCP port that the server listens on."""
        return int(self._server.sockets[0].getsockname()[1])

    def begin(self) -> None:
        """Start the replay's clock if it has not been; with ``wait_for_client`` the first request for data does it."""
        self._wanted.set()

    async def wait_ended(self) -> None:
        """Wait until the last record has been published; raises what stopped the feed, if something did."""
        await self._wait(self._ended)

    async def wait_finished(self) -> None:
        """Wait until the data have ended and ``linger_s`` has passed; for ever when it is None."""
        await self._wait(self._finished)

    async def _wait(self, event: asyncio.Event) -> None:
        waiter = asyncio.create_task(event.wait())
        try:
            await asyncio.wait([waiter, self._tasks[0]], return_when=asyncio.FIRST_COMPLETED)
            if self._tasks[0].done():
                self._tasks[0].result()
            await waiter
        finally:
            waiter.cancel()

    # Clients

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self.settings.max_clients:
            self.counters.refused_clients += 1
            log.warning("client refused: too many", limit=self.settings.max_clients, mend="--max-clients")
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(
            reader,
            writer,
            self._directory,
            self.rings,
            stall_s=self.settings.stall_s,
            source_ended=self._ended.is_set,
            on_begin=self.begin,
            logins=self.settings.logins,
        )
        self.counters.clients += 1
        self._connections.add(connection)
        self._handlers.add(task)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the server is closing: nothing is left to unwind
                await connection.serve()
        finally:
            self._connections.discard(connection)
            self._handlers.discard(task)
            self.counters.dropped_clients += connection.dropped is not None

    # Data

    async def _feed(self) -> None:
        await self._wanted.wait()
        loop = asyncio.get_running_loop()
        shift_s, begun = self._shift_s(), loop.time()
        if self.settings.shift == "start" and self.settings.speed > 1.0:
            log.warning("data will run ahead of the clock", shift="start", mend="--shift end with a speed above 1")
        log.info("replay starts", first_sample=format_iso(self.timeline.start_ns + shift_s * 1_000_000_000))
        for count, (release_ns, index, record) in enumerate(self.timeline):
            wait_s = begun + release_ns * 1e-9 / self.settings.speed - loop.time()
            if wait_s > 0.0005:
                await asyncio.sleep(wait_s)
            elif count % YIELD_EVERY == 0:  # catching up: let the clients' senders run too
                await asyncio.sleep(0)
            self._publish(index, record, shift_s)
        self._ended.set()
        log.info("replay has ended", records=self.counters.records, linger_s=self.settings.linger_s)
        for connection in self._connections:
            connection.ended()
        if self.settings.linger_s is not None:
            await asyncio.sleep(self.settings.linger_s)
            await self._flush()
            self._finished.set()
        else:
            await asyncio.Event().wait()

    async def _flush(self) -> None:
        for _ in range(round(FLUSH_WAIT_S / FLUSH_POLL_S)):
            if all(connection.caught_up for connection in self._connections):
                return
            await asyncio.sleep(FLUSH_POLL_S)

    def _shift_s(self) -> int:
        origin_ns = {"start": self.timeline.start_ns, "end": self.timeline.end_ns}.get(self.settings.shift)
        return 0 if origin_ns is None else (self._clock_ns() - origin_ns) // 1_000_000_000

    def _publish(self, index: int, record: SourceRecord, shift_s: int) -> None:
        station = self.timeline.stations[index]
        try:
            payload = self._reader.read(record)
        except BadRecord as error:
            self.counters.bad_records += 1
            log.warning("record left out", reason=error.reason, detail=str(error))
            return
        payload = rewrite(payload, record.format, station=station.new_code, shift_s=shift_s)
        shift_ns = shift_s * 1_000_000_000
        stream = self._streams[index][record.name.stream_id, record.format, record.subformat]
        arrival = self.counters.records
        self.counters.records += 1
        self._data_time_ns = record.end_ns + shift_ns
        start_ns, end_ns = record.start_ns + shift_ns, record.end_ns + shift_ns
        self.rings[index].append(arrival, stream, start_ns, end_ns, payload, record.number)
        for connection in self._connections:
            connection.published(index)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self.settings.status_every_s)
            if self._data_time_ns is None or self._ended.is_set():
                continue
            log.info(
                "replaying",
                data_time=format_iso(self._data_time_ns),
                percent=round(100.0 * self.counters.records / len(self.timeline), 1),
                records=self.counters.records,
                clients=len(self._connections),
            )


def _timeline(settings: ReplaySettings) -> Timeline:
    """What is served and when; raises ConfigError."""
    return captured_timeline(settings) if settings.capture else build_timeline(load_source(settings), settings)


def _tls(settings: ReplaySettings) -> ssl.SSLContext | None:
    """The server's side of TLS, None without; raises ConfigError for files that cannot be used."""
    if settings.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:
        raise ConfigError(f"{settings.tls_certificate}: not a certificate with its key ({error})") from None
    return context
