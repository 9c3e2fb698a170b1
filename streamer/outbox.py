"""The outbox: what has to leave the daemon and has not been acknowledged by the broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One message that waits for its PUBACK. ``put_ns`` is int ns UTC."""

    id: str
    topic: str
    payload: bytes
    put_ns: int


class Outbox(Protocol):
    """Holds messages until they are acknowledged; an entry leaves it in no other way, save where it is full.

    A broker may acknowledge what it then loses in a crash, before it is stored or delivered: ``reopen`` is the answer.
    """

    dropped: int
    """Entries given up because the outbox was full."""

    def put(self, id: str, topic: str, payload: bytes, now_ns: int) -> bool:
        """Hold a message; False where one of this id is held or was lately acknowledged: that one stays as it is."""
        ...

    def pending(self) -> Iterator[Entry]:
        """Entries not acknowledged, oldest first; the outbox must not be changed meanwhile."""
        ...

    def acknowledge(self, id: str, now_ns: int) -> None:
        """The broker has it: no longer pending. An unknown id is passed over."""
        ...

    def reopen(self, since_ns: int) -> int:
        """Make pending again, ahead of the others, what was acknowledged at ``since_ns`` or later; returns how many."""
        ...

    def __len__(self) -> int:
        """Number of entries not acknowledged."""
        ...


class MemoryOutbox:
    """An outbox that lives as long as the process, bounded by ``capacity`` entries: the oldest goes first.

    It remembers as many acknowledged entries. A message is about 1.5 kB, so the default takes about 30 MB at most.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.dropped = 0
        self._capacity = capacity
        self._entries: dict[str, Entry] = {}
        self._acknowledged: dict[str, tuple[int, Entry]] = {}
        self._overflowing = False

    def put(self, id: str, topic: str, payload: bytes, now_ns: int) -> bool:
        """See Outbox."""
        if id in self._entries or id in self._acknowledged:
            return False
        if len(self._entries) >= self._capacity:
            self._drop_oldest()
        self._entries[id] = Entry(id=id, topic=topic, payload=payload, put_ns=now_ns)
        return True

    def pending(self) -> Iterator[Entry]:
        """See Outbox."""
        return iter(self._entries.values())

    def acknowledge(self, id: str, now_ns: int) -> None:
        """See Outbox."""
        entry = self._entries.pop(id, None)
        if entry is None:
            return
        self._acknowledged[id] = (now_ns, entry)
        if len(self._acknowledged) > self._capacity:
            del self._acknowledged[next(iter(self._acknowledged))]
        if self._overflowing:
            self._overflowing = False
            _log.info("outbox has room again", held=len(self._entries), dropped=self.dropped)

    def reopen(self, since_ns: int) -> int:
        """See Outbox; no more than there is room for, the youngest first."""
        late = [entry for acknowledged_ns, entry in self._acknowledged.values() if acknowledged_ns >= since_ns]
        late = late[max(0, len(late) - (self._capacity - len(self._entries))) :]
        for entry in late:
            del self._acknowledged[entry.id]
        self._entries = {entry.id: entry for entry in late} | self._entries
        return len(late)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._entries))
        del self._entries[oldest]
        self.dropped += 1
        if not self._overflowing:
            self._overflowing = True
            _log.error("outbox is full: the oldest picks are lost", capacity=self._capacity, first_lost=oldest)
