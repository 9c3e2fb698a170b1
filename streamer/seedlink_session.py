"""One connection to a SeedLink server: connect, ask what there is, subscribe, packets; every way it can end is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from seedlink_client import Protocol, SeedLinkAuthError, SeedLinkError, SeedLinkPacket

from picker.errors import ConfigError
from streamer.errors import RemoteError
from streamer.inventory import Inventory, Offer, Wanted, parse_v3, parse_v4
from streamer.resume import V3_NUMBERS
from streamer.resumption import Kind, Plan
from streamer.seedlink_client import NEVER_S, ResumeRefused, SeedLinkClient
from streamer.seedlink_settings import SeedLinkSettings

QUIET_FACTOR = 10
"""A server that gives signs of life but no data is left after so many idle timeouts."""
MOST_PATTERNS = 50
"""Beyond so many stations and wildcards the whole list is asked for at once."""
INFO_S = 120.0
"""Longest that a list of stations may take, if each part of it comes within the connect timeout."""
SUBSCRIBE_S = 0.5
"""Time for the answer to a command, over and above the connect timeout for all, before a subscription is given up."""


class Ended(RemoteError):
    """A connection has ended. ``broken``: by what the server said, or by its silence, and not by the network."""

    def __init__(self, message: str, *, broken: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.broken, self.refused = broken or refused, refused


class Connection:
    """``async with Connection(settings)`` connects and logs in; raises Ended, and ConfigError for secrets and CA."""

    def __init__(self, settings: SeedLinkSettings) -> None:
        self.settings = settings
        self.deadline_s = NEVER_S
        """When waiting for a packet ends whatever was heard (event loop's time)."""
        self._client = SeedLinkClient(
            settings, auth=settings.auth(), context=settings.tls_context(), on_frame=self._hear
        )
        self._packets = self._client.collect(reconnect=False)
        self._scope: asyncio.Timeout | None = None
        self._interruption: str | None = None
        self._heard_s = self._idle_s = self._until_s = 0.0

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                await self._client.connect()
        except BaseException as error:
            await self._client.close()
            raise self._ended(error) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._packets.aclose()
        await self._client.close()

    @property
    def protocol(self) -> str:
        """The version that is spoken, "3" or "4"."""
        return self._client.protocol.value if self._client.protocol else "3"

    @property
    def software(self) -> str:
        """What the server calls itself."""
        return self._client.server_id or ""

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.settings.tls or self.settings.ca_file is not None

    @property
    def unreadable(self) -> bool:
        """Whether the last packet had no record that can be read (SeedLink 3, where the record names the station)."""
        return self._client.unreadable > 0

    @property
    def takes_times(self) -> bool:
        """Whether it can be asked for data since a time."""
        return self._client.protocol is not Protocol.V4 or "TIME" in self._client.server_capabilities

    @property
    def refused(self) -> Sequence[str]:
        """Stations that the server did not know at the subscription."""
        return self._client.refused

    async def inventory(self, patterns: Sequence[str]) -> Inventory | None:
        """What the server offers of the stations ``patterns``; None where it does not say.

        Raises Ended where the connection is of no more use after the question.
        """
        ways: list[list[str]] = [["STREAMS"]]
        if self._client.protocol is Protocol.V4 and len(patterns) <= MOST_PATTERNS:
            ways.insert(0, [f"STREAMS {pattern}" for pattern in dict.fromkeys(patterns)])
        try:
            async with self._listening(self.settings.connect_timeout_s, INFO_S):
                for way in ways:
                    found = await self._lists(way)
                    if found is not None:
                        return found
        except (SeedLinkError, OSError, EOFError) as error:
            if self._client.info_refused and self._client.is_connected:
                return None
            raise self._ended(error) from None
        return None

    async def _lists(self, levels: Sequence[str]) -> Inventory | None:
        """The answers to INFO ``levels`` as one; None where one is no list, as of a server without patterns."""
        parse = parse_v4 if self._client.protocol is Protocol.V4 else parse_v3
        found: dict[str, Offer] = {}
        for level in levels:
            text = await self._client.info(level)
            try:
                found |= await asyncio.to_thread(parse, text)
            except ValueError:
                return None
        return found

    async def subscribe(self, wanted: Sequence[Wanted], plan: Plan) -> None:
        """Ask for the stations, from where ``plan`` says. Raises Ended."""
        client = self._client
        if wanted == [Wanted("*_*", wanted[0].selectors)]:
            client.set_all_stations(list(wanted[0].selectors))
        else:
            for one in wanted:
                position = plan.sequences.get(one.station)
                number, seen = None if position is None else position.sequence, None
                if position is not None and self.protocol == "3":
                    number = -1 if position.sequence == V3_NUMBERS - 1 else position.sequence
                    seen = _utc(position.start_ns).isoformat()
                client.add_stream(one.station, list(one.selectors), seqnum=number, timestamp=seen)
        if plan.kind is Kind.WINDOW and plan.since_ns is not None:
            client.set_timewindow(_utc(plan.since_ns))
        commands = sum(2 + len(one.selectors) for one in wanted)
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s + SUBSCRIBE_S * commands):
                await client.negotiate()
        except (SeedLinkError, OSError, EOFError, ValueError) as error:
            raise self._ended(error) from None

    def interrupt(self, reason: str) -> None:
        """End the wait for a packet with Ended(``reason``), now or the next time."""
        self._interruption = reason
        self._reschedule()

    async def packet(self) -> SeedLinkPacket:
        """The next packet; raises Ended. How long it was not asked for does not count as the server's silence."""
        idle_s = self.settings.idle_timeout_s
        try:
            async with self._listening(idle_s, QUIET_FACTOR * idle_s):
                packet = await anext(self._packets, None)
        except TimeoutError:
            raise self._why() from None
        except (SeedLinkError, OSError, ValueError, EOFError) as error:
            raise self._ended(error) from None
        if packet is None:
            raise Ended("the server has ended the stream", broken=True)
        return packet

    @asynccontextmanager
    async def _listening(self, idle_s: float, longest_s: float) -> AsyncIterator[None]:
        """TimeoutError where no frame comes for ``idle_s``, at the end of all, or at an interruption."""
        self._heard_s = asyncio.get_running_loop().time()
        self._idle_s, self._until_s = idle_s, self._heard_s + longest_s
        try:
            async with asyncio.timeout(None) as self._scope:
                self._reschedule()
                yield
        finally:
            self._scope = None

    def _hear(self) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        self._reschedule()

    def _reschedule(self) -> None:
        if self._scope is None or self._scope.expired():
            return
        when_s = min(self._heard_s + self._idle_s, self._until_s, self.deadline_s)
        self._scope.reschedule(0.0 if self._interruption is not None else when_s)

    def _why(self) -> Ended:
        now_s, idle_s = asyncio.get_running_loop().time(), self.settings.idle_timeout_s
        if self._interruption is not None:
            return Ended(self._interruption)
        if now_s - self._heard_s >= idle_s:
            return Ended(f"nothing received for {idle_s:g} s", broken=True)
        if now_s >= self.deadline_s:
            return Ended("silence")
        return Ended(f"signs of life but no data for {QUIET_FACTOR * idle_s:g} s", broken=True)

    def _ended(self, error: BaseException) -> BaseException:
        """``error`` as Ended; one that is not about the connection as it is."""
        if not isinstance(error, SeedLinkError | OSError | EOFError | ValueError) or isinstance(error, ConfigError):
            return error
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return Ended(f"certificate not accepted ({error.__cause__.verify_message}): see seedlink.ca_file")
        text = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            text = "timed out"
        if isinstance(error, SeedLinkAuthError):
            text = f"the server refuses user name, password or token: {text}"
        text = self._client.masked(text)
        lost = isinstance(error, OSError) or text.startswith(("Connection closed", "recv failed", "send failed"))
        return Ended(text, broken=not lost, refused=isinstance(error, ResumeRefused))


def _utc(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
