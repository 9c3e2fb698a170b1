"""EarthScope's SeedLink client with what a daemon needs besides: an own authority, secrets kept out of logs, bounds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from seedlink_client import AsyncSeedLink, Protocol, SeedLinkError, SeedLinkResponse
from seedlink_client._commands import Command
from seedlink_client.protocol import parse_reply

from streamer.seedlink_settings import SeedLinkSettings

MOST_INFO_BYTES = 64 * 1024 * 1024
NEVER_S = float("inf")
CLOSE_S = 1.0


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
