"""One client's socket: its bytes into the session, replies and packets out, at the pace the client takes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

import structlog

from streamer.replay.directory import Directory
from streamer.replay.ring import StationRing
from streamer.replay.session import Begin, Close, Reply, Session
from streamer.replay.subscription import OverrunError, Subscription

READ_BYTES = 4096
WRITE_BYTES = 64 * 1024
BUFFER_BYTES = 256 * 1024
END_WAIT_S = 5.0

log = structlog.get_logger(__name__)


class Connection:
    """A client from accept to close. ``dropped`` says why the server ended it, if it did."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        directory: Directory,
        rings: Sequence[StationRing],
        *,
        stall_s: float,
        source_ended: Callable[[], bool],
        on_begin: Callable[[], None],
        logins: Collection[str] = (),
    ) -> None:
        self.dropped: str | None = None
        self._reader, self._writer, self._rings = reader, writer, rings
        self._session = Session(directory, logins)
        self._stall_s, self._source_ended, self._on_begin = stall_s, source_ended, on_begin
        self._subscription: Subscription | None = None
        self._sender: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._log = log.bind(client=str(writer.get_extra_info("peername")))
        writer.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    async def serve(self) -> None:
        """Talk to the client until either side ends it."""
        self._log.debug("client connected")
        try:
            with contextlib.suppress(ConnectionError):
                await self._read()
        finally:
            self._writer.close()
            try:
                await self._finish()
            finally:
                self._writer.transport.abort()  # nothing, unless it did not take what was still to be sent
            self._log.debug("client gone", user_agent=self._session.user_agent)

    async def _finish(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), END_WAIT_S)

    @property
    def caught_up(self) -> bool:
        """Whether the client has been sent everything it asked for that is there."""
        idle = self._writer.transport.get_write_buffer_size() == 0
        return idle and (self._subscription is None or self._subscription.caught_up)

    def published(self, index: int) -> None:
        """Take note of a new packet in ring ``index``; a client that has fallen out of the ring is dropped."""
        if self._subscription is None or self.dropped is not None:
            return
        try:
            if self._subscription.published(index):
                self._wake.set()
        except OverrunError as overrun:
            self._drop_overrun(overrun)

    def ended(self) -> None:
        """Take note that no more records will come."""
        self._wake.set()

    def drop(self, reason: str) -> None:
        """End the connection at once and say why in the log."""
        if self.dropped is None:
            self.dropped = reason
            self._log.warning("client dropped", reason=reason, user_agent=self._session.user_agent)
        self._writer.transport.abort()

    def _drop_overrun(self, overrun: OverrunError) -> None:
        self.drop(f"too slow: packets of {overrun} left the ring before it took them (--ring-packets)")

    async def _read(self) -> None:
        while data := await self._reader.read(READ_BYTES):
            for event in self._session.receive(data):
                match event:
                    case Reply():
                        self._writer.write(event.data)
                    case Begin():
                        self._begin(event)
                    case Close():
                        self._log.info("client closed", reason=event.reason)
                        await self._drain()
                        return
            await self._drain()

    def _begin(self, event: Begin) -> None:
        self._subscription = Subscription(event.request, self._rings)
        stations = self._subscription.stations
        self._log.info("client streams", seedlink=event.request.protocol, stations=len(stations))
        unserved = [ring.station_id for ring in stations if not ring.in_v3]
        if event.request.protocol == 3 and unserved:
            self._log.warning(
                "client of SeedLink v3 gets nothing from some stations: no miniSEED 2 records of 512 bytes",
                stations=", ".join(unserved[:10]),
                mend="--repack-s 1.0, or a v4 client",
            )
        self._sender = asyncio.create_task(self._send(self._subscription), name="sender")
        self._on_begin()

    async def _send(self, subscription: Subscription) -> None:
        try:
            while True:
                if data := subscription.take(WRITE_BYTES):
                    self._writer.write(data)
                    await self._drain()
                elif subscription.complete(self._source_ended()):
                    self._writer.write(b"END")
                    self._session.end_sent()
                    await self._drain()
                    await asyncio.sleep(END_WAIT_S)  # the client closes; if it does not, we do
                    self._writer.close()
                    return
                else:
                    self._wake.clear()
                    await self._wake.wait()
        except OverrunError as overrun:
            self._drop_overrun(overrun)
        except ConnectionError:
            self._writer.close()

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await self._writer.drain()
        except TimeoutError:
            self.drop(f"took no data for {self._stall_s:g} s")
            raise ConnectionAbortedError from None
