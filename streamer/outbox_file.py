"""The file of the durable outbox: one SQLite table, written in transactions by one thread and read only when opened.

What a committed transaction survives (SQLite's documentation, *Write-Ahead Logging* and *PRAGMA synchronous*):

* the end of the process by kill -9: always. The pages are in the operating system's hands with the commit, whatever
  ``synchronous`` says, and the next process finds them in the write-ahead log.
* a power cut: only with ``synchronous=FULL``, which syncs the log to the disk in each commit. With ``NORMAL`` it is
  synced at checkpoints alone, and the last commits before the cut may be missing (the file is sound all the same).

A pick must be durable before it is published, so it is FULL. The price, one sync a commit, is paid in a thread and by
all picks together that came meanwhile.

``locking_mode=EXCLUSIVE`` holds the lock as long as the file is open: a second daemon on it is refused, the kernel
takes the lock back from a killed process, and the write-ahead log needs no shared memory beside the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from picker.errors import ConfigError

APPLICATION_ID = 0x4F4E5354
"""Says, in the header of the file, that it is an outbox of Onset."""
VERSION = 1
LOCK_WAIT_S = 1.0
"""The process before this one may still be at its end."""
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
MOST_ASIDE = 3
"""Damaged files kept: a failing disk must not fill up with them."""

# A number of its own as the key, so that rows are appended: ids are random, and keyed by them each message would be
# written into another page of a large file. Ids whose message will not be sent again have a table to themselves: a row
# made shorter gives no room back, one that is deleted does.
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS entries (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        topic TEXT NOT NULL,
        payload BLOB NOT NULL,
        put_ns INTEGER NOT NULL,
        acknowledged_ns INTEGER
    )""",
    "CREATE TABLE IF NOT EXISTS known (id TEXT PRIMARY KEY, acknowledged_ns INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS alive (one INTEGER PRIMARY KEY CHECK (one = 1), at_ns INTEGER NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
PUT = """INSERT INTO entries (id, topic, payload, put_ns, acknowledged_ns) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET topic = excluded.topic, payload = excluded.payload, put_ns = excluded.put_ns,
    acknowledged_ns = excluded.acknowledged_ns"""
ALIVE = "INSERT INTO alive VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET at_ns = excluded.at_ns"

Row = tuple[str, str, bytes, int, int | None]
"""id, topic, payload, when put, when acknowledged or None."""
Change = tuple[str, Row | int | None]
"""An id and what is to be kept of it: the message, only when it was acknowledged, or nothing."""

_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Kept:
    """What a file held when it was opened."""

    pending: list[Row] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)
    """Acknowledged, and still whole, in the order of the acknowledgements."""
    known: list[tuple[str, int]] = field(default_factory=list)
    """All acknowledged ids and when, in that order."""
    ended_ns: int | None = None


class OutboxFile:
    """The open file. It may move to another thread, but only one may use it at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Files set aside because they could not be read."""
        self._connection: sqlite3.Connection | None = None
        self._prepared = False
        self._identity: tuple[int, int] | None = None

    def open(self) -> Kept:
        """Open the file, or make it, and read what it holds; a damaged one is set aside.

        Raises ConfigError for a file that cannot be used, or is in use by another process. A full disk is no such
        error: ``write`` will say it.
        """
        try:
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.close()
                self._refuse_text()
                self.set_aside(str(error))
                return self._open()
        except sqlite3.Error as error:
            self.close()
            if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ConfigError(
                    f"{self.path}: the outbox is in use by another process; stop the other daemon, or give this one "
                    "an outbox.path of its own"
                ) from error
            raise ConfigError(
                f"{self.path}: cannot be used as the outbox ({error}); mend outbox.path or the rights of its folder"
            ) from error
        except OSError as error:
            self.close()
            raise ConfigError(f"{self.path}: damaged, and cannot be set aside ({error}); move it away") from error
        except ConfigError:
            self.close()
            raise

    def write(self, changes: Sequence[Change], now_ns: int) -> None:
        """Make ``changes`` durable, all or none, and note that the outbox is in use; raises sqlite3.Error."""
        connection = self._connected()
        self._prepare(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            whole = [state for _, state in changes if isinstance(state, tuple)]
            known = [(id, state) for id, state in changes if isinstance(state, int)]
            connection.executemany("DELETE FROM known WHERE id = ?", [(id,) for id, _ in changes])
            connection.executemany(
                "DELETE FROM entries WHERE id = ?", [(id,) for id, state in changes if not isinstance(state, tuple)]
            )
            connection.executemany(PUT, whole)
            connection.executemany("INSERT INTO known VALUES (?, ?)", known)
            connection.execute(ALIVE, (now_ns,))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if _code(error) == sqlite3.SQLITE_IOERR:
                self.close()  # a descriptor may be stale for ever: open the file again at the next attempt
            raise

    def set_aside(self, reason: str) -> None:
        """Rename a damaged file, its log with it, and start another at the next use; raises OSError."""
        self.close()
        self._identity = None
        if not self.path.exists():
            self.damaged += 1
            _log.error("outbox file is gone: a new one is begun", file=str(self.path))
            return
        stem = aside = self.path.with_name(f"{self.path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        number = 1
        while aside.exists():
            number += 1
            aside = stem.with_name(f"{stem.name}-{number}")
        # The log first: beside a new file it would be taken for that file's.
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists():
            log.rename(aside.with_name(aside.name + "-wal"))
        self.path.rename(aside)
        self.damaged += 1
        _log.error("outbox file is damaged: set aside, a new one is begun", kept_as=str(aside), reason=reason)
        kept = [path for path in self.path.parent.glob(f"{self.path.name}.damaged-*") if not path.match("*-wal")]
        with suppress(OSError):
            for old in sorted(kept, key=lambda path: path.stat().st_ctime_ns)[:-MOST_ASIDE]:
                old.with_name(old.name + "-wal").unlink(missing_ok=True)
                old.unlink()

    def close(self) -> None:
        """Close the file; ``write`` opens it again."""
        connection, self._connection, self._prepared = self._connection, None, False
        if connection is not None:
            connection.close()

    def _connected(self) -> sqlite3.Connection:
        """The connection, to the same file as ever; raises DatabaseError where another or none is at its place.

        SQLite would go on writing into a file that was deleted, where nothing survives the end of the process.
        """
        if self._identity not in (None, self._now_there()):
            raise _damage("the file was deleted or replaced")
        if self._connection is None:
            self._connection = sqlite3.connect(
                self.path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA journal_size_limit = 16000000")
            self._identity = self._now_there()
        return self._connection

    def _now_there(self) -> tuple[int, int] | None:
        """Device and number of the file at the path."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _refuse_text(self) -> None:
        """Raises ConfigError for a file that begins with text: it never was an outbox, and is not ours to move away."""
        with self.path.open("rb") as file:
            head = file.read(16)
        if all(8 < byte < 127 for byte in head):
            raise ConfigError(f"{self.path}: this is no outbox but a file of text; name another file in outbox.path")

    def _open(self) -> Kept:
        connection = self._connected()
        kept = Kept()
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._check(connection)
            kept = _read(connection)
        try:
            self._prepare(connection)
        except sqlite3.Error as error:
            if _code(error) != sqlite3.SQLITE_FULL:
                raise
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return kept

    def _check(self, connection: sqlite3.Connection) -> None:
        """Raises ConfigError for another program's file or another version's, DatabaseError for a damaged one."""
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application != APPLICATION_ID or version > VERSION:
            whose = "of another program" if application != APPLICATION_ID else "of a later Onset"
            raise ConfigError(f"{self.path}: this database is {whose}; name another file in outbox.path")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _damage(found.replace("\n", " "))

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Write-ahead log and tables; a transaction that changes something, so that a read-only file is found out."""
        if self._prepared:
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._prepared = True


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the content of the file makes no sense."""
    return isinstance(error, sqlite3.Error) and _code(error) in DAMAGED


def _damage(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 where the error does not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _read(connection: sqlite3.Connection) -> Kept:
    def select(text: str) -> list[Any]:
        return connection.execute(text).fetchall()

    columns = "SELECT id, topic, payload, put_ns, acknowledged_ns FROM entries WHERE acknowledged_ns"
    late = "SELECT id, acknowledged_ns FROM entries WHERE acknowledged_ns IS NOT NULL"
    known = select(f"SELECT id, acknowledged_ns FROM known UNION ALL {late} ORDER BY acknowledged_ns")
    alive = [at_ns for (at_ns,) in select("SELECT at_ns FROM alive")]
    return Kept(
        pending=select(f"{columns} IS NULL ORDER BY number"),
        late=select(f"{columns} IS NOT NULL ORDER BY acknowledged_ns"),
        known=known,
        # The last PUBACK counts too, should the clock have been set back since.
        ended_ns=max(alive + [acknowledged_ns for _, acknowledged_ns in known[-1:]], default=None),
    )
