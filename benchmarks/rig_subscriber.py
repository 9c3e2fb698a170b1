"""A subscriber whose session outlives its connection: it takes down every pick message, with the time it came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rig import HOST

TOPIC = "onset/v1/picks/#"
RETRY_S = 0.2
SESSION_S = 3600


class Heard(NamedTuple):
    """A message as it came: when (Unix time, s) and what it says."""

    at_s: float
    pick: dict[str, Any]

    @property
    def id(self) -> str:
        """Identity of the pick."""
        return str(self.pick["id"])

    @property
    def onset(self) -> dict[str, Any]:
        """What Onset adds to the format."""
        found: dict[str, Any] = self.pick["analyticsInfo"]["extensions"]["onset"]
        return found

    @property
    def probability(self) -> float:
        """Probability of the phase."""
        return float(self.pick["analyticsInfo"]["predictions"][0]["probability"])

    @property
    def station(self) -> str:
        """Station code."""
        return str(self.pick["channel"]["properties"]["station"])


class Subscriber:
    """``run`` is its task; it connects again for ever."""

    def __init__(self, port: int) -> None:
        self.heard: list[Heard] = []
        self.connections = self.resumed = 0
        self.last_s = time.monotonic()
        self.subscribed = asyncio.Event()
        self._port = port

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            with suppress(aiomqtt.MqttError):
                await self._listen()
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S
        async with aiomqtt.Client(
            HOST, self._port, protocol=aiomqtt.ProtocolVersion.V5, identifier="rig", clean_start=False,
            properties=properties, keepalive=10,
        ) as client:  # fmt: skip
            self.connections += 1
            await client.subscribe(TOPIC, qos=1)
            self.subscribed.set()
            async for message in client.messages:
                self.last_s = time.monotonic()
                self.heard.append(Heard(time.time(), json.loads(bytes(message.payload or b""))))


def confirmed(heard: Iterable[Heard]) -> dict[str, Heard]:
    """The confirmed picks by id, the first message of each."""
    out: dict[str, Heard] = {}
    for one in heard:
        if one.onset["status"] == "confirmed":
            out.setdefault(one.id, one)
    return out
