"""The outbox: what has to leave the daemon and has not been acknowledged by the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

GIVEN_UP = ("entries", "bytes", "age")
"""Limits that cost an entry when they are reached."""
FAILURES = ("write", "stall", "damaged")
"""What may go wrong with the disk: a transaction failed, took too long, or the file was damaged or gone."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One message that waits for its PUBACK. ``put_ns`` is int ns UTC.

    An outbox compares ids and reads nothing in them: one id is one message, sent until it is acknowledged once.
    """

    id: str
    topic: str
    payload: bytes
    put_ns: int

    @property
    def size(self) -> int:
        """Bytes of topic and payload."""
        return len(self.topic) + len(self.payload)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an outbox holds and remembers. A message is about 1.5 kB, a known id about 300 bytes of memory."""

    max_entries: int = 50_000
    """Entries that wait; beyond it the oldest are given up."""
    max_bytes: int = 100_000_000
    """The same in bytes of topics and payloads."""
    max_age_s: float = 72 * 3600.0
    """An entry that has waited so long is given up."""
    keep_acknowledged_s: float = 24 * 3600.0
    """So long the id of an acknowledged entry is known, and is not taken again."""
    max_acknowledged: int = 100_000
    """Acknowledged ids known at most; beyond it the oldest are forgotten."""
    resend_s: float = 120.0
    """So long (counted back from the last PUBACK) acknowledged entries are kept whole, for ``reopen``."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"{name} must be above 0, not {value}")


class Outbox(Protocol):
    """Holds messages until they are acknowledged; an entry leaves it in no other way, save where a limit is reached.

    A broker may acknowledge what it then loses in a crash, before it is stored or delivered: ``reopen`` is the answer.
    """

    given_up: Counter[str]
    """Entries given up, by the limit that was reached: GIVEN_UP."""
    failures: Counter[str]
    """What went wrong with the disk: FAILURES."""
    ended_ns: int | None
    """When the process before this one was last known to use the outbox, int ns UTC; None where there was none."""

    @property
    def on_disk(self) -> bool:
        """Whether what is put survives the end of the process."""
        ...

    @property
    def unwritten(self) -> int:
        """Entries not acknowledged that would be lost if the process ended now."""
        ...

    @property
    def held_bytes(self) -> int:
        """Bytes of the entries not acknowledged."""
        ...

    @property
    def oldest_ns(self) -> int | None:
        """When the first of the entries not acknowledged was put."""
        ...

    def put(self, id: str, topic: str, payload: bytes, now_ns: int) -> bool:
        """Hold a message; False where one of this id is held or was acknowledged: that one stays as it is."""
        ...

    def pending(self) -> Iterator[Entry]:
        """Entries that may be sent, oldest first; the outbox must not be changed meanwhile."""
        ...

    def acknowledge(self, id: str, now_ns: int) -> None:
        """The broker has it: no longer pending. An unknown id is passed over."""
        ...

    def reopen(self, since_ns: int) -> int:
        """Make pending again, ahead of the others, what was acknowledged at ``since_ns`` or later; returns how many."""
        ...

    async def run(self, ready: Callable[[], None]) -> None:
        """Keep the outbox until cancelled; ``ready`` is called when entries put earlier have become pending."""
        ...

    def close(self) -> None:
        """Write what is not yet written and let go of what is open; waits for the disk, so no event loop may run."""
        ...

    def __len__(self) -> int:
        """Number of entries not acknowledged."""
        ...
