"""kill -9 and a restart: every pick reaches the broker, under the id it was given, and none is made twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from broker import MOSQUITTO, free_port, mosquitto
from daemon_kit import daemon, expected, found, subscriber, three_components, write_config
from mqtt_docs import SOURCE, example_report
from outbox_kit import eventually, gate, if_killed_now
from prometheus_client import generate_latest

from picker.bundle import load_bundle
from picker.stepper import OnnxStepper
from streamer.assembly import open_outbox
from streamer.broker import Broker
from streamer.daemon import Daemon
from streamer.publisher import Publisher
from streamer.replay import ReplayServer, ReplaySettings
from streamer.session import Delivery
from streamer.settings import load_settings
from streamer.sqlite_outbox import SqliteOutbox
from streamer.status import report_status

__all__ = ["gate"]  # a fixture
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")

ROOT = Path(__file__).parents[2]
COUNT = 300

# Puts the same picks at every start, as a daemon does that computes anew; arguments: file, port, seconds between picks.
CHILD = """
import asyncio, sys
from pathlib import Path
from mqtt_docs import SOURCE, example_report
from streamer.broker import Broker
from streamer.publisher import Publisher
from streamer.sqlite_outbox import SqliteOutbox

async def main(path, port, pause_s):
    publisher = Publisher(Broker(host="127.0.0.1", port=int(port)), SOURCE, SqliteOutbox(Path(path)))
    running = asyncio.create_task(publisher.run())
    for k in range(300):
        publisher.put(example_report(200 * k))
        if float(pause_s):
            await asyncio.sleep(float(pause_s))
    while publisher.outbox.unwritten:
        await asyncio.sleep(0.001)
    print("durable", flush=True)
    await running

asyncio.run(main(*sys.argv[1:]))
"""


def start(path: Path, port: int, pause_s: float = 0.0) -> subprocess.Popen[bytes]:
    """A process that puts picks and publishes them."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(port), str(pause_s)],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/streamer'}"}, stdout=subprocess.PIPE,
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, and wait for the end."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


@contextlib.asynccontextmanager
async def restarted(path: Path, port: int, resend_s: float = 120.0) -> AsyncIterator[Publisher]:
    """A publisher on the outbox that the killed process left."""
    delivery = Delivery(resend_s=resend_s)
    with contextlib.closing(SqliteOutbox(path)) as outbox:
        publisher = Publisher(Broker(host="127.0.0.1", port=port), SOURCE, outbox, delivery=delivery)
        task = asyncio.create_task(publisher.run())
        try:
            yield publisher
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_published_before_it_is_durable(tmp_path: Path, gate: threading.Event) -> None:
    """Connected, and the disk does not answer yet: the broker gets nothing; it gets all when the disk has."""
    with mosquitto(tmp_path) as broker:
        async with subscriber(broker.port) as picks, restarted(tmp_path / "outbox", broker.port) as publisher:
            await eventually(lambda: publisher.connected)
            ids = [publisher.put(example_report(200 * k)) for k in range(30)]
            assert await picks.more(0.4) == 0
            assert publisher.counters.sent == 0
            gate.set()
            assert [message["id"] for message in await picks.receive(30)] == ids
            assert await publisher.drain(10) == 0


async def test_killed_between_put_and_publish(tmp_path: Path) -> None:
    """No broker, kill -9 as soon as the picks are durable: the next process sends each once, with its id."""
    path = tmp_path / "outbox"
    child = start(path, free_port())
    assert child.stdout is not None
    while (line := await asyncio.to_thread(child.stdout.readline)) != b"durable\n":
        assert line, "the process has ended"
    kill(child)
    with mosquitto(tmp_path) as broker:
        async with subscriber(broker.port) as picks, restarted(path, broker.port) as publisher:
            assert publisher.counters.reopened == 0
            recomputed = [publisher.put(example_report(200 * k)) for k in range(COUNT)]
            messages = await picks.receive(COUNT)
            assert await publisher.drain(10) == 0
            assert await picks.more(0.3) == 0
    assert [message["id"] for message in messages] == recomputed
    assert (publisher.counters.put, publisher.counters.repeated, publisher.counters.sent) == (0, COUNT, COUNT)


@pytest.mark.parametrize("killed_after", [1, 40, 150])
async def test_killed_while_publishing(killed_after: int, tmp_path: Path) -> None:
    """kill -9 under load: what it had put arrives, recomputed picks are not sent again, repetitions are few.

    Only what had been acknowledged and was not yet noted in the file may come twice: no more than a window of it.
    """
    path = tmp_path / "outbox"
    with mosquitto(tmp_path) as broker:
        async with subscriber(broker.port) as picks:
            child = start(path, broker.port, 0.002)
            await picks.receive(killed_after)
            kill(child)
            async with restarted(path, broker.port, resend_s=0.001) as publisher:
                ids = [publisher.put(example_report(200 * k)) for k in range(COUNT)]
                assert publisher.counters.repeated >= killed_after
                assert await publisher.drain(15) == 0
                await picks.more(0.5)
    received = Counter(message["id"] for message in picks.messages)
    assert set(received) == set(ids)
    assert received.total() - COUNT <= 40
    assert publisher.counters.sent <= COUNT - killed_after + 40


async def test_last_minutes_are_sent_again_after_a_restart(tmp_path: Path) -> None:
    """Process and broker fall together, as in a power cut: what the broker had only acknowledged is sent once more."""
    path = tmp_path / "outbox"
    with mosquitto(tmp_path) as broker:
        child = start(path, broker.port)
        try:
            await eventually(lambda: path.exists() and len(if_killed_now(path).known) == COUNT)
        finally:
            kill(child)
        broker.kill()
        broker.start()
        async with subscriber(broker.port) as picks, restarted(path, broker.port) as publisher:
            messages = await picks.receive(COUNT)
            assert await publisher.drain(10) == 0
    assert len({message["id"] for message in messages}) == COUNT
    assert publisher.counters.reopened == COUNT


async def test_daemon_is_killed_and_makes_no_pick_twice(tmp_path: Path) -> None:
    """The whole daemon, killed while it holds picks; the next one gets the same data: each pick once, one id."""
    data, broker, path = tmp_path / "data.mseed", mosquitto(tmp_path), tmp_path / "state" / "outbox.sqlite"
    data.write_bytes(three_components())
    path.parent.mkdir()
    async with replay(data) as server:
        config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)
        async with daemon(config, STATE_DIRECTORY=str(path.parent)) as running:
            await server.wait_ended()
            await eventually(lambda: len(if_killed_now(path).pending) >= 5)
            held = {row[0] for row in if_killed_now(path).pending}
            await running.stop(signal.SIGKILL)
    with broker:
        async with replay(data) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)
            async with daemon(config, STATE_DIRECTORY=str(path.parent)) as running:
                assert (await running.logged("outbox opened"))["held"] == len(held)
                messages = await picks.receive(6)
                assert await picks.more(1.0) == 0
                assert (await running.stop())[0] == 0
    assert found(messages) == expected()
    assert held <= {message["id"] for message in messages}
    assert len({message["id"] for message in messages}) == 6


async def test_outbox_is_in_the_metrics(tmp_path: Path) -> None:
    """Depth, bytes, oldest, given up and failures are served, those that are zero too."""
    more = "[outbox]\npath = 'outbox'\nmax_entries = 2\n"
    settings = load_settings(write_config(tmp_path, seedlink=[free_port()], mqtt=free_port(), more=more))
    bundle = load_bundle(settings.bundle.path)
    with contextlib.closing(open_outbox(settings.outbox)) as outbox:
        served = Daemon(settings, bundle, OnnxStepper(bundle), outbox=outbox)
        for k in range(3):
            outbox.put(str(k), "topic", b"x" * 95, time.time_ns() - 7_000_000_000)
        task = asyncio.create_task(report_status(served))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        lines = generate_latest(served.metrics.registry).decode().splitlines()
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    assert values["onset_outbox_picks"] == 2
    assert values["onset_outbox_bytes"] == 200
    assert values["onset_outbox_unwritten_picks"] == 2
    assert values["onset_outbox_on_disk"] == 1
    assert 7 <= values["onset_outbox_oldest_seconds"] < 60
    given_up = [values[f'onset_outbox_given_up_total{{reason="{reason}"}}'] for reason in ("entries", "bytes", "age")]
    assert given_up == [1, 0, 0]
    assert [values[f'onset_outbox_failures_total{{kind="{kind}"}}'] for kind in ("write", "stall", "damaged")] == [
        0
    ] * 3


def replay(path: Path) -> ReplayServer:
    """A server that plays ``path`` at 20 times its speed when the daemon asks for data."""
    return ReplayServer(ReplaySettings(paths=(path,), port=0, speed=20.0, wait_for_client=True))
