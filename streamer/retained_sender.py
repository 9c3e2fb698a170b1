"""Sends what a board of retained messages holds over one connection, beside the picks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from paho.mqtt.reasoncodes import ReasonCode

from streamer.broker import REFUSED, BrokerClient
from streamer.retained import RetainedBoard, RetainedMessage

_log = structlog.get_logger(__name__)

SHARE = 4
"""At most one in so many messages in flight is a retained one: the window is for picks."""


class RetainedSender:
    """Retained messages of one connection; ``landed`` is called when one is acknowledged or refused."""

    def __init__(
        self, client: BrokerClient, board: RetainedBoard, timeout_s: float, landed: Callable[[], object]
    ) -> None:
        self._client, self._board, self._timeout_s, self._landed = client, board, timeout_s, landed
        self._deadlines_s: dict[asyncio.Future[ReasonCode], float] = {}
        """When the PUBACK of each message in flight is overdue (monotonic clock), the first to come due first."""
        self._refusal_told = False
        board.renew()

    def __len__(self) -> int:
        """Messages in flight."""
        return len(self._deadlines_s)

    def fill(self, now_s: float, room: int) -> None:
        """Send what may be sent now, where the window has ``room``."""
        for message in self._board.take(now_s, min(room, self._room())):
            acknowledgement = self._client.send(message.topic, message.payload, retain=True, expiry_s=message.expiry_s)
            self._deadlines_s[acknowledgement] = now_s + self._timeout_s
            acknowledgement.add_done_callback(partial(self._done, message))

    def wait_s(self, now_s: float) -> float | None:
        """When to look again unless something happens before, in seconds; None for never."""
        deadline_s = self.deadline_s
        times_s = [] if deadline_s is None else [deadline_s - now_s]
        if self._room() and (pause_s := self._board.wait_s(now_s)) is not None:
            times_s.append(pause_s)
        return min(times_s, default=None)

    @property
    def deadline_s(self) -> float | None:
        """When the first PUBACK is overdue."""
        return next(iter(self._deadlines_s.values()), None)

    def cancel(self) -> None:
        """The connection has ended: nothing more is waited for."""
        for acknowledgement in list(self._deadlines_s):
            acknowledgement.cancel()

    def _room(self) -> int:
        return max(0, max(1, self._client.window // SHARE) - len(self._deadlines_s))

    def _done(self, message: RetainedMessage, acknowledgement: asyncio.Future[ReasonCode]) -> None:
        self._deadlines_s.pop(acknowledgement, None)
        if acknowledgement.cancelled():
            return
        self._landed()
        if (reason := acknowledgement.result()).value < REFUSED:
            self._board.acknowledged(message)
            return
        self._board.counts["refused"] += 1
        if not self._refusal_told:
            self._refusal_told = True
            _log.warning(
                "broker refuses the status of stations; see its access rules and quotas",
                topic=message.topic,
                reason=f"{reason} (0x{reason.value:02x})",
            )
