"""The demo's subscriber: pick messages from the broker, as ``docs/mqtt.md`` describes them, back in recorded time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiomqtt

from demo.children import HOST, DemoError
from demo.onsets import ArrivedPick, parse_ns
from demo.records import Served

TOPIC = "onset/v1/picks/#"
PROTOCOLS = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}


class Subscriber:
    """Listens while its task runs; ``heard_at`` is the loop's time of the last message (or of the beginning)."""

    def __init__(self, port: int, protocol: str, served: Sequence[Served], add: Callable[[ArrivedPick], None]) -> None:
        self._port, self._protocol, self._served, self._add = port, protocol, served, add
        self._seen: set[str] = set()
        self.subscribed = asyncio.Event()
        self.heard_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Listen for ever; raises DemoError where the broker goes away or a message cannot be read."""
        try:
            client = aiomqtt.Client(HOST, self._port, protocol=PROTOCOLS[self._protocol], identifier="onset-demo")
            async with client:
                await client.subscribe(TOPIC, qos=1)
                self.subscribed.set()
                async for message in client.messages:
                    self.heard_at = asyncio.get_running_loop().time()
                    self._take(bytes(message.payload or b""))
        except aiomqtt.MqttError as error:
            raise DemoError(
                f"the subscriber lost the MQTT broker ({error}): see broker.log in the demo's folder"
            ) from error

    async def quiet(self, for_s: float) -> None:
        """Wait until no message has come for so long, and at least for so long."""
        rest_s = for_s
        while rest_s > 0:
            await asyncio.sleep(rest_s)
            rest_s = self.heard_at + for_s - asyncio.get_running_loop().time()

    def _take(self, payload: bytes) -> None:
        try:
            message = json.loads(payload)
            if message["id"] in self._seen:  # delivered at least once, so perhaps twice
                return
            self._seen.add(message["id"])
            pick = read_pick(message, self._served)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DemoError(f"a message that docs/mqtt.md does not describe ({error!r}): {payload[:200]!r}") from error
        self._add(pick)


def read_pick(message: dict[str, Any], served: Sequence[Served]) -> ArrivedPick:
    """The pick of one message, its time moved back to that of the original recording.

    Raises KeyError, IndexError or ValueError where the message is not a pick of one of the records.
    """
    codes, analytics = message["channel"]["properties"], message["analyticsInfo"]
    time_ns = parse_ns(message["time"])
    shift_ns = _shift_ns(codes["network"], codes["station"], time_ns, served)
    decided_ns = parse_ns(analytics["extensions"]["onset"]["decided_time"])
    return ArrivedPick(
        network=codes["network"],
        station=codes["station"],
        phase=message["phase"],
        time_ns=time_ns - shift_ns,
        probability=float(analytics["predictions"][0]["probability"]),
        latency_s=(decided_ns - time_ns) / 1e9,
    )


def _shift_ns(network: str, station: str, time_ns: int, served: Sequence[Served]) -> int:
    """How far the record that holds this instant of the timeline was moved; its ends are a second wide."""
    for one in served:
        for trace in one.stream:
            if (trace.stats.network, trace.stats.station) == (network, station):
                start_ns, end_ns = trace.stats.starttime.ns, trace.stats.endtime.ns
                if start_ns - 10**9 <= time_ns - one.shift_ns <= end_ns + 10**9:
                    return one.shift_ns
    raise ValueError(f"no record of {network}.{station} was served at this time")


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; its own error is raised, its cancellation is not."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
