"""``streamer watch`` and the guide's subscriber, as programs of their own against a real broker."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import aiomqtt
import pytest
from broker import MOSQUITTO, BrokerProcess, amqtt, free_port, mosquitto
from mqtt_docs import GUIDE, SOURCE, example_report
from rich.console import Console

from picker.errors import ConfigError
from streamer.broker import Broker
from streamer.payload import build_message
from streamer.pick_view import ROWS, JsonView, TableView, read_row
from streamer.watch import Watch, add_arguments, run

ROOT = GUIDE.parents[1]
PROGRAM = """
import argparse, sys
from streamer.watch import add_arguments, run
parser = argparse.ArgumentParser("streamer watch")
add_arguments(parser)
sys.exit(run(parser.parse_args()))
"""

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed")


def payload_of(sample_offset: int = 0, phase: str = "P", **changes: object) -> bytes:
    report = example_report(sample_offset, phase, **changes)
    return build_message(report, SOURCE, report.step_ended_ns).encode()


class Program:
    """A program under test, what it has written, and its exit status."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.told: list[str] = []

    async def line_with(self, text: str) -> None:
        """Wait until standard error says ``text``."""
        assert self._process.stderr is not None
        async with asyncio.timeout(15):
            while not any(text in line for line in self.told):
                line = await self._process.stderr.readline()
                assert line, f"ended without saying {text!r}: {self.told}"
                self.told.append(line.decode())

    async def end(self) -> tuple[int, list[str]]:
        """Exit status and the lines of standard output."""
        async with asyncio.timeout(15):
            out, err = await self._process.communicate()
        self.told += err.decode().splitlines()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode().splitlines()


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=pipe, stderr=pipe)
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def watch(port: int, *options: str) -> contextlib.AbstractAsyncContextManager[Program]:
    return program("-c", PROGRAM, "--host", "127.0.0.1", "--port", str(port), *options)


async def publish(port: int, *messages: tuple[str, bytes]) -> None:
    async with aiomqtt.Client("127.0.0.1", port) as client:
        for topic, payload in messages:
            await client.publish(topic, payload, qos=1)


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        pytest.param("mosquitto", "5", marks=needs_mosquitto),
        pytest.param("mosquitto", "3.1.1", marks=needs_mosquitto),
        ("amqtt", "3.1.1"),
    ],
)
async def test_json_prints_each_message_on_a_line(kind: str, protocol: str, tmp_path: Path) -> None:
    """--json gives every message as published, repetitions included, passes over garbage, and ends at --count."""
    broker: BrokerProcess = mosquitto(tmp_path) if kind == "mosquitto" else amqtt(tmp_path)
    with broker:
        async with watch(broker.port, "--json", "--protocol", protocol, "--count", "3") as watcher:
            await watcher.line_with("watching onset/v1/picks/#")
            topic = "onset/v1/picks/BW/UH1/--/P"
            sent = [payload_of(), payload_of(), payload_of(200)]
            messages = [(topic, b"\xff garbage"), *((topic, payload) for payload in sent), (topic, payload_of(400))]
            await publish(broker.port, *messages)
            status, lines = await watcher.end()
    assert status == 0
    assert [json.loads(line) for line in lines] == [json.loads(payload) for payload in sent]
    assert [line for line in watcher.told if "passed over" in line]


@needs_mosquitto
async def test_lines_name_what_matters_and_selection_holds(tmp_path: Path) -> None:
    """Into a pipe the table is a line a pick: time, channel, phase, probability, latency; --select takes a part."""
    with mosquitto(tmp_path) as broker:
        async with watch(broker.port, "--select", "+/+/+/S", "--count", "1") as watcher:
            await watcher.line_with("watching")
            await publish(
                broker.port,
                ("onset/v1/picks/BW/UH1/--/P", payload_of()),
                ("onset/v1/picks/BW/UH1/--/S", payload_of(phase="S")),
            )
            status, lines = await watcher.end()
    assert status == 0
    assert re.split(r"\s{2,}", lines[0]) == ["time (UTC)", "channel", "phase", "probability", "latency", "status"]
    assert [line.split() for line in lines[1:]] == [
        ["2010-05-27T16:24:33.315000Z", "BW.UH1..SHN", "S", "0.87", "2.13", "s", "confirmed"]
    ]


@needs_mosquitto
async def test_broker_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    """Without a broker it says so once, tries again, and shows what comes; fewer than --count is exit status 1."""
    broker = mosquitto(tmp_path)
    async with watch(broker.port, "--json", "--count", "2", "--for-s", "4") as watcher:
        await watcher.line_with("no broker at")
        with broker:
            await watcher.line_with("watching")
            await publish(broker.port, ("onset/v1/picks/BW/UH1/--/P", payload_of()))
            status, lines = await watcher.end()
    assert (status, len(lines)) == (1, 1)
    assert len([line for line in watcher.told if "no broker" in line]) == 1


@needs_mosquitto
async def test_subscriber_of_the_guide_runs(tmp_path: Path) -> None:
    """The Python subscriber in docs/mqtt.md works as printed, but for the port."""
    found = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    with mosquitto(tmp_path) as broker:
        code = found.group(1).replace("1883", str(broker.port)).replace("localhost", "127.0.0.1")
        async with program("-u", "-c", code) as subscriber:
            out = subscriber._process.stdout
            assert out is not None
            line = asyncio.create_task(out.readline())
            async with asyncio.timeout(15):
                while not line.done():
                    await publish(broker.port, ("onset/v1/picks/BW/UH1/--/P", payload_of()))
                    await asyncio.wait({line}, timeout=0.1)
            assert line.result() == b"2010-05-27T16:24:33.315000Z BW UH1 P 0.87\n"


def test_help_teaches_with_an_example() -> None:
    """--help shows how it is used."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert "streamer watch --json --for-s 60 > picks.jsonl" in result.stdout
    assert "(default: localhost)" in result.stdout


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--host", "127.0.0.1", *arguments])


def test_options_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A missing CA file and a root with a wildcard are refused before any connection."""
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        run(options("--ca-file", str(tmp_path / "missing.pem")))
    with pytest.raises(ConfigError, match="topic root"):
        run(options("--root", "#"))
    assert run(options("--port", str(free_port()), "--json", "--for-s", "0.2")) == 0


@pytest.mark.parametrize(
    ("protocol", "connack", "suback"),
    [("5", b"\x20\x03\x00\x00\x00", b"\x90\x04%b\x00\x87"), ("3.1.1", b"\x20\x02\x00\x00", b"\x90\x03%b\x80")],
)
async def test_refused_subscription_is_an_error(protocol: Literal["5", "3.1.1"], connack: bytes, suback: bytes) -> None:
    """A filter that is none, and a SUBACK that refuses, end the program with the reason rather than in silence."""
    left = asyncio.Semaphore(0)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(connack)
        subscribe = await reader.read(1024)
        if subscribe[0] == 0x82:
            writer.write(suback % subscribe[2:4])
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.release()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    broker = Broker(host="127.0.0.1", port=server.sockets[0].getsockname()[1], protocol=protocol, client_id="watch")
    for topic_filter, message in (("#/P", "not an MQTT topic filter"), ("onset/#", "refuses the subscription")):
        with pytest.raises(ConfigError, match=message):
            await Watch(broker, topic_filter, JsonView(Console())).run(for_s=5)
        await asyncio.wait_for(left.acquire(), 5)
    server.close()


def test_terminal_table_shows_the_last_picks_once_each() -> None:
    """On a terminal a message of an id already shown replaces its row, and only the last rows stay."""
    screen = io.StringIO()
    view = TableView(Console(file=screen, force_terminal=True, width=120, height=60))
    with view.shown():
        for k in range(ROWS + 5):
            view.add(payload_of(100 * k))
            view.add(payload_of(100 * k))
    last = screen.getvalue().split("picks")[-1]
    assert last.count("BW.UH1..SHZ") == ROWS
    assert "16:24:37.315" not in last
    assert "16:24:38.315" in last


def test_terminal_table_follows_the_life_of_a_pick() -> None:
    """The highest revision is shown, whatever comes last; a retracted pick is struck out."""
    screen = io.StringIO()
    view = TableView(Console(file=screen, force_terminal=True, width=120, height=60))
    with view.shown():
        for offset, final in ((0, "retracted"), (200, "confirmed")):
            view.add(payload_of(offset, revision=1, status="provisional"))
            view.add(payload_of(offset, revision=2, status=final))
            view.add(payload_of(offset, revision=1, status="provisional"))
        view.add(payload_of(400, revision=1, status="provisional"))
        # A daemon whose setting was changed in between tells the same crossing again without a provisional one.
        view.add(payload_of(400, revision=1, status="confirmed"))
        view.add(payload_of(400, revision=1, status="provisional"))
    rows = [line for line in screen.getvalue().split("picks")[-1].splitlines() if "BW.UH1" in line]
    shown = [re.search(r"provisional|confirmed|retracted", row) for row in rows]
    assert [found and found.group() for found in shown] == ["retracted", "confirmed", "confirmed"]
    assert ["\x1b[2;9m" in row for row in rows] == [True, False, False]


def test_row_of_a_later_version_and_of_another_picker() -> None:
    """Keys added later are passed over; a pick without Onset's additions has no latency; the rest is no pick."""
    message = json.loads(payload_of())
    assert read_row(json.dumps(message | {"added": {"later": 1}}).encode()).nslc == "BW.UH1..SHZ"
    del message["analyticsInfo"]["extensions"]
    assert read_row(json.dumps(message).encode()).latency_s is None
    for bad in (b"", b"[]", b"7", b"{}", b'{"analyticsInfo": null, "channel": {"properties": 1}}', b"[" * 100_000):
        with pytest.raises(ValueError, match=r"not a pick message|Expecting value"):
            read_row(bad)
