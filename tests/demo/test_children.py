"""The demo's other processes: what fails is said once and clearly, and nothing outlives the demo."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiomqtt
import pytest

from demo import children
from demo.children import HOST, Broker, Child, DemoError, find_mosquitto, free_port
from demo.subscriber import PROTOCOLS


def script(text: str) -> list[str | Path]:
    return [sys.executable, "-c", text]


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def started(log: Path) -> int:
    """The process ID that a script writes to its log as soon as it runs."""
    while not (text := log.read_text()).endswith("\n"):
        time.sleep(0.01)
    return int(text)


async def fail_while_running(child: Child) -> int:
    """The process ID of a child whose context was left by an error."""
    process_id = 0
    with suppress(RuntimeError):
        async with child:
            process_id = await asyncio.to_thread(started, child.log)
            raise RuntimeError
    return process_id


async def test_a_child_that_fails_is_one_error_with_its_log_and_last_words(tmp_path: Path) -> None:
    """Name, exit status, path of the log, and what the process said."""
    log = tmp_path / "child.log"
    async with Child("the thing", script("print('no such key'); raise SystemExit(3)"), log) as child:
        with pytest.raises(DemoError, match=r"the thing ended with status 3: see .*child\.log") as caught:
            await child.ready(free_port())
    assert "no such key" in str(caught.value)


async def test_a_child_that_never_listens_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo does not wait for ever."""
    monkeypatch.setattr(children, "READY_S", 0.3)
    async with Child("the thing", script("import time; time.sleep(60)"), tmp_path / "child.log") as child:
        with pytest.raises(DemoError, match="the thing does not listen on"):
            await child.ready(free_port())


async def test_a_child_is_ended_when_its_context_is_left_by_an_error(tmp_path: Path) -> None:
    """Whatever happens in the demo, its processes go."""
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    process_id = await fail_while_running(Child("the thing", script(text), tmp_path / "child.log"))
    assert process_id > 0
    assert not alive(process_id)


async def test_a_child_deaf_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After STOP_S of patience."""
    monkeypatch.setattr(children, "STOP_S", 0.2)
    text = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    process_id = await fail_while_running(Child("the thing", script(text), tmp_path / "child.log"))
    assert process_id > 0
    assert not alive(process_id)


@pytest.mark.parametrize("mosquitto", [True, False], ids=["mosquitto", "amqtt"])
async def test_both_brokers_carry_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mosquitto: bool) -> None:
    """With QoS 1, in the version of MQTT that the broker says it speaks."""
    if mosquitto and find_mosquitto() is None:
        pytest.skip("Mosquitto is not installed")
    if not mosquitto:
        monkeypatch.setattr(children, "find_mosquitto", lambda: None)
    port = free_port()
    async with Broker(tmp_path, port) as broker, asyncio.timeout(20):
        assert broker.protocol == ("5" if mosquitto else "3.1.1")
        async with aiomqtt.Client(HOST, port, protocol=PROTOCOLS[broker.protocol]) as client:
            await client.subscribe("onset/#", qos=1)
            await client.publish("onset/v1/picks/BW/UH1/--/P", b"hello", qos=1)
            async for message in client.messages:
                assert message.payload == b"hello"
                break
