"""One visit to a SeedLink server and one to the broker: connect, ask, leave. Nothing is subscribed or published."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

import aiomqtt
from seedlink_client import Protocol, SeedLinkError

from picker.errors import OnsetError
from streamer.broker import Broker, BrokerClient
from streamer.inventory import Inventory, parse_v3, parse_v4
from streamer.record import Nslc
from streamer.seedlink_client import SeedLinkClient
from streamer.seedlink_settings import SeedLinkSettings, Selection


@dataclass(frozen=True, kw_only=True)
class ServerAnswer:
    """What a server said. ``error`` says why it could not be asked; ``streams`` is None where it lists none."""

    address: str
    software: str = ""
    protocol: str = ""
    error: str | None = None
    streams: tuple[Nslc, ...] | None = None
    """Channels that the settings ask for."""
    others: int = 0
    """Channels that it has and nobody asks for."""
    unmatched: tuple[Selection, ...] = ()
    """Entries of the settings that fit nothing of what it has."""


async def ask_server(settings: SeedLinkSettings, timeout_s: float) -> ServerAnswer:
    """Connect to a server and ask for its list of streams; never raises for what a server does."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _ask(settings)
    except TimeoutError:
        return ServerAnswer(address=settings.address, error=f"no answer within {timeout_s:g} s")
    except (SeedLinkError, OnsetError, OSError, EOFError, ValueError) as error:
        return ServerAnswer(address=settings.address, error=str(error) or type(error).__name__)


async def _ask(settings: SeedLinkSettings) -> ServerAnswer:
    client = SeedLinkClient(settings, auth=settings.auth(), context=settings.tls_context())
    try:
        await client.connect()
        version4 = client.protocol is Protocol.V4
        answer = ServerAnswer(
            address=settings.address, software=client.server_id or "", protocol="4" if version4 else "3"
        )
        try:
            text = await client.info("STREAMS")
        except SeedLinkError:
            if client.info_refused:
                return answer
            raise
        return _sorted_out(answer, parse_v4(text) if version4 else parse_v3(text), settings.streams)
    finally:
        await client.close()


def _sorted_out(answer: ServerAnswer, inventory: Inventory, selections: Sequence[Selection]) -> ServerAnswer:
    """The channels that are asked for, and the entries of the settings that ask in vain."""
    asked: set[Nslc] = set()
    used: set[Selection] = set()
    others = 0
    for station_id, offer in inventory.items():
        network, _, station = station_id.partition("_")
        meant = [selection for selection in selections if selection.names(station_id)]
        for stream in offer.streams:
            wanting = [selection for selection in meant if selection.wants(stream.location, stream.channel)]
            used.update(wanting)
            if wanting:
                asked.add(Nslc(network, station, stream.location, stream.channel))
            else:
                others += 1
    unmatched = tuple(selection for selection in selections if selection not in used)
    return replace(answer, streams=tuple(sorted(asked)), others=others, unmatched=unmatched)


async def ask_broker(broker: Broker, timeout_s: float) -> str | None:
    """Connect to the broker under another name than the daemon's, and leave; returns why it failed, or None."""
    visitor = replace(broker, client_id=f"onset-check-{uuid.uuid4().hex[:8]}")
    try:
        async with asyncio.timeout(timeout_s):
            client = BrokerClient(visitor)
            await client.connect()
            await client.leave()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (aiomqtt.MqttError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return None
