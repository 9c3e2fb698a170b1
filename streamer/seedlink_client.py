"""EarthScope's SeedLink client with what a daemon needs besides: an own authority, secrets kept out of logs, bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from seedlink_client import AsyncSeedLink, Protocol, SeedLinkError, SeedLinkResponse
from seedlink_client._commands import Command
from seedlink_client.protocol import (
    FORMAT_MSEED2,
    HEADSIZE_V3,
    HeaderV3,
    StreamEvent,
    _RawFrame,
    decode_frame_v3,
    parse_header_v3,
    parse_reply,
)

from streamer import frame_v3
from streamer.seedlink_settings import SeedLinkSettings

MOST_INFO_BYTES = 64 * 1024 * 1024
NEVER_S = float("inf")
CLOSE_S = 1.0
MOST_UNREADABLE = 256
"""So many packets of SeedLink 3 in a row without a record are no data: the connection is ended."""
LINES = (b"END", b"ERR")


class ResumeRefused(SeedLinkError):
    """The server does not send data from where it was asked to."""


class _Secret(str):
    """A command line that shows itself to nobody but the server."""

    def __str__(self) -> str:
        return "AUTH ..."

    __repr__ = __str__


class SeedLinkClient(AsyncSeedLink):
    """One connection. ``refused`` are the stations that the server does not know; ``on_frame`` is told of each frame.

    ``auth`` is a user name and password or a token; ``context`` the TLS context, None without TLS. Each answer to a
    command has ``connect_timeout_s``, however many commands there are.
    """

    def __init__(
        self,
        settings: SeedLinkSettings,
        *,
        auth: tuple[str, str] | str | None = None,
        context: ssl.SSLContext | None = None,
        on_frame: Callable[[], None] = lambda: None,
    ) -> None:
        self.refused: list[str] = []
        self.info_refused = False
        """Whether the server's last answer was a line, such as ERROR, and no packet."""
        self.unreadable = 0
        """Packets of SeedLink 3, in a row up to the last one, whose record cannot be read."""
        self._usual = frame_v3.STANDARD_BYTES
        """Length of the records of this connection, in bytes."""
        self._taken = 0
        """Length of the last record where a header behind it must prove it, else 0."""
        self._context, self._on_frame, self._info_bytes = context, on_frame, 0
        self._answer_s = settings.connect_timeout_s
        self._secret = auth if isinstance(auth, str) or auth is None else auth[1]
        super().__init__(
            settings.host,
            settings.port,
            tls=context is not None,
            protocol=None if settings.protocol == "auto" else Protocol(settings.protocol),
            keepalive=settings.keepalive_s or None,
            idle_timeout=NEVER_S,
            clientname="onset",
            auth=auth,
        )

    def _ssl_context(self) -> ssl.SSLContext:
        assert self._context is not None
        return self._context

    async def _send_command(self, cmd: Command) -> Any:
        if cmd.text.startswith("AUTH "):
            cmd = replace(cmd, text=_Secret(cmd.text))
        if cmd.role in ("station", "data") and cmd.parse is not None:
            cmd = replace(cmd, parse=parse_reply)  # an unknown station must not end the others
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await super()._send_command(cmd)
        except TimeoutError as error:
            raise SeedLinkError(f"no answer to {cmd.text.split()[0]} within {self._answer_s:g} s") from error
        if isinstance(answer, SeedLinkResponse) and not answer:
            if cmd.role == "station" and cmd.stream_id is not None:
                self.refused.append(cmd.stream_id)
            if cmd.role == "data":
                raise ResumeRefused(f"{cmd.text}: {answer.code or ''} {answer.message or 'refused'}", answer.code)
        return answer

    def masked(self, text: str) -> str:
        """``text`` from the server without the password or token, should it repeat it."""
        return text if self._secret is None else text.replace(self._secret, "...")

    async def _read_line(self) -> str:
        return self.masked(await super()._read_line())

    async def _recv_frame(self) -> Any:
        frame = await super()._recv_frame()
        self._on_frame()
        self.info_refused = isinstance(frame, SeedLinkResponse)
        if frame is None or isinstance(frame, SeedLinkResponse) or self._streaming:
            return frame
        self._info_bytes += len(frame.payload)
        if self._info_bytes > MOST_INFO_BYTES:
            await self.close()
            raise SeedLinkError(f"an answer to INFO of more than {MOST_INFO_BYTES} bytes")
        return frame

    async def _classify_next(self) -> StreamEvent:
        taken, self._taken = self._taken, 0
        if taken and await self._peek(len(LINES[0])) not in LINES:
            rest = await frame_v3.left_over(self._peek, taken, self._usual)
            await self._read_exact(rest)
            if not rest and not self.unreadable:
                self._usual = taken
        return await super()._classify_next()

    async def _recv_frame_v3(self) -> Any:
        """One packet; where its record cannot be read, its bytes as they are, and the connection goes on."""
        header = parse_header_v3(await self._peek(HEADSIZE_V3))
        if header.is_info:
            return await super()._recv_frame_v3()
        await self._read_exact(HEADSIZE_V3)
        length = await frame_v3.told_length(self._peek)
        if length != self._usual:
            length = await frame_v3.found_length(self._peek, length or self._usual)
        payload = await self._read_exact(length)
        try:
            frame = decode_frame_v3(header, payload)
        except (SeedLinkError, ValueError):
            self._taken = length
            return self._unread(header, payload)
        self._taken = 0 if length == self._usual else length
        self.unreadable = 0
        return frame

    def _unread(self, header: HeaderV3, payload: bytes) -> _RawFrame:
        """A packet whose record cannot be read. The station is one that was asked for or has delivered, or empty."""
        self.unreadable += 1
        if self.unreadable > MOST_UNREADABLE:
            raise SeedLinkError(f"{MOST_UNREADABLE} packets in a row without a record that can be read")
        known = {stream.station_id for stream in self._streams} | self._match_cache.keys()
        return _RawFrame(
            station_id=frame_v3.station_of(payload, known),
            seqnum=header.seqnum,
            payload_format=FORMAT_MSEED2,
            payload_subformat="D",
            payload=payload,
            info_continues=False,
        )

    async def close(self) -> None:
        """Close the connection; a server that does not say goodbye is not waited for."""
        writer = self._writer
        try:
            async with asyncio.timeout(CLOSE_S):
                await super().close()
        except TimeoutError:
            pass
        finally:
            if writer is not None:
                writer.transport.abort()
