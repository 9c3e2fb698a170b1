"""The publisher against real brokers: every pick arrives, nothing leaves the outbox without its PUBACK."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import aiomqtt
import pytest
from broker import MOSQUITTO, amqtt, flooding_broker, free_port, mosquitto, silent_broker
from mqtt_docs import SOURCE, example_report
from structlog.testing import capture_logs

from picker.errors import ConfigError
from picker.pick import Pick
from streamer.backoff import Backoff
from streamer.broker import Broker, BrokerClient
from streamer.memory_outbox import MemoryOutbox
from streamer.message import PickMessage
from streamer.outbox import Limits, Outbox
from streamer.publisher import Publisher
from streamer.session import Delivery
from streamer.sqlite_outbox import SqliteOutbox

Protocol = Literal["5", "3.1.1"]
PROTOCOLS: tuple[Protocol, ...] = ("5", "3.1.1")

OUTBOXES = ("memory", "sqlite")

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed")


@contextlib.contextmanager
def an_outbox(kind: str, folder: Path) -> Iterator[Outbox]:
    outbox = MemoryOutbox() if kind == "memory" else SqliteOutbox(folder / "outbox.sqlite")
    with contextlib.closing(outbox):
        yield outbox


async def short_sleep(_: float) -> None:
    """The back-off's sleep, in a hurry."""
    await asyncio.sleep(0.05)


def publisher_for(port: int, protocol: Protocol = "5", **options: Any) -> Publisher:
    broker = Broker(host="127.0.0.1", port=port, protocol=protocol, client_id="onset-test", keepalive_s=10)
    return Publisher(broker, SOURCE, **({"sleep": short_sleep} | options))


@contextlib.asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(publisher.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Listener:
    """A subscriber that comes back after the broker was away; keeps every message by topic."""

    def __init__(self, port: int, protocol: Protocol = "5", topic_filter: str = "onset/v1/picks/#") -> None:
        self.messages: list[aiomqtt.Message] = []
        self.there = asyncio.Event()
        self._port, self._protocol, self._filter = port, protocol, topic_filter

    @property
    def ids(self) -> list[str]:
        """The ids of the picks, in the order of arrival."""
        return [json.loads(self.payload(index))["id"] for index in range(len(self.messages))]

    def payload(self, index: int) -> bytes:
        """The payload of one message."""
        payload = self.messages[index].payload
        assert isinstance(payload, bytes)
        return payload

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._run())
        await asyncio.wait_for(self.there.wait(), 10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        version = aiomqtt.ProtocolVersion.V5 if self._protocol == "5" else aiomqtt.ProtocolVersion.V311
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", self._port, protocol=version) as client:
                    await client.subscribe(self._filter, qos=1)
                    self.there.set()
                    async for message in client.messages:
                        self.messages.append(message)
            self.there.clear()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        pytest.param("mosquitto", "5", marks=needs_mosquitto),
        pytest.param("mosquitto", "3.1.1", marks=needs_mosquitto),
        ("amqtt", "3.1.1"),
    ],
)
async def test_every_pick_arrives(kind: str, protocol: Protocol, tmp_path: Path) -> None:
    """More picks than the window is wide reach a subscriber, each on its topic and valid, and the outbox is empty."""
    broker = mosquitto(tmp_path) if kind == "mosquitto" else amqtt(tmp_path)
    with broker:
        publisher = publisher_for(broker.port, protocol)
        waited_s: list[float] = []
        publisher.on_acknowledged = waited_s.append
        async with Listener(broker.port, protocol) as listener, running(publisher):
            ids = [publisher.put(example_report(200 * k, phase="PS"[k % 2])) for k in range(60)]
            assert await publisher.drain(10) == 0
            await eventually(lambda: len(listener.messages) >= 60)
    assert sorted(listener.ids) == sorted(map(str, ids))
    assert {str(message.topic) for message in listener.messages} == {
        "onset/v1/picks/BW/UH1/--/P",
        "onset/v1/picks/BW/UH1/--/S",
    }
    for index, message in enumerate(listener.messages):
        PickMessage.model_validate_json(listener.payload(index))
        assert message.qos == 1
        if protocol == "5":
            assert message.properties is not None
            assert message.properties.ContentType == "application/json"
    counters = publisher.counters
    assert (counters.put, counters.sent, counters.acknowledged, counters.refused) == (60, 60, 60, 0)
    assert len(waited_s) == 60
    assert 0 < min(waited_s) <= max(waited_s) < 10


@needs_mosquitto
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_picks_are_held_until_the_broker_appears(protocol: Protocol, tmp_path: Path) -> None:
    """Without a broker the picks wait, one line says so, and all arrive in order when it comes."""
    broker = mosquitto(tmp_path)
    delays_s: list[float] = []
    listening = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        delays_s.append(delay_s)
        await (listening.wait() if len(delays_s) >= 4 else asyncio.sleep(0))

    publisher = publisher_for(broker.port, protocol, sleep=sleep, fraction=lambda: 1.0)
    with capture_logs() as logs:
        async with running(publisher):
            ids = [publisher.put(example_report(200 * k)) for k in range(30)]
            await eventually(lambda: len(delays_s) == 4)
            assert len(publisher.outbox) == 30
            assert not publisher.connected
            with broker:
                async with Listener(broker.port, protocol) as listener:
                    listening.set()
                    assert await publisher.drain(10) == 0
                    await eventually(lambda: len(listener.messages) >= 30)
    assert listener.ids == ids
    assert delays_s[:4] == [1.0, 2.0, 4.0, 8.0]
    assert publisher.counters.failures >= 4
    told = [line["event"] for line in logs if line["event"].startswith("broker")]
    assert told == ["broker absent: holding picks, trying again", "broker connected"]


@needs_mosquitto
@pytest.mark.parametrize("kind", OUTBOXES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_broker_killed_and_restarted_under_load(kind: str, protocol: Protocol, tmp_path: Path) -> None:
    """SIGKILL of the broker, three times under load: every pick arrives at least once, under the id it was given.

    The killed broker takes picks with it that it has acknowledged and not yet delivered: they are sent once more.
    """
    with an_outbox(kind, tmp_path) as outbox, mosquitto(tmp_path) as broker:
        async with Listener(broker.port, protocol) as listener:

            async def when_heard(_: float) -> None:
                # Without a persistent session the broker would take picks that nobody listens to.
                await asyncio.sleep(0.05)
                await listener.there.wait()

            publisher = publisher_for(broker.port, protocol, sleep=when_heard, outbox=outbox)
            ids: list[str | None] = []

            async def load() -> None:
                for k in range(600):
                    ids.append(publisher.put(example_report(200 * k)))
                    if k % 4 == 0:
                        await asyncio.sleep(0.005)

            async with running(publisher):
                loading = asyncio.create_task(load())
                for _ in range(3):
                    await asyncio.sleep(0.15)
                    broker.kill()
                    await eventually(lambda: not publisher.connected and not listener.there.is_set())
                    await asyncio.sleep(0.1)
                    broker.start()
                    await eventually(lambda: publisher.connected)
                await loading
                assert await publisher.drain(15) == 0
                await eventually(lambda: set(listener.ids) >= set(map(str, ids)))
    assert set(listener.ids) == set(ids)
    assert len(set(ids)) == 600
    assert publisher.counters.connections >= 4
    assert publisher.counters.reopened > 0
    assert publisher.counters.acknowledged == 600 + publisher.counters.reopened


@needs_mosquitto
@pytest.mark.parametrize("kind", OUTBOXES)
async def test_refused_pick_stays_and_is_offered_again(kind: str, tmp_path: Path) -> None:
    """A PUBACK of 0x87 is no success: the pick stays, is counted, the others pass, and it leaves once it is allowed."""
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite onset/v1/status/#\ntopic read #\ntopic write onset/v1/picks/BW/+/+/P\n")
    delivery = Delivery(retry_refused_s=0.2)
    with (
        an_outbox(kind, tmp_path) as outbox,
        mosquitto(tmp_path, f"acl_file {rules}\n") as broker,
        capture_logs() as logs,
    ):
        publisher = publisher_for(broker.port, "5", delivery=delivery, outbox=outbox)
        async with Listener(broker.port) as listener, running(publisher):
            refused = publisher.put(example_report(phase="S"))
            taken = [publisher.put(example_report(200 * k)) for k in range(40)]
            await eventually(lambda: publisher.counters.refused >= 3)
            assert [entry.id for entry in publisher.outbox.pending()] == [refused]
            assert publisher.counters.acknowledged == 40
            await eventually(lambda: len(listener.messages) >= 40)
            assert sorted(listener.ids) == sorted(map(str, taken))
            with capture_logs():
                assert await publisher.drain(0.1) == 1
        broker.kill()
        rules.write_text("topic readwrite #\n")
        broker.start()
        async with Listener(broker.port) as listener, running(publisher):
            assert await publisher.drain(10) == 0
            await eventually(lambda: listener.ids == [refused])
    warnings = [line for line in logs if line["event"].startswith("broker refuses picks")]
    assert len(warnings) == 1
    assert warnings[0]["reason"] == "Not authorized (0x87)"


async def test_silent_broker_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """A peer that takes picks and never acknowledges them is taken for dead, and the picks are sent anew elsewhere."""
    async with silent_broker() as (port, received):
        publisher = publisher_for(port, "3.1.1", delivery=Delivery(window=5, acknowledge_timeout_s=0.3))
        async with running(publisher):
            ids = [publisher.put(example_report(200 * k)) for k in range(8)]
            await eventually(lambda: len(received) >= 3)
        held = [entry.id for entry in publisher.outbox.pending()]
    assert held == ids
    for sent in received[:2]:
        assert [str(id).encode() in sent for id in ids] == [True] * 5 + [False] * 3
    assert publisher.counters.acknowledged == 0
    assert publisher.counters.failures >= 2


async def test_broker_that_announces_a_huge_packet_is_left() -> None:
    """A hostile peer must not make the daemon keep 200 MB: the connection ends at the announcement."""
    async with flooding_broker() as (port, taken):
        publisher = publisher_for(port, "3.1.1")
        async with running(publisher):
            publisher.put(example_report(200))
            await eventually(lambda: len(taken) >= 2)
        assert publisher.counters.failures >= 1
        assert len(publisher.outbox) == 1
    assert max(taken) < 50_000_000  # what the sockets in between hold


@needs_mosquitto
async def test_status_is_retained_and_turns_offline(tmp_path: Path) -> None:
    """Whoever subscribes learns that the daemon is online; it turns offline at an orderly end and at a broken one."""

    async def status() -> str:
        async with Listener(broker.port, topic_filter="onset/v1/status/onset-test") as listener:
            await eventually(lambda: bool(listener.messages))
            return str(json.loads(listener.payload(0))["status"])

    with mosquitto(tmp_path) as broker:
        publisher = publisher_for(broker.port)
        async with running(publisher):
            await eventually(lambda: publisher.connected)
            assert await status() == "online"
        assert await status() == "offline"

        async with running(publisher):
            await eventually(lambda: publisher.counters.connections == 2)
            assert await status() == "online"
            usurper = publisher_for(broker.port, topic_root="other/v1")  # same client id: the broker ends the first
            async with running(usurper):
                await eventually(lambda: publisher.counters.failures >= 1)
                assert publisher.counters.failures >= 1


@pytest.mark.parametrize("peer", ["absent", "mute"])
async def test_cancelled_at_once_whatever_the_broker_does(peer: str) -> None:
    """Shutdown takes less than two seconds while a broker is absent, and while a peer answers nothing."""

    left = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1] if peer == "mute" else free_port()
    publisher = publisher_for(port, sleep=asyncio.sleep)
    task = asyncio.create_task(publisher.run())
    publisher.put(example_report())
    await asyncio.sleep(0.3)
    with capture_logs():
        assert await publisher.drain(0.1) == 1
    async with asyncio.timeout(2):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    if peer == "mute":
        await asyncio.wait_for(left.wait(), 2)  # no socket stays behind
    server.close()
    await server.wait_closed()


async def test_unusable_pick_is_counted_and_the_next_one_goes() -> None:
    """What no message can be made of is one warning and a counter, never an exception in the daemon."""
    publisher = publisher_for(free_port())
    far = Pick(phase="P", sample=1e300, probability=0.9, crossed_sample=1, decided_sample=2)
    none = Pick(phase="P", sample=1.0, probability=float("nan"), crossed_sample=1, decided_sample=2)
    nowhere = Pick(phase="P", sample=float("nan"), probability=0.9, crossed_sample=1, decided_sample=2)
    with capture_logs() as logs:
        assert [publisher.put(example_report(pick=pick)) for pick in (far, none, nowhere)] == [None] * 3
    assert publisher.counters.unusable == 3
    assert [line["log_level"] for line in logs] == ["warning"] * 3
    assert publisher.put(example_report()) is not None
    publisher.put(example_report())
    assert (publisher.counters.put, publisher.counters.repeated, len(publisher.outbox)) == (1, 1, 1)


def test_full_outbox_drops_the_oldest_loudly() -> None:
    """At its bound the outbox gives up the oldest, counts each, says so once, and says when there is room again."""
    outbox = MemoryOutbox(Limits(max_entries=3))
    with capture_logs() as logs:
        for k in range(5):
            assert outbox.put(str(k), "topic", b"", k)
        assert not outbox.put("4", "topic", b"other", 9)
        assert [(entry.id, entry.payload, entry.put_ns) for entry in outbox.pending()] == [
            ("2", b"", 2),
            ("3", b"", 3),
            ("4", b"", 4),
        ]
        assert outbox.given_up == {"entries": 2}
        outbox.acknowledge("3", 7)
        outbox.acknowledge("never put", 7)
    assert len(outbox) == 2
    assert [line["log_level"] for line in logs] == ["error", "info"]


def test_reopened_entries_come_first_and_the_rest_is_known() -> None:
    """What was acknowledged lately is pending again before the younger ones; an id once put is not put twice."""
    outbox = MemoryOutbox(Limits(max_entries=4))
    for k in range(4):
        outbox.put(str(k), "topic", b"", k)
        if k < 3:
            outbox.acknowledge(str(k), 10 + k)
    assert not outbox.put("0", "topic", b"", 20)
    assert outbox.reopen(since_ns=11) == 2
    assert [entry.id for entry in outbox.pending()] == ["1", "2", "3"]
    assert outbox.reopen(since_ns=11) == 0
    outbox.put("4", "topic", b"", 21)
    assert outbox.reopen(since_ns=0) == 0
    assert (len(outbox), outbox.given_up.total()) == (4, 0)


def test_backoff_doubles_to_its_bound_with_jitter() -> None:
    """Delays double from 1 s to 60 s, lie between half and all of that, and start again after a reset."""
    longest, shortest = Backoff(fraction=lambda: 1.0), Backoff(fraction=lambda: 0.0)
    assert [longest.delay_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [shortest.delay_s() for _ in range(3)] == [0.5, 1, 2]
    longest.reset()
    assert longest.delay_s() == 1


def guarded(folder: Path) -> tuple[Path, str]:
    """A certificate of our own for 127.0.0.1, and the lines that make Mosquitto ask for TLS and a password."""
    key, certificate, users = folder / "key.pem", folder / "ca.pem", folder / "users"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    for command in (
        [*request.split(), "-keyout", str(key), "-out", str(certificate)],
        ["mosquitto_passwd", "-b", "-c", str(users), "daemon", "right"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, f"cafile {certificate}\ncertfile {certificate}\nkeyfile {key}\npassword_file {users}\n"


@needs_mosquitto
@pytest.mark.skipif(not shutil.which("openssl") or not shutil.which("mosquitto_passwd"), reason="needs both programs")
async def test_tls_and_password(tmp_path: Path) -> None:
    """Over TLS with its CA file and the right password the picks arrive; without either they stay in the outbox."""
    certificate, lines = guarded(tmp_path)
    with mosquitto(tmp_path, lines) as server:
        good = Broker(
            host="127.0.0.1", port=server.port, username="daemon", password="right", ca_file=certificate, client_id="a"
        )
        reasons = {}
        for name, broker in (
            ("good", good),
            ("wrong password", replace(good, password="wrong")),
            ("unknown authority", replace(good, ca_file=None, tls=True)),
        ):
            publisher = Publisher(broker, SOURCE, sleep=short_sleep)
            publisher.put(example_report())
            with capture_logs() as logs:
                async with running(publisher):
                    assert await publisher.drain(10 if name == "good" else 0.3) == (0 if name == "good" else 1)
            reasons[name] = [line["reason"] for line in logs if "absent" in line["event"]]
    assert reasons["good"] == []
    assert "Not authorized" in reasons["wrong password"][0]
    assert "certificate verify failed" in reasons["unknown authority"][0]
    assert [len(told) for told in reasons.values()] == [0, 1, 1]
    gc.collect()  # a socket that is left open would be a warning, and so an error


@needs_mosquitto
async def test_window_is_no_wider_than_the_broker_takes(tmp_path: Path) -> None:
    """The broker's receive maximum bounds the messages in flight: more would be a protocol error."""
    with mosquitto(tmp_path, "max_inflight_messages 3\n") as server:
        client = BrokerClient(Broker(host="127.0.0.1", port=server.port, client_id="a"))
        await client.connect()
        assert client.window == 3
        await client.leave()


def test_wrong_ca_file_refuses_to_start(tmp_path: Path) -> None:
    """A CA file that is missing or holds no certificate is named at the start, and the password is not."""
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    for ca_file in (tmp_path / "missing.pem", empty):
        broker = Broker(ca_file=ca_file, username="daemon", password="secret")
        with pytest.raises(ConfigError, match=ca_file.name):
            Publisher(broker, SOURCE)
        assert "secret" not in repr(broker)
