"""The watchdog is fed by work that gets done: a service manager's real socket, real daemons, an engine that hangs."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import free_port
from daemon_kit import ROOT, daemon, three_components, write_config
from health_kit import Manager, make_daemon, running, until
from structlog.testing import capture_logs

from streamer.decode import decode_each
from streamer.errors import BadRecord
from streamer.picking import Picking
from streamer.replay import ReplayServer, ReplaySettings
from streamer.systemd import notify
from streamer.watchdog import RECORD_WAIT_S, Progress, watchdog_span_s

SPAN_US = "400000"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager that listens, in nobody's environment yet."""
    heard = Manager(tmp_path / "notify")
    yield heard
    heard.close()


@pytest.fixture
def watched(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """The manager watches this process, and wants to hear of it within 0.4 s."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    monkeypatch.setenv("WATCHDOG_USEC", SPAN_US)
    return manager


async def test_idle_daemon_feeds(tmp_path: Path, manager: Manager) -> None:
    """As a process, without server and broker: nothing to do is not stuck; the end is told, and not as a hang."""
    config = write_config(tmp_path, seedlink=[free_port()], mqtt=free_port())
    async with daemon(config, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=SPAN_US) as process:
        assert manager.heard()[0] == "READY=1"
        for _ in range(3):
            await manager.feeding(2)
        status, _ = await process.stop()
    assert status == 0
    assert "STOPPING=1" in manager.heard()
    assert not process.of("no progress: the watchdog is not fed")


async def test_hanging_engine_is_not_fed(tmp_path: Path, watched: Manager) -> None:
    """Data flow and the feeding with them; a call of the model that hangs ends it, and it returns with the work."""
    async with replay(tmp_path) as server:
        config = write_config(tmp_path, seedlink=[server.port], mqtt=free_port())
        one, free = make_daemon(config)
        with capture_logs() as logs:
            async with running(one):
                await until(lambda: one.picking.engine.counts["steps"] > 3)
                watched.heard()
                await watched.feeding(2)
                free.clear()
                await until(lambda: one.health.watchdog.obstacles == ("picking_stuck",))
                watched.heard()
                await asyncio.sleep(1.2)
                assert watched.heard() == []
                assert one.health.report()[1]["reasons"] == ["no_progress"]
                assert one.health.report()[1]["obstacles"] == ["picking_stuck"]
                free.set()
                await watched.feeding()
                await until(lambda: one.health.report()[0])
    told = [line["event"] for line in logs if "watchdog" in line["event"]]
    assert told == ["no progress: the watchdog is not fed", "work goes on: the watchdog is fed again"]


async def test_blocked_event_loop_is_not_fed(tmp_path: Path, watched: Manager) -> None:
    """Nothing is sent while the event loop stands still, and it is fed again when the loop turns."""
    one, _ = make_daemon(write_config(tmp_path, seedlink=[free_port()], mqtt=free_port()))
    async with running(one):
        await watched.feeding(2)
        watched.heard()
        time.sleep(1.0)  # noqa: ASYNC251
        assert watched.heard() == []
        await watched.feeding(2)


async def test_ended_task_is_not_fed(tmp_path: Path, watched: Manager) -> None:
    """Health without picking, publisher and outbox beside it feeds nothing: their tasks must be alive."""
    one, _ = make_daemon(write_config(tmp_path, seedlink=[free_port()], mqtt=free_port()))
    task = asyncio.create_task(one.health.run())
    await until(lambda: one.health.watchdog.obstacles == ("task_ended",))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert watched.heard() == []


async def test_record_that_waits_too_long(tmp_path: Path) -> None:
    """Rounds are completed, but a record that came RECORD_WAIT_S ago is still not among what was worked off."""
    one, _ = make_daemon(write_config(tmp_path, seedlink=[free_port()], mqtt=free_port()))
    picking, now_s = one.picking, 0.0
    progress = Progress(lambda: picking, lambda: now_s)
    await fill(picking, 3)
    while now_s < RECORD_WAIT_S:
        assert "record_waits" not in progress.obstacles()
        progress.fed()
        now_s += 15.0
    picking.taken = picking.worked_off = 2
    await picking.deliver(*records(1)[0])
    assert progress.obstacles() == ("task_ended", "record_waits"), "one of the first three still waits"
    picking.taken = picking.worked_off = 3
    assert progress.obstacles() == ("task_ended",), "the last one has come only now"


@pytest.mark.parametrize(
    ("environment", "span_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_span_is_the_service_managers(
    environment: dict[str, str], span_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WATCHDOG_USEC, where it is meant for this process; nothing else is taken for a span."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert watchdog_span_s() == span_s


async def test_killed_daemon_says_where_it_was(tmp_path: Path) -> None:
    """SIGABRT, by which a service manager ends what is stuck: the stack of each thread is in the log."""
    config = write_config(tmp_path, seedlink=[free_port()], mqtt=free_port())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamer", "run", "--config", str(config),
        cwd=ROOT, stderr=asyncio.subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b'"serving"' not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGABRT)
        log = await process.stderr.read()
    assert await process.wait() == -signal.SIGABRT
    assert b"Fatal Python error: Aborted" in log
    assert b"in run" in log, "the stack of the main thread"


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No NOTIFY_SOCKET, or one that nobody listens at: False, and no exception."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("WATCHDOG=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("WATCHDOG=1")


def replay(folder: Path) -> ReplayServer:
    """40 s of three components, five times as fast."""
    path = folder / "data.mseed"
    path.write_bytes(three_components())
    return ReplayServer(ReplaySettings(paths=(path,), port=0, speed=5.0, wait_for_client=True))


def records(count: int) -> list[tuple]:
    """That many real records, with a time of arrival."""
    found = [item for item in decode_each(three_components()) if not isinstance(item, BadRecord)]
    return [(record, record.end_ns) for record in found[:count]]


async def fill(picking: Picking, count: int) -> None:
    """That many records wait."""
    for record, received_ns in records(count):
        await picking.deliver(record, received_ns)
