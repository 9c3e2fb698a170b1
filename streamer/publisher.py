"""Picks to the broker: a task that holds them while the broker is away and lets none go without its PUBACK."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiomqtt
import structlog

from streamer.backoff import Backoff
from streamer.broker import Broker, BrokerClient
from streamer.chunk import StationKey
from streamer.memory_outbox import MemoryOutbox
from streamer.message import Source
from streamer.outbox import Entry, Outbox
from streamer.payload import PickReport, build_message
from streamer.retained import RetainedBoard
from streamer.session import Delivery, PublisherCounters, Session
from streamer.status_message import DaemonFacts, daemon_status
from streamer.topic import ROOT, checked_root, pick_topic, station_topic, status_topic

_log = structlog.get_logger(__name__)

STEADY_S = 10.0
"""A connection that lasted this long was a good one: after it the back-off starts anew."""


class Publisher:
    """Publishes picks with QoS 1, at least once each. All of it lives on one event loop; ``run`` is its task.

    ``clock_ns`` is the daemon's clock (int ns UTC); ``monotonic`` measures durations; ``sleep`` and ``fraction`` serve
    the back-off. ``board`` holds retained messages that are published beside the picks, ``about`` says what the
    daemon's own one tells beside ``online``. Raises ConfigError for a CA file or a topic root that cannot be used.
    """

    def __init__(
        self,
        broker: Broker,
        source: Source,
        outbox: Outbox | None = None,
        *,
        topic_root: str = ROOT,
        delivery: Delivery | None = None,
        board: RetainedBoard | None = None,
        about: Callable[[], DaemonFacts] = DaemonFacts,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        broker.tls_context()
        self.counters = PublisherCounters()
        self.outbox: Outbox = MemoryOutbox() if outbox is None else outbox
        self._broker, self._source, self._root = broker, source, checked_root(topic_root)
        self._delivery = delivery or Delivery()
        self._about = about
        self._clock_ns, self._monotonic, self._sleep = clock_ns, monotonic, sleep
        self._backoff = Backoff(fraction=fraction)
        self._wake = asyncio.Event()
        self.board = RetainedBoard() if board is None else board
        self.board.on_due = self._wake.set
        self.on_acknowledged: Callable[[float], object] = lambda waited_s: None
        """Called with the time from hand-over to PUBACK (s) of each pick that the broker takes."""
        self._emptied = asyncio.Event()
        self._connected_at_s: float | None = None
        self._absence_told = False
        if self.outbox.ended_ns is not None:
            self._reopen(self.outbox.ended_ns)

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._connected_at_s is not None

    @property
    def status_topic(self) -> str:
        """Topic of the daemon's own status."""
        return status_topic(self._broker.client_id, self._root)

    def station_topic(self, station: StationKey) -> str:
        """Topic of a station's status."""
        return station_topic(self._broker.client_id, station, self._root)

    def put(self, report: PickReport) -> str | None:
        """Hand a message over without waiting; returns the pick's id, or None where none can be made (counted)."""
        now_ns = self._clock_ns()
        try:
            pick_id, topic = report.id, pick_topic(report.nslc, report.pick.phase, self._root)
            payload = build_message(report, self._source, now_ns).encode()
        except (ValueError, OverflowError, OSError) as error:  # the latter two: instants beyond the calendar
            self.counters.unusable += 1
            _log.warning("pick cannot be published", station=str(report.station), pick=report.pick, reason=str(error))
            return None
        if self.outbox.put(report.key, topic, payload, now_ns):
            self.counters.put += 1
        else:
            self.counters.repeated += 1
        self._wake.set()
        return pick_id

    async def drain(self, timeout_s: float) -> int:
        """Wait until every pick is acknowledged, ``timeout_s`` at most; returns how many are not.

        ``run`` must still be running: cancel it afterwards.
        """
        self._emptied.clear()
        if len(self.outbox):
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
        if held := len(self.outbox):
            _log.error(
                "picks were not acknowledged in time", held=held, waited_s=timeout_s, broker=self._broker.address
            )
        return held

    async def run(self) -> None:
        """Connect, publish and reconnect until cancelled; the outbox is kept meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self.outbox.run(self._wake.set), name="outbox")
            try:
                await self._publish()
            finally:
                keeping.cancel()

    async def _publish(self) -> None:
        while True:
            try:
                await self._connect_and_serve()
            except aiomqtt.MqttError as error:
                delay_s = self._next_delay_s()
                self._went_away(error, delay_s)
                await self._sleep(delay_s)

    async def _connect_and_serve(self) -> None:
        status = self.status_topic
        offline = daemon_status("offline", self._about(), self._clock_ns())
        will = aiomqtt.Will(status, offline, qos=1, retain=True)
        client = BrokerClient(self._broker, window=self._delivery.window, will=will)
        await client.connect()
        try:
            session = Session(
                client, self.outbox, self.counters, self._delivery, self._wake, self._acknowledged, self._monotonic,
                board=self.board, clock_ns=self._clock_ns,
            )  # fmt: skip
            await session.greet(status, daemon_status("online", self._about(), self._clock_ns()))
            self._came_back()
            await session.serve()
        except asyncio.CancelledError:
            self._connected_at_s = None
            with suppress(aiomqtt.MqttError):
                offline = daemon_status("offline", self._about(), self._clock_ns())
                client.send(status, offline, retain=True)
            raise
        finally:
            await client.leave()

    def _next_delay_s(self) -> float:
        if self._connected_at_s is not None and self._monotonic() - self._connected_at_s >= STEADY_S:
            self._backoff.reset()
        return self._backoff.delay_s()

    def _acknowledged(self, entry: Entry) -> None:
        now_ns = self._clock_ns()
        self.outbox.acknowledge(entry.id, now_ns)
        self.on_acknowledged((now_ns - entry.put_ns) / 1e9)
        if not len(self.outbox):
            self._emptied.set()

    def _came_back(self) -> None:
        self._connected_at_s, self._absence_told = self._monotonic(), False
        self.counters.connections += 1
        _log.info(
            "broker connected", broker=self._broker.address, protocol=self._broker.protocol, held=len(self.outbox)
        )

    def _reopen(self, lost_ns: int) -> None:
        """What was acknowledged shortly before a connection was lost may be lost with the broker: send it again."""
        self.counters.reopened += self.outbox.reopen(lost_ns - round(self._delivery.resend_s * 1e9))

    def _went_away(self, error: aiomqtt.MqttError, delay_s: float) -> None:
        """One line for a change of state; the attempts that fail after it are only counted."""
        self.counters.failures += 1
        if self.connected:
            self._connected_at_s = None
            self._reopen(self._clock_ns())  # now rather than at the reconnect, which the daemon may not live to see
        if not self._absence_told:
            self._absence_told = True
            _log.warning(
                "broker absent: holding picks, trying again",
                broker=self._broker.address,
                reason=str(error),
                held=len(self.outbox),
                retry_s=round(delay_s, 1),
            )
