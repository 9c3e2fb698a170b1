"""Retained messages on their way to the broker: of each topic the newest alone, so that they cannot pile up.

They tell a state, not what happened: one that is overtaken before it was sent need not be sent, and none need outlive
the process. What goes to the broker is bounded by a rate, and lets picks go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

BURST_S = 1.0
"""What the rate allows in this time may go at once."""
ROUNDING = 1e-6
"""So little missing of a token is an error of arithmetic, and not to be waited for."""


@dataclass(frozen=True, kw_only=True)
class RetainedMessage:
    """A state to be kept at ``topic``; an empty payload clears it. ``expiry_s`` holds with MQTT 5 alone."""

    topic: str
    payload: bytes
    expiry_s: int | None = None


class RetainedBoard:
    """The present state of each topic, and which of them the broker has not been sent. Times: monotonic clock, s."""

    def __init__(self, most_per_s: float = 20.0) -> None:
        self.counts: Counter[str] = Counter()
        """Messages ``sent``, ``acknowledged``, ``refused``, ``overtaken`` before they were sent, and ``unusable``."""
        self.on_due: Callable[[], object] = lambda: None
        """Called when something has become due; whoever sends sets it."""
        self._rate = most_per_s
        self._most = max(1.0, most_per_s * BURST_S)
        self._tokens, self._refilled_s = self._most, 0.0
        self._states: dict[str, RetainedMessage] = {}
        self._due: dict[str, None] = {}

    def __len__(self) -> int:
        """Topics that have a state."""
        return len(self._states)

    def put(self, message: RetainedMessage) -> None:
        """The state of a topic from now on; nothing happens where it is the same as before."""
        if self._states.get(message.topic) == message:
            return
        self.counts["overtaken"] += message.topic in self._due
        self._states[message.topic] = message
        self._due.setdefault(message.topic)
        self.on_due()

    def clear(self, topic: str) -> None:
        """Take the state of ``topic`` away, here and at the broker."""
        self.put(RetainedMessage(topic=topic, payload=b""))

    def renew(self) -> None:
        """A connection was made: the broker may have lost everything, so all is due."""
        self._due = dict.fromkeys(self._states)

    def take(self, now_s: float, room: int) -> list[RetainedMessage]:
        """What to send now, ``room`` messages at most, those first that have waited longest."""
        self._refill(now_s)
        count = max(0, min(room, len(self._due), int(self._tokens + ROUNDING)))
        topics = list(self._due)[:count] if count else []
        self._tokens -= count
        self.counts["sent"] += count
        for topic in topics:
            del self._due[topic]
        return [self._states[topic] for topic in topics]

    def wait_s(self, now_s: float) -> float | None:
        """In how many seconds the rate allows the next, None where nothing is due."""
        self._refill(now_s)
        missing = 1.0 - self._tokens
        return (missing / self._rate if missing > ROUNDING else 0.0) if self._due else None

    def acknowledged(self, message: RetainedMessage) -> None:
        """The broker has taken it."""
        self.counts["acknowledged"] += 1
        if not message.payload and self._states.get(message.topic) == message:
            self._states.pop(message.topic)
            self._due.pop(message.topic, None)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(self._most, self._tokens + max(0.0, now_s - self._refilled_s) * self._rate)
        self._refilled_s = now_s
