"""One connection's worth of publishing: what is on its way, what was refused, what is overdue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import aiomqtt
import structlog
from paho.mqtt.reasoncodes import ReasonCode

from streamer.broker import REFUSED, BrokerClient
from streamer.outbox import Entry, Outbox
from streamer.retained import RetainedBoard
from streamer.retained_sender import RetainedSender

_log = structlog.get_logger(__name__)


@dataclass
class PublisherCounters:
    """What the publisher has done since it was made; the outbox counts what it had to drop."""

    put: int = 0
    """Picks handed to the outbox."""
    repeated: int = 0
    """Picks whose id the outbox knew already."""
    unusable: int = 0
    """Picks that no message could be made of."""
    sent: int = 0
    """Messages given to the broker, repetitions included."""
    acknowledged: int = 0
    """Messages that the broker has taken."""
    reopened: int = 0
    """Acknowledged messages that were sent once more because the connection was lost soon after."""
    refused: int = 0
    """Messages that the broker refused by their PUBACK; they stay in the outbox."""
    connections: int = 0
    """Connections made."""
    failures: int = 0
    """Connections lost and attempts failed."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How messages are delivered over one connection."""

    window: int = 20
    """Messages in flight at most; the broker's receive maximum holds where it is less."""
    acknowledge_timeout_s: float = 20.0
    """Without a PUBACK for so long the connection is taken for dead."""
    retry_refused_s: float = 60.0
    """A refused message is offered again after this time, and after a reconnect."""
    resend_s: float = 120.0
    """What was acknowledged so shortly before a connection was lost is sent again after the reconnect."""
    message_expiry_s: int = 0
    """So long after it was made the broker may drop a pick that it could not deliver (MQTT 5 only); 0 for never."""

    def expiry_s(self, age_s: float) -> int | None:
        """Message expiry of a pick that was made ``age_s`` ago: what waited here counts; at least a second is left."""
        return max(1, round(self.message_expiry_s - age_s)) if self.message_expiry_s else None


class _Flight(NamedTuple):
    """A message on its way, and when (monotonic clock) its PUBACK is overdue."""

    acknowledgement: asyncio.Future[ReasonCode]
    deadline_s: float


class Session:
    """Sends what the outbox holds over one connection, oldest first, and forgets only what the broker took.

    ``wake`` is set by whoever puts something into the outbox or on the board of retained messages; ``acknowledged`` is
    called with an entry.
    """

    def __init__(
        self,
        client: BrokerClient,
        outbox: Outbox,
        counters: PublisherCounters,
        delivery: Delivery,
        wake: asyncio.Event,
        acknowledged: Callable[[Entry], None],
        monotonic: Callable[[], float] = time.monotonic,
        *,
        board: RetainedBoard | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._client, self._outbox, self._counters, self._delivery = client, outbox, counters, delivery
        self._wake, self._acknowledged, self._monotonic, self._clock_ns = wake, acknowledged, monotonic, clock_ns
        board = RetainedBoard() if board is None else board
        self._retained = RetainedSender(client, board, delivery.acknowledge_timeout_s, wake.set)
        # Both in the order of their times: the first is the next to come due.
        self._flights: dict[str, _Flight] = {}
        self._retry_at_s: dict[str, float] = {}
        self._refused_topics: set[str] = set()

    async def greet(self, topic: str, payload: bytes) -> None:
        """Publish a retained message and wait for its PUBACK; raises MqttError where none comes."""
        acknowledgement = self._client.send(topic, payload, retain=True)
        closed = asyncio.create_task(self._client.closed(), name="mqtt closed")
        try:
            waited: set[asyncio.Future[Any]] = {acknowledgement, closed}
            await asyncio.wait(
                waited, timeout=self._delivery.acknowledge_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if closed.done():
                closed.result()
            if not acknowledgement.done():
                raise aiomqtt.MqttError("no PUBACK for the status message")
        finally:
            await _end(closed)
        if (reason := acknowledgement.result()).value >= REFUSED:
            _log.warning("broker refuses the status message", topic=topic, reason=_text(reason))

    async def serve(self) -> None:
        """Publish until the connection ends, and raise MqttError then."""
        closed = asyncio.create_task(self._client.closed(), name="mqtt closed")
        try:
            while not closed.done():
                self._wake.clear()
                self._fill()
                await self._rest(closed)
                self._check_overdue()
            closed.result()
        finally:
            await _end(closed)
            self._retained.cancel()
            for flight in self._flights.values():
                flight.acknowledgement.cancel()

    def _fill(self) -> None:
        """Send the oldest entries that are not on their way, then retained messages, until the window is full."""
        now_s = self._monotonic()
        self._fill_picks(now_s)
        self._retained.fill(now_s, self._client.window - len(self._flights) - len(self._retained))

    def _fill_picks(self, now_s: float) -> None:
        for id in [id for id, retry_at_s in self._retry_at_s.items() if retry_at_s <= now_s]:
            del self._retry_at_s[id]
        for entry in self._outbox.pending():
            if len(self._flights) + len(self._retained) >= self._client.window:
                return
            if entry.id in self._flights or entry.id in self._retry_at_s:
                continue
            expiry_s = self._delivery.expiry_s((self._clock_ns() - entry.put_ns) / 1e9)
            acknowledgement = self._client.send(entry.topic, entry.payload, expiry_s=expiry_s)
            self._flights[entry.id] = _Flight(acknowledgement, now_s + self._delivery.acknowledge_timeout_s)
            acknowledgement.add_done_callback(partial(self._landed, entry))
            self._counters.sent += 1

    def _landed(self, entry: Entry, acknowledgement: asyncio.Future[ReasonCode]) -> None:
        if acknowledgement.cancelled():
            return
        del self._flights[entry.id]
        self._wake.set()
        reason = acknowledgement.result()
        if reason.value >= REFUSED:
            self._refused(entry, reason)
            return
        self._counters.acknowledged += 1
        self._acknowledged(entry)
        if entry.topic in self._refused_topics:
            self._refused_topics.discard(entry.topic)
            _log.info("broker takes picks again", topic=entry.topic)

    def _refused(self, entry: Entry, reason: ReasonCode) -> None:
        """Keep the entry for later; one line for each topic."""
        self._counters.refused += 1
        self._retry_at_s[entry.id] = self._monotonic() + self._delivery.retry_refused_s
        if entry.topic not in self._refused_topics:
            self._refused_topics.add(entry.topic)
            _log.warning(
                "broker refuses picks: held, and offered again later; see its access rules and quotas",
                topic=entry.topic,
                reason=_text(reason),
                retry_s=self._delivery.retry_refused_s,
            )

    async def _rest(self, closed: asyncio.Task[None]) -> None:
        """Until something happens: a pick put, a PUBACK, the end of the connection, or a time that has come."""
        now_s = self._monotonic()
        times_s = [flight.deadline_s for flight in self._flights.values()][:1]
        times_s += list(self._retry_at_s.values())[:1]
        waits_s = [moment_s - now_s for moment_s in times_s]
        if (retained_s := self._retained.wait_s(now_s)) is not None:
            waits_s.append(retained_s)
        timeout_s = max(0.0, min(waits_s)) if waits_s else None
        woken = asyncio.create_task(self._wake.wait(), name="mqtt wake")
        waited: set[asyncio.Future[Any]] = {woken, closed}
        try:
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(woken)

    def _check_overdue(self) -> None:
        deadlines_s = [flight.deadline_s for flight in self._flights.values()][:1]
        if self._retained.deadline_s is not None:
            deadlines_s.append(self._retained.deadline_s)
        if deadlines_s and min(deadlines_s) <= self._monotonic():
            raise aiomqtt.MqttError(f"no PUBACK within {self._delivery.acknowledge_timeout_s:g} s")


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and take its result, whatever it is."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _text(reason: ReasonCode) -> str:
    return f"{reason} (0x{reason.value:02x})"
