"""The durable outbox: what the memory holds is written to a SQLite file, and nothing is sent before it is there.

The memory leads and the file follows. All is read once, at the start; from then on the event loop only touches the
memory and never waits for the disk. Each change marks its id; the task ``run`` takes the marked ids, writes their
present state in one transaction in a thread, and takes what was marked meanwhile in the next (group commit): a slow
disk makes transactions larger, not the daemon slower. An entry becomes pending when its transaction is committed.

Because a transaction writes states rather than steps, one that failed is simply tried again. While it fails (disk full,
I/O error) or hangs (a network file system that is gone) entries are published from memory, within the same limits, and
the log and ``failures`` say so; when the disk takes them again all of them are written. A file that turns out to be
damaged, or is gone, is written anew from the memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path

import structlog

from streamer.memory_outbox import TICK_S, MemoryOutbox
from streamer.outbox import Entry, Limits
from streamer.outbox_file import Change, Kept, OutboxFile, is_damage

MOST_CHANGES = 500
"""Ids in one transaction."""
RETRY_S = 5.0
"""From a transaction that failed to the next attempt."""
STALL_S = 5.0
"""A transaction that takes longer is a failure of the disk, though it may still succeed."""

_log = structlog.get_logger(__name__)


class SqliteOutbox(MemoryOutbox):
    """An outbox in the file ``path``. Raises ConfigError where it cannot be used or another process uses it."""

    def __init__(
        self,
        path: Path,
        limits: Limits | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
        stall_s: float = STALL_S,
    ) -> None:
        super().__init__(limits, clock_ns=clock_ns, monotonic=monotonic)
        self._retry_s, self._stall_s = retry_s, stall_s
        self._marked: dict[str, None] = {}  # to be written, in the order of the changes
        self._in_flight: dict[str, None] = {}  # being written
        self._unwritten: set[str] = set()  # put, and in no transaction that was committed
        self._awake = asyncio.Event()
        self._failing = False
        # One thread for the life of the outbox: what a cancelled ``run`` left in it is waited for in ``close`` alone.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._file = OutboxFile(path)
        self._restore(self._file.open())
        self.failures["damaged"] = self._file.damaged

    @property
    def on_disk(self) -> bool:
        """See Outbox: false while writing fails."""
        return not self._failing

    @property
    def unwritten(self) -> int:
        """See Outbox."""
        return len(self._entries.keys() & self._unwritten)

    def put(self, id: str, topic: str, payload: bytes, now_ns: int) -> bool:
        """See Outbox; the entry becomes pending when it is durable."""
        if not super().put(id, topic, payload, now_ns):
            return False
        self._unwritten.add(id)
        return True

    def pending(self) -> Iterator[Entry]:
        """See Outbox: the durable ones, or all while the disk takes nothing."""
        if self._failing or not self._unwritten:
            return super().pending()
        return (entry for entry in super().pending() if entry.id not in self._unwritten)

    async def run(self, ready: Callable[[], None]) -> None:
        """See Outbox: writes what changes; what changed last is left to ``close``."""
        next_tick_s = 0.0
        while True:
            now_s = time.monotonic()
            if tick := now_s >= next_tick_s:
                next_tick_s = now_s + TICK_S
                self.expire(self._clock_ns())
            if tick or self._marked or self._failing:
                written = await self._write(ready)
                ready()
                if not written:
                    await asyncio.sleep(self._retry_s)
            if not self._marked and not self._failing:
                self._awake.clear()
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._awake.wait()

    def close(self) -> None:
        """See Outbox: writes what is not yet written, and closes the file. It waits for the disk; not for a loop."""
        self._executor.shutdown()
        self._write_last()
        with suppress(sqlite3.Error):
            self._file.close()

    def _restore(self, kept: Kept) -> None:
        for id, topic, payload, put_ns, acknowledged_ns in kept.pending + kept.late:
            entry = Entry(id=id, topic=topic, payload=payload, put_ns=put_ns)
            if acknowledged_ns is None:
                self._entries[id] = entry
                self._bytes += entry.size
            else:
                self._late[id] = acknowledged_ns, entry
        self._known.update(kept.known)
        self.ended_ns = kept.ended_ns
        self._make_room(0, 0)  # the limits may be narrower than those of the process before

    def _changed(self, id: str) -> None:
        if id in self._unwritten and id not in self._in_flight and id not in self._entries and id not in self._known:
            # Never on the disk and gone already: while the disk is full, marks must not add up for ever.
            self._unwritten.discard(id)
            self._marked.pop(id, None)
            return
        self._marked[id] = None
        self._awake.set()

    def _take(self) -> list[Change]:
        """The present state of the ids marked first; they are in flight then."""
        self._in_flight = dict.fromkeys(islice(self._marked, MOST_CHANGES))
        for id in self._in_flight:
            del self._marked[id]
        return [self._change(id) for id in self._in_flight]

    def _change(self, id: str) -> Change:
        entry, acknowledged_ns = self._entries.get(id), None
        if entry is None:
            acknowledged_ns = self._known.get(id)
            if acknowledged_ns is None or id not in self._late:
                return id, acknowledged_ns
            entry = self._late[id][1]
        return id, (id, entry.topic, entry.payload, entry.put_ns, acknowledged_ns)

    async def _write(self, ready: Callable[[], None]) -> bool:
        """One transaction, and whether it was committed; where not, what it was to write is marked again."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._executor, self._file.write, self._take(), self._clock_ns())
        try:
            done, _ = await asyncio.wait({writing}, timeout=self._stall_s)
            if not done:
                self._fails("stall", f"no answer from the disk within {self._stall_s:g} s")
                ready()
            await writing
        except (sqlite3.Error, OSError) as error:
            self._take_back()
            self._fails("write", str(error))
            if is_damage(error):
                self._mark_all()
                await loop.run_in_executor(self._executor, self._set_aside, str(error))
            return False
        except BaseException:
            writing.cancel()
            self._take_back()
            raise
        self._written()
        return True

    def _write_last(self) -> None:
        """All that is marked, at once, on this thread; for the end of the process."""
        renewed = False
        while self._marked:
            try:
                self._file.write(self._take(), self._clock_ns())
            except (sqlite3.Error, OSError) as error:
                self._take_back()
                self._fails("write", str(error))
                if renewed or not is_damage(error):
                    return
                renewed = True
                self._mark_all()
                self._set_aside(str(error))
            else:
                self._written()

    def _take_back(self) -> None:
        self._marked = self._in_flight | self._marked
        self._in_flight = {}

    def _written(self) -> None:
        self._unwritten.difference_update(id for id in self._in_flight if id not in self._marked)
        self._in_flight = {}
        if self._failing and len(self._marked) < MOST_CHANGES:  # the rest is in the next transaction
            self._failing = False
            _log.info("outbox is on the disk again", file=str(self._file.path), held=len(self))

    def _fails(self, kind: str, reason: str) -> None:
        self._failing = True
        self.failures[kind] += 1
        if (held_back := self._say.admit("disk")) is not None:
            _log.error(
                "outbox cannot be written: picks are held in memory alone and would be lost with the daemon",
                file=str(self._file.path),
                reason=reason,
                held=len(self),
                failures_since_last_line=held_back + 1,
                retry_s=self._retry_s,
            )

    def _mark_all(self) -> None:
        """For a file to be written anew."""
        self._marked |= dict.fromkeys([*self._entries, *self._known])
        self._unwritten.update(self._entries)

    def _set_aside(self, reason: str) -> None:
        try:
            self._file.set_aside(reason)
        except (sqlite3.Error, OSError) as error:
            _log.error("damaged outbox file cannot be set aside", file=str(self._file.path), reason=str(error))
        self.failures["damaged"] = self._file.damaged
