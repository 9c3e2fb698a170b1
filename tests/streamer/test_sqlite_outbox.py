"""The outbox in a file: durable before it is sent, the same after a restart, and whatever the disk does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from outbox_kit import (
    NOW_NS,
    SECOND_NS,
    TOPIC,
    eventually,
    fill,
    gate,
    ids,
    if_killed_now,
    kept,
    no_file_larger,
    small_disk,
    written,
)
from structlog.testing import capture_logs

from streamer.outbox import Limits
from streamer.sqlite_outbox import SqliteOutbox

__all__ = ["gate"]  # a fixture

RETRY_S = 0.02


@contextlib.contextmanager
def opened(path: Path, *, stall_s: float = 30.0, **limits: Any) -> Iterator[SqliteOutbox]:
    """The outbox in ``path``, with a still clock; closed in the end."""
    with contextlib.closing(
        SqliteOutbox(path, Limits(**limits), clock_ns=lambda: NOW_NS, retry_s=RETRY_S, stall_s=stall_s)
    ) as outbox:
        yield outbox


async def test_nothing_is_pending_before_it_is_durable(tmp_path: Path, gate: threading.Event) -> None:
    """While the disk does not answer nothing may be sent and the event loop goes on; then all of it is in the file."""
    with opened(tmp_path / "outbox") as outbox:
        async with kept(outbox) as ready:
            longest_s = 0.0
            for k in range(200):
                begun_s = time.monotonic()
                outbox.put(str(k), TOPIC, b"pick", NOW_NS)
                await asyncio.sleep(0.002)
                longest_s = max(longest_s, time.monotonic() - begun_s)
                assert ids(outbox) == []
            assert longest_s < 5, "the loop waited for the disk"
            assert (len(outbox), outbox.unwritten, if_killed_now(tmp_path / "outbox").pending) == (200, 200, [])
            ready.clear()
            gate.set()
            await asyncio.wait_for(ready.wait(), 20)
            first = ids(outbox)
            assert set(first) <= {row[0] for row in if_killed_now(tmp_path / "outbox").pending}
            await written(outbox)
            assert ids(outbox) == [str(k) for k in range(200)]
            assert [row[:4] for row in if_killed_now(tmp_path / "outbox").pending] == [
                (str(k), TOPIC, b"pick", NOW_NS) for k in range(200)
            ]


async def test_everything_is_as_before_after_a_restart(tmp_path: Path) -> None:
    """Pending entries in order and whole, acknowledged ids known, the end of the last process, and what is sent again.

    A recomputed pick is therefore not published a second time.
    """
    with opened(tmp_path / "outbox") as outbox:
        assert outbox.ended_ns is None
        fill(outbox, "abcdef")
        async with kept(outbox):
            await written(outbox)
            outbox.acknowledge("b", NOW_NS - 500 * SECOND_NS)
            for name in "de":
                outbox.acknowledge(name, NOW_NS)
    with opened(tmp_path / "outbox") as outbox:
        assert [(entry.id, entry.topic, entry.payload, entry.put_ns) for entry in outbox.pending()] == [
            (name, TOPIC, b"pick", NOW_NS) for name in "acf"
        ]
        assert (outbox.ended_ns, outbox.on_disk, outbox.unwritten) == (NOW_NS, True, 0)
        assert outbox.held_bytes == 3 * (len(TOPIC) + 4)
        assert [outbox.put(name, TOPIC, b"recomputed", NOW_NS) for name in "abcdef"] == [False] * 6
        assert outbox.reopen(NOW_NS - 120 * SECOND_NS) == 2
        assert [(entry.id, entry.payload) for entry in outbox.pending()] == [(name, b"pick") for name in "deacf"]
        assert outbox.given_up == {}


async def test_acknowledgement_and_loss_are_durable_too(tmp_path: Path) -> None:
    """What was acknowledged or given up does not come back; what is put and acknowledged at once is known."""
    with opened(tmp_path / "outbox", max_entries=2) as outbox:
        async with kept(outbox):
            fill(outbox, "abcd")
            await written(outbox)
            outbox.acknowledge("c", NOW_NS)
            await eventually(lambda: [row[0] for row in if_killed_now(tmp_path / "outbox").pending] == ["d"])
            assert if_killed_now(tmp_path / "outbox").known == [("c", NOW_NS)]
    with opened(tmp_path / "outbox", max_entries=2) as outbox:
        fill(outbox, "ab")
        assert len(outbox) == 2


async def test_of_old_acknowledged_picks_only_the_id_is_kept(tmp_path: Path) -> None:
    """What will not be sent again is no longer in the file, save its id: that is a tenth of it."""
    path = tmp_path / "outbox"
    with opened(path, resend_s=60.0) as outbox:
        async with kept(outbox):
            for k in range(2000):
                outbox.put(str(k), TOPIC, b"x" * 1500, NOW_NS)
            await written(outbox)
            for k in range(2000):
                outbox.acknowledge(str(k), NOW_NS - 61 * SECOND_NS)
            fill(outbox, "a")
            outbox.acknowledge("a", NOW_NS)
    with opened(path) as outbox:
        assert not outbox.put("0", TOPIC, b"", NOW_NS)
        assert outbox.reopen(0) == 1
        for k in range(2000, 3800):
            outbox.put(str(k), TOPIC, b"x" * 1500, NOW_NS)
    assert path.stat().st_size < 5_000_000, "the room was not used again"


async def test_narrower_limits_hold_for_what_is_found(tmp_path: Path) -> None:
    """Settings made smaller cost the oldest at the next start, counted and said."""
    with opened(tmp_path / "outbox") as outbox:
        fill(outbox, "abcdef")
    with capture_logs() as logs, opened(tmp_path / "outbox", max_entries=2) as outbox:
        assert (ids(outbox), outbox.given_up) == (["e", "f"], {"entries": 4})
    assert [line["limit"] for line in logs] == ["entries"]
    with opened(tmp_path / "outbox") as outbox:
        assert ids(outbox) == ["e", "f"]


async def test_file_is_bounded(tmp_path: Path) -> None:
    """Twenty thousand picks through a small outbox: the file and its log hold no more than the limits say."""
    with opened(tmp_path / "outbox", max_entries=500, max_acknowledged=1000) as outbox:
        async with kept(outbox):
            for begin in range(0, 20_000, 400):
                for k in range(begin, begin + 400):
                    outbox.put(str(k), TOPIC, b"x" * 1500, NOW_NS)
                await written(outbox)
                for k in range(begin, begin + 400):
                    outbox.acknowledge(str(k), NOW_NS)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 8_000_000  # noqa: ASYNC240
    with opened(tmp_path / "outbox", max_entries=500, max_acknowledged=1000) as outbox:
        assert outbox.put("18999", TOPIC, b"", NOW_NS)
        assert not outbox.put("19000", TOPIC, b"", NOW_NS)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """``folder`` is a small file system, full; what is yielded makes room."""
    with small_disk(folder, 4000):
        ballast = folder / "ballast"

        def fill_up() -> None:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

        fill_up()
        yield ballast.unlink


@pytest.mark.parametrize("how", ["full file system", "limit of the file size"])
async def test_disk_that_takes_nothing(how: str, tmp_path: Path) -> None:
    """Picks go on from memory, one line says so, nothing adds up; all is written when there is room again."""
    folder = tmp_path / "disk"
    with contextlib.ExitStack() as stack, capture_logs() as logs:
        if how == "full file system":
            path, relief = folder / "outbox", stack.enter_context(full_disk(folder))
        else:
            folder.mkdir()
            limit = stack.enter_context(contextlib.ExitStack())
            path, relief = folder / "outbox", limit.close
            with opened(path) as outbox:
                fill(outbox, "0")
                outbox.acknowledge("0", NOW_NS)
            limit.enter_context(no_file_larger(20_000))
        outbox = stack.enter_context(opened(path, max_entries=300))
        async with kept(outbox) as ready:
            for k in range(400):
                outbox.put(f"early {k}", TOPIC, b"x" * 1000, NOW_NS)
            await eventually(lambda: not outbox.on_disk)
            await asyncio.wait_for(ready.wait(), 20)
            assert ids(outbox) == [f"early {k}" for k in range(100, 400)], "all are sent from memory, within the limits"
            for k in range(100, 300):
                outbox.acknowledge(f"early {k}", NOW_NS)
            fill(outbox, "abc", b"y" * 1000)
            assert (len(ids(outbox)), outbox.unwritten) == (103, 103)
            attempts = outbox.failures["write"]
            await eventually(lambda: outbox.failures["write"] > attempts + 2)
            assert [line["event"] for line in logs if "outbox cannot be written" in line["event"]] == [
                "outbox cannot be written: picks are held in memory alone and would be lost with the daemon"
            ]
            relief()
            await written(outbox)
            assert (outbox.unwritten, len(outbox)) == (0, 103)
            await eventually(lambda: len(if_killed_now(path).known) >= 200)
            assert [row[0] for row in if_killed_now(path).pending] == ids(outbox)
    assert [line["log_level"] for line in logs if "on the disk again" in line["event"]] == ["info"]
    assert outbox.given_up == {"entries": 100}


async def test_disk_full_at_the_end_and_at_the_start(tmp_path: Path) -> None:
    """An outbox opens on a full disk with what the file held, and closes on one without an exception."""
    folder = tmp_path / "disk"
    with small_disk(folder, 400), capture_logs():
        with opened(folder / "outbox") as outbox:
            fill(outbox, "abc")
        with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        for _ in range(2):
            with opened(folder / "outbox") as outbox:
                assert ids(outbox) == ["a", "b", "c"]
                for k in range(300):
                    outbox.put(str(k), TOPIC, b"x" * 1000, NOW_NS)
        assert outbox.failures["write"] == 1
        (folder / "ballast").unlink()
        with opened(folder / "outbox") as outbox:
            fill(outbox, "d")
        with opened(folder / "outbox") as outbox:
            assert ids(outbox) == ["a", "b", "c", "d"]


async def test_disk_that_does_not_answer(tmp_path: Path, gate: threading.Event) -> None:
    """A transaction that hangs is told and counted like one that fails, and picks go on; then it is as before."""
    with capture_logs() as logs, opened(tmp_path / "outbox", stall_s=0.05) as outbox:
        async with kept(outbox) as ready:
            fill(outbox, "ab")
            await asyncio.wait_for(ready.wait(), 20)
            assert (ids(outbox), outbox.on_disk, outbox.failures["stall"]) == (["a", "b"], False, 1)
            fill(outbox, "c")
            outbox.acknowledge("a", NOW_NS)
            assert ids(outbox) == ["b", "c"]
            gate.set()
            await written(outbox)
            await eventually(lambda: if_killed_now(tmp_path / "outbox").known == [("a", NOW_NS)])
    assert [line["log_level"] for line in logs] == ["error", "info"]


async def test_file_damaged_or_deleted_while_in_use(tmp_path: Path) -> None:
    """The memory has it all: a new file is begun with every entry and every known id."""
    path = tmp_path / "outbox"
    with capture_logs() as logs, opened(path) as outbox:
        async with kept(outbox):
            for k in range(4000):
                outbox.put(str(k), TOPIC, b"x" * 1000, NOW_NS)
            await written(outbox)
            outbox.acknowledge("0", NOW_NS)
            await eventually(lambda: bool(if_killed_now(path).known))
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(random.Random(1).randbytes(path.stat().st_size - 4096))
            for k in range(1, 2000):
                outbox.acknowledge(str(k), NOW_NS)
            await eventually(lambda: outbox.failures["damaged"] == 1 and outbox.on_disk)
            await eventually(lambda: len(if_killed_now(path).known) == 2000)
            assert [row[0] for row in if_killed_now(path).pending] == [str(k) for k in range(2000, 4000)]
            path.unlink()
            path.with_name("outbox-wal").unlink()
            fill(outbox, "a")
            await eventually(lambda: outbox.failures["damaged"] == 2 and outbox.on_disk)
            await written(outbox)
            await eventually(lambda: len(if_killed_now(path).known) == 2000)
            assert len(if_killed_now(path).pending) == 2001
    assert len(list(tmp_path.glob("outbox.damaged-*"))) >= 1  # noqa: ASYNC240
    assert {line["event"] for line in logs} >= {
        "outbox file is damaged: set aside, a new one is begun",
        "outbox file is gone: a new one is begun",
    }
