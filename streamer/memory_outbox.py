"""The outbox in memory: its limits, and what it remembers of what was acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeVar

import structlog

from streamer.outbox import Entry, Limits
from streamer.rate_limit import RateLimit

TICK_S = 30.0
"""So often the outbox looks for what has become too old."""
MOST_AT_ONCE = 500
"""Entries given up or forgotten in one go: the event loop is not held, and a leap of the clock does not lose all."""
SAY_EVERY_S = 60.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class MemoryOutbox:
    """An outbox that lives as long as the process. ``clock_ns`` is the daemon's clock, int ns UTC."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.given_up: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.ended_ns: int | None = None
        self._limits, self._clock_ns = limits or Limits(), clock_ns
        # Ordered dictionaries, because a plain one is slow to find its first key after many were taken from its front.
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._late: OrderedDict[str, tuple[int, Entry]] = OrderedDict()
        self._known: OrderedDict[str, int] = OrderedDict()  # id -> when it was acknowledged
        self._say = RateLimit(SAY_EVERY_S, monotonic)
        self._overflowing = False

    @property
    def on_disk(self) -> bool:
        """See Outbox."""
        return False

    @property
    def unwritten(self) -> int:
        """See Outbox: all of them."""
        return len(self._entries)

    @property
    def held_bytes(self) -> int:
        """See Outbox."""
        return self._bytes

    @property
    def oldest_ns(self) -> int | None:
        """See Outbox."""
        return _first(self._entries).put_ns if self._entries else None

    def put(self, id: str, topic: str, payload: bytes, now_ns: int) -> bool:
        """See Outbox."""
        if id in self._entries or id in self._known:
            return False
        entry = Entry(id=id, topic=topic, payload=payload, put_ns=now_ns)
        self._make_room(1, entry.size)
        self._entries[id] = entry
        self._bytes += entry.size
        self._changed(id)
        return True

    def pending(self) -> Iterator[Entry]:
        """See Outbox."""
        return iter(self._entries.values())

    def acknowledge(self, id: str, now_ns: int) -> None:
        """See Outbox."""
        entry = self._entries.pop(id, None)
        if entry is None:
            return
        self._bytes -= entry.size
        self._late[id], self._known[id] = (now_ns, entry), now_ns
        self._forget(now_ns)
        self._changed(id)
        if self._overflowing:
            self._overflowing = False
            _log.info("outbox has room again", held=len(self._entries), given_up=dict(self.given_up))

    def reopen(self, since_ns: int) -> int:
        """See Outbox; no more than there is room for, the youngest first."""
        taken = 0
        for id, (acknowledged_ns, entry) in reversed(list(self._late.items())):
            if acknowledged_ns < since_ns:
                continue
            if self._lacks(1, entry.size):
                break
            del self._late[id], self._known[id]
            self._entries[id] = entry
            self._entries.move_to_end(id, last=False)
            self._bytes += entry.size
            self._changed(id)
            taken += 1
        return taken

    def expire(self, now_ns: int) -> None:
        """Give up what has waited too long, and forget what was acknowledged long ago, some of it in each call."""
        too_old_ns = now_ns - round(self._limits.max_age_s * 1e9)
        for _ in range(MOST_AT_ONCE):
            if (oldest_ns := self.oldest_ns) is None or oldest_ns >= too_old_ns:
                break
            self._give_up("age")
        self._forget(now_ns)

    async def run(self, ready: Callable[[], None]) -> None:
        """See Outbox."""
        while True:
            self.expire(self._clock_ns())
            await asyncio.sleep(TICK_S)

    def close(self) -> None:
        """See Outbox; nothing is open."""

    def __len__(self) -> int:
        return len(self._entries)

    def _changed(self, id: str) -> None:
        """The state of ``id`` is another than before: held, acknowledged and kept whole, only known, or gone."""

    def _lacks(self, entries: int, size: int) -> str | None:
        """The limit that so much more would go beyond."""
        if len(self._entries) + entries > self._limits.max_entries:
            return "entries"
        return "bytes" if self._bytes + size > self._limits.max_bytes else None

    def _make_room(self, entries: int, size: int) -> None:
        while self._entries and (limit := self._lacks(entries, size)) is not None:
            self._overflowing = True
            self._give_up(limit)

    def _give_up(self, reason: str) -> None:
        id, entry = self._entries.popitem(last=False)
        self._bytes -= entry.size
        self.given_up[reason] += 1
        self._changed(id)
        if (held_back := self._say.admit(reason)) is not None:
            _log.error(
                "outbox gives up its oldest picks: they are lost",
                limit=reason,
                first_lost=id,
                lost_since_last_line=held_back + 1,
                held=len(self._entries),
            )

    def _forget(self, now_ns: int) -> None:
        whole_ns, known_ns = (round(s * 1e9) for s in (self._limits.resend_s, self._limits.keep_acknowledged_s))
        most_whole, most_known = self._limits.max_entries, self._limits.max_acknowledged
        while self._late and (len(self._late) > most_whole or _first(self._late)[0] < now_ns - whole_ns):
            id, _ = self._late.popitem(last=False)
            self._changed(id)
        for _ in range(MOST_AT_ONCE):
            if not self._known or (len(self._known) <= most_known and _first(self._known) >= now_ns - known_ns):
                return
            id, _ = self._known.popitem(last=False)
            self._late.pop(id, None)
            self._changed(id)


def _first(values: OrderedDict[str, _T]) -> _T:
    return next(iter(values.values()))
