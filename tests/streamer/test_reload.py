"""A second model in the running daemon: beside the first (shadow), and in its place (SIGHUP)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from broker import MOSQUITTO, free_port, mosquitto
from daemon_kit import ROOT, daemon, expected, found, subscriber, three_components, write_config
from health_kit import until
from test_daemon import read_metrics, replay, written
from test_snapshot_restart import KEEP, STATIONS, about, all_picks, served
from tiny_bundle import write_tiny_bundle

from picker.bundle import load_bundle
from picker.stepper import OnnxStepper
from streamer.cli import main
from streamer.compare import without_arrival
from streamer.daemon import Daemon
from streamer.reload import RESULTS
from streamer.settings import load_settings

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")

REFUSED = "reload refused: the daemon goes on as it was"
SHADOW = "onset-shadow/v1"
NEW = {"P": 0.6, "S": 0.6}


@contextlib.asynccontextmanager
async def shadow_picks(port: int) -> AsyncIterator[list[dict[str, Any]]]:
    """The picks that come under the shadow's root."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe(f"{SHADOW}/picks/#", qos=1)
        messages: list[dict[str, Any]] = []

        async def read() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                messages.append(json.loads(message.payload))

        reading = asyncio.create_task(read())
        yield messages
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def name_bundle(config: Path, name: str, more: str = "") -> None:
    """Let the settings name another bundle, as an operator would."""
    table = f'[bundle]\npath = "{name}"\n{more}['
    config.write_text(re.sub(r"\[bundle\]\n[^\[]*\[", table, config.read_text(), count=1))


async def test_shadow_publishes_what_it_would_as_the_first(tmp_path: Path) -> None:
    """The same bundle twice: the same messages under both roots, once each; what the first publishes is unchanged."""
    data, port = written(tmp_path, three_components("ONE") + three_components("TWO")), free_port()
    more = f'[shadow]\npath = "bundle"\n[metrics]\nenabled = true\nport = {port}\n'
    with mosquitto(tmp_path) as broker:
        async with (
            replay(data) as server,
            subscriber(broker.port) as picks,
            shadow_picks(broker.port) as shadows,
            daemon(write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)) as running,
        ):
            messages = await picks.receive(12)
            await until(lambda: len(shadows) >= 12)
            await asyncio.sleep(2.2)
            metrics = await asyncio.to_thread(read_metrics, port)
            assert await picks.more(0.3) == 0
            assert (await running.stop())[0] == 0
    assert found(messages) == found(shadows) == expected(STATIONS)
    assert sorted(map(without_arrival, messages)) == sorted(map(without_arrival, shadows))
    assert metrics["onset_shadow_running"] == 1
    assert metrics['onset_shadow_total{kind="P"}'] == metrics['onset_picks_total{phase="P"}'] == 6
    assert metrics["onset_shadow_outbox_picks"] == 0
    assert metrics["onset_tasks"] > 5


async def test_shadow_that_cannot_be_opened_keeps_nobody_from_picking(tmp_path: Path) -> None:
    """A candidate that was removed: one error line and a metric, and the daemon picks; ``--check`` says it."""
    data, port = written(tmp_path, three_components()), free_port()
    more = f'[shadow]\npath = "removed"\n[metrics]\nenabled = true\nport = {port}\n'
    with mosquitto(tmp_path) as broker:
        async with replay(data) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            async with daemon(config) as running:
                line = await running.logged("shadow model cannot be opened: picks of the first model alone")
                assert "removed" in line["reason"]
                assert found(await picks.receive(6)) == expected()
                metrics = await asyncio.to_thread(read_metrics, port)
                assert (await running.stop())[0] == 0
    assert metrics["onset_shadow_running"] == 0
    assert main(["run", "--config", str(config), "--check"]) == 2


async def test_live_comparison_of_both(tmp_path: Path) -> None:
    """``compare --config`` listens to both roots and says how they differ; this shadow has a threshold of its own."""
    data = written(tmp_path, three_components())
    more = '[shadow]\npath = "bundle"\nthresholds = { S = 0.95 }\n'
    with mosquitto(tmp_path) as broker:
        async with replay(data) as server:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            comparing = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "streamer", "compare", "--config", str(config), "--for-s", "9",
                cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert comparing.stderr is not None
            told = [await asyncio.wait_for(comparing.stderr.readline(), 10) for _ in range(2)]
            assert b"watching" in told[0]
            async with daemon(config) as running:
                out, _ = await asyncio.wait_for(comparing.communicate(), 20)
                assert (await running.stop())[0] == 0
    assert out.decode().startswith("A 6 picks, B 3; matched 3, identical 3, only in A 3, only in B 0")
    assert comparing.returncode == 1


async def test_bundle_is_swapped_under_flow(tmp_path: Path) -> None:
    """SIGHUP with another bundle: every arrival once, the first by the old model, the last by the new; then a restart
    resumes with the new one, and the way back is the same."""
    write_tiny_bundle(tmp_path / "new", NEW)
    with mosquitto(tmp_path) as broker:
        async with served(tmp_path) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=KEEP)
            async with daemon(config) as running:
                await picks.receive(1)
                name_bundle(config, "new", "warm_up_s = 4.0\n")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("bundle warms up")
                swapped = await running.logged("bundle swapped")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("settings read again: the bundle is the one that picks")
                await asyncio.sleep(1.2)
                assert (await running.stop())[0] == 0
                worse = {line["event"] for line in running.lines if line["level"] in ("warning", "error")}
                assert worse <= {"stations need attention"}, "the recorded data are old"
            async with daemon(config) as running:
                assert (await running.logged("resumed from snapshot"))["stations"] == 2
                await all_picks(picks)
                await picks.more(1.0)
                name_bundle(config, "bundle", "warm_up_s = 0.0\n")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("bundle warms up")
                assert (await running.stop())[0] == 0
    messages = list((await all_picks(picks)).values())
    assert found(messages) == expected(STATIONS)
    assert len(messages) == 12
    digests = [about(message)["bundle_digest"] for message in sorted(messages, key=lambda one: one["time"])]
    old, new = (load_bundle(tmp_path / name).digest for name in ("bundle", "new"))
    assert swapped["digest"] == new[:12]
    assert (digests[0], digests[-1]) == (old, new)
    assert set(digests) == {old, new}


async def test_killed_while_it_warms_up(tmp_path: Path) -> None:
    """kill -9 amid the warm-up, and a start with the new bundle: every arrival is picked, and no data are missed."""
    new = load_bundle(write_tiny_bundle(tmp_path / "new", NEW))
    with mosquitto(tmp_path) as broker:
        async with served(tmp_path) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=KEEP)
            async with daemon(config) as running:
                await picks.receive(2)
                name_bundle(config, "new", "warm_up_s = 60.0\n")
                running.process.send_signal(signal.SIGHUP)
                await running.logged("bundle warms up")
                await asyncio.sleep(2.5)
                await running.stop(signal.SIGKILL)
            async with daemon(config) as running:
                assert (await running.logged("resumed from snapshot"))["stations"] == 2
                await all_picks(picks)
                await picks.more(1.0)
                assert not running.of("station is picked")
                worse = {line["event"] for line in running.lines if line["level"] in ("warning", "error")}
                assert worse <= {"stations need attention"}, "the snapshot is of the bundle that warmed up"
                assert (await running.stop())[0] == 0
    messages = list((await all_picks(picks)).values())
    assert found(messages) == expected(STATIONS)
    digests = [about(message)["bundle_digest"] for message in sorted(messages, key=lambda one: one["time"])]
    assert digests[0] != digests[-1] == new.digest


async def test_reload_of_wrong_settings_changes_nothing(tmp_path: Path) -> None:
    """Broken TOML, a bundle that is not there or damaged, other keys: a line each, and the picks go on."""
    data = written(tmp_path, three_components())
    broken = write_tiny_bundle(tmp_path / "broken", NEW)
    (broken / "model.onnx").write_bytes(b"no graph")
    with mosquitto(tmp_path) as broker:
        async with replay(data, speed=5.0) as server, subscriber(broker.port) as picks:
            port = free_port()
            more = f"[metrics]\nenabled = true\nport = {port}\n"
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            good = config.read_text()
            async with daemon(config) as running:
                await running.logged("station is picked")
                for text, part in (
                    ("agency = [", "not TOML"),
                    (good.replace('"bundle"', '"absent"'), "absent"),
                    (good.replace('"bundle"', '"broken"'), "broken"),
                ):
                    config.write_text(text)
                    told = len(running.of(REFUSED))
                    running.process.send_signal(signal.SIGHUP)
                    await until(lambda told=told: len(running.of(REFUSED)) > told)
                    assert part in running.of(REFUSED)[-1]["reason"]
                config.write_text(good.replace("TEST", "ELSE").replace("[mqtt]", "[stations]\nguard_s = 5\n[mqtt]"))
                running.process.send_signal(signal.SIGHUP)
                line = await running.logged("settings have changed that need a restart")
                assert line["keys"] == "agency, stations.guard_s"
                assert found(await picks.receive(6)) == expected()
                assert not running.of("bundle warms up")
                metrics = await asyncio.to_thread(read_metrics, port)
                assert (await running.stop())[0] == 0
    counts = {result: metrics[f'onset_reloads_total{{result="{result}"}}'] for result in RESULTS}
    assert counts == {"warming_up": 0, "same_bundle": 1, "refused": 3, "failed": 0}
    assert metrics["onset_swap_running"] == 0
    assert {message["source"]["agencyID"] for message in picks.messages} == {"TEST"}


async def test_reload_is_told_to_systemd(tmp_path: Path) -> None:
    """RELOADING=1 and READY=1 again, whatever comes of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(5)
        config = write_config(tmp_path, seedlink=[free_port()], mqtt=free_port())
        async with daemon(config, NOTIFY_SOCKET=str(tmp_path / "notify")) as running:
            assert await asyncio.to_thread(told.recv, 64) == b"READY=1"
            running.process.send_signal(signal.SIGHUP)
            assert await asyncio.to_thread(told.recv, 64) == b"RELOADING=1"
            assert await asyncio.to_thread(told.recv, 64) == b"READY=1"
            assert (await running.stop())[0] == 0


def test_second_bundle_while_one_warms_up_is_known(tmp_path: Path) -> None:
    """A daemon says whether a swap is under way; one without stations is ready for it at the first round."""
    settings = load_settings(write_config(tmp_path, seedlink=[1], mqtt=1))
    old, new = load_bundle(settings.bundle.path), load_bundle(write_tiny_bundle(tmp_path / "new", NEW))
    one = Daemon(settings, old, OnnxStepper(old))
    assert not one.swapping
    one.swap(settings, new, OnnxStepper(new))
    assert one.swapping
