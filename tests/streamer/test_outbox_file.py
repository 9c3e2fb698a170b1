"""The outbox's file when it is opened: damaged, somebody else's, in use."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from daemon_kit import write_config
from outbox_kit import NOW_NS, TOPIC, fill, ids
from structlog.testing import capture_logs

from picker.errors import ConfigError
from streamer.outbox_file import MOST_ASIDE, OutboxFile
from streamer.sqlite_outbox import SqliteOutbox

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from pathlib import Path
from streamer.sqlite_outbox import SqliteOutbox
outbox = SqliteOutbox(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteOutbox]:
    with contextlib.closing(SqliteOutbox(path, clock_ns=lambda: NOW_NS)) as outbox:
        yield outbox


def with_entries(path: Path, count: int = 400) -> Path:
    """An outbox of entries of 1 kB, closed in order."""
    with opened(path) as outbox:
        for k in range(count):
            outbox.put(str(k), TOPIC, b"x" * 1000, NOW_NS)
    return path


def overwritten(begin: int, data: bytes) -> Callable[[bytes], bytes]:
    """Puts ``data`` at ``begin``."""
    return lambda before: before[:begin] + data + before[begin + len(data) :]


NOISE = random.Random(2).randbytes(20_000)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda before: before[: len(before) // 2], id="cut in half"),
        pytest.param(lambda before: before[:1000], id="cut in the first page"),
        pytest.param(lambda before: before[:50], id="cut in the header"),
        pytest.param(overwritten(0, bytes(4096)), id="first page of zeros"),
        pytest.param(overwritten(8192, bytes(40_960)), id="pages of zeros"),
        pytest.param(overwritten(8192, NOISE), id="pages of noise"),
        pytest.param(lambda _: NOISE, id="noise"),
    ],
)
def test_damaged_file_is_set_aside(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """It is kept as it is under another name, said and counted, and the outbox works, empty."""
    path = with_entries(tmp_path / "outbox")
    path.write_bytes(damaged := damage(path.read_bytes()))
    with capture_logs() as logs, opened(path) as outbox:
        assert (len(outbox), outbox.failures["damaged"], outbox.ended_ns) == (0, 1, None)
        fill(outbox, "ab")
    assert [(line["log_level"], Path(line["kept_as"]).read_bytes() == damaged) for line in logs] == [("error", True)]
    with opened(path) as outbox:
        assert (ids(outbox), outbox.failures["damaged"]) == (["a", "b"], 0)


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """The write-ahead log, synced in each commit, and the lock held: what the power cut and the second daemon need."""
    with opened(tmp_path / "outbox") as outbox:
        connection = outbox._file._connected()
        found = [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "locking_mode")
        ]
    assert found == ["wal", 2, "exclusive"]


def test_cut_log_costs_the_last_transactions_alone(tmp_path: Path) -> None:
    """A write-ahead log that ends in the middle of a transaction: what was committed before it is there."""
    path = tmp_path / "outbox"
    with opened(path) as outbox:
        fill(outbox, "a")
        outbox._write_last()
        whole = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        fill(outbox, "b")
        outbox._write_last()
        log = path.with_name("outbox-wal").read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    (folder / "outbox-wal").write_bytes(log[: len(whole["outbox-wal"]) + 2000])
    with opened(folder / "outbox") as outbox:
        assert (ids(outbox), outbox.failures["damaged"]) == (["a"], 0)


def test_damaged_files_do_not_add_up(tmp_path: Path) -> None:
    """The last few are kept, logs included; a disk that damages one after the other is not filled by them."""
    path = tmp_path / "outbox"
    with capture_logs() as logs:
        for k in range(MOST_ASIDE + 3):
            path.write_bytes(bytes([k]) + NOISE)
            path.with_name("outbox-wal").write_bytes(NOISE)
            with opened(path):
                pass
    assert len(logs) == MOST_ASIDE + 3
    kept = [file for file in tmp_path.glob("outbox.damaged-*") if not file.name.endswith("-wal")]
    assert sorted(file.read_bytes()[0] for file in kept) == [3, 4, 5]
    assert len(list(tmp_path.iterdir())) <= 1 + 2 * MOST_ASIDE


def test_empty_file_is_begun(tmp_path: Path) -> None:
    """A file of no bytes is what a full disk leaves of the first start."""
    (tmp_path / "outbox").touch()
    with opened(tmp_path / "outbox") as outbox:
        fill(outbox, "a")
    with opened(tmp_path / "outbox") as outbox:
        assert ids(outbox) == ["a"]


def foreign_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE stock (item TEXT)")


def later_version(path: Path) -> None:
    with_entries(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (foreign_database, "this database is of another program; name another file in outbox.path"),
        (later_version, "this database is of a later Onset; name another file in outbox.path"),
        (lambda path: path.write_text('agency = "XX"\n[bundle]\n'), "this is no outbox but a file of text"),
        (lambda path: path.mkdir(), "cannot be used as the outbox (unable to open database file); mend outbox.path"),
    ],
    ids=["database", "later version", "text", "folder"],
)
def test_file_of_others_is_refused_and_left(make: Callable[[Path], object], told: str, tmp_path: Path) -> None:
    """ConfigError in one line that names file and key; nothing of the file changes."""
    path = tmp_path / "file"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError) as error:
        SqliteOutbox(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert before == (path.read_bytes() if path.is_file() else None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    """The start, not the first pick, says that nothing can be written."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="cannot be used as the outbox"):
            SqliteOutbox(tmp_path / "outbox")
    finally:
        tmp_path.chmod(0o700)


def test_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    """One clear line, also from ``streamer run``; the first goes on, and kill -9 of it frees the file at once."""
    path = tmp_path / "outbox"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError, match="the outbox is in use by another process; stop the other daemon, or"):
            OutboxFile(path).open()
        config = write_config(tmp_path, seedlink=[18000], mqtt=1883, more=f'[outbox]\npath = "{path}"\n')
        second = subprocess.run(
            [sys.executable, "-m", "streamer", "run", "--config", str(config)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].endswith("or give this one an outbox.path of its own")
        assert "Traceback" not in second.stderr
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with opened(path) as outbox:
        assert outbox.on_disk
