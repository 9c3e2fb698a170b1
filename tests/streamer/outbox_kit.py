"""What the outbox's tests share: an outbox that runs, and file systems that are really full."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.memory_outbox import MemoryOutbox
from streamer.outbox import Outbox
from streamer.outbox_file import Kept, OutboxFile
from streamer.sqlite_outbox import SqliteOutbox

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS
TOPIC = "onset/v1/picks/XX/ABC/--/P"


@contextlib.asynccontextmanager
async def kept(outbox: Outbox) -> AsyncIterator[asyncio.Event]:
    """The outbox runs while the context lasts; the event is set whenever it says that entries are ready."""
    ready = asyncio.Event()
    task = asyncio.create_task(outbox.run(ready.set))
    try:
        yield ready
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def written(outbox: Outbox) -> None:
    """Wait until the outbox has looked at everything put and, where it has a file, all of it is durable."""
    await asyncio.sleep(0.002)
    if isinstance(outbox, SqliteOutbox):
        async with asyncio.timeout(20):
            while outbox.unwritten or not outbox.on_disk:  # noqa: ASYNC110
                await asyncio.sleep(0.002)


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def if_killed_now(path: Path) -> Kept:
    """What the next process would find, were this one killed now: the file and its log are copied as they are."""
    folder = path.parent / "copy"
    while not _copied_at_one_moment(path, folder):
        shutil.rmtree(folder)
    copy = OutboxFile(folder / path.name)
    try:
        return copy.open()
    finally:
        copy.close()
        shutil.rmtree(folder)


def _copied_at_one_moment(path: Path, folder: Path) -> bool:
    """Copy the file and what SQLite keeps beside it; false where they changed, came or went meanwhile."""
    folder.mkdir()
    try:
        before = _stamps(path)
        for file in before:
            shutil.copy(file, folder / file.name)
        return _stamps(path) == before
    except FileNotFoundError:
        return False


def _stamps(path: Path) -> dict[Path, tuple[int, int]]:
    files = sorted(path.parent.glob(path.name + "*"))
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in files}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is not set the disk does not answer: transactions wait, then are written as ever."""
    opened, write = threading.Event(), OutboxFile.write

    def slow(*args: Any) -> None:
        assert opened.wait(30)
        write(*args)

    monkeypatch.setattr(OutboxFile, "write", slow)
    yield opened
    opened.set()


@contextlib.contextmanager
def no_file_larger(size: int) -> Iterator[None]:
    """The system lets this process write no file beyond ``size`` bytes; works without rights to mount anything."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ids(outbox: Outbox) -> list[str]:
    """Ids of the pending entries, in order."""
    return [entry.id for entry in outbox.pending()]


def fill(outbox: MemoryOutbox, names: str, payload: bytes = b"pick", now_ns: int = NOW_NS) -> None:
    """Put an entry for each letter of ``names``."""
    for name in names:
        assert outbox.put(name, TOPIC, payload, now_ns)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own, so small; the test is skipped where none may be mounted."""
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)
