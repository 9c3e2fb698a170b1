"""The daemon end to end: real SeedLink servers and a real Mosquitto, the daemon as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, free_port, mosquitto
from daemon_kit import (
    P_AT_S,
    S_AT_S,
    START_NS,
    channel,
    daemon,
    expected,
    found,
    subscriber,
    three_components,
    write_config,
)
from scripted_seedlink import play, scripted_seedlink, split
from structlog.testing import capture_logs

from picker.bundle import load_bundle
from picker.stepper import OnnxStepper
from streamer.daemon import Daemon
from streamer.replay import ReplayServer, ReplaySettings
from streamer.settings import load_settings
from streamer.status import report_status

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")


@pytest.mark.parametrize("version", ["3", "4"])
async def test_picks_go_from_server_to_subscriber(tmp_path: Path, version: str) -> None:
    """Every known arrival of two stations is received once, at its time, and SIGTERM ends the daemon in order."""
    data = written(tmp_path, three_components("ONE") + three_components("TWO"))
    with mosquitto(tmp_path) as broker:
        async with replay(data) as server, subscriber(broker.port) as picks:
            config = write_config(
                tmp_path, seedlink=[server.port], mqtt=broker.port, server=f'protocol = "{version}"\n'
            )
            async with daemon(config) as running:
                messages = await picks.receive(12)
                assert await picks.more(0.5) == 0
                status, took_s = await running.stop()
    assert found(messages) == expected(["ONE", "TWO"])
    assert len({message["id"] for message in messages}) == 12
    assert {m["channel"]["properties"]["channel"] for m in messages if m["phase"] == "P"} == {"HHZ"}
    assert {m["channel"]["properties"]["channel"] for m in messages if m["phase"] == "S"} == {"HHN"}
    assert messages[0]["source"] == {"agencyID": "TEST", "author": "onset"}
    assert (status, running.of("server delivers")[0]["protocol"]) == (0, version)
    assert took_s < 5


async def test_what_was_received_is_picked_before_the_end(tmp_path: Path) -> None:
    """SIGTERM while an incomplete chunk holds a P and, cut off near its peak, an S: both are published, in time."""
    data = written(tmp_path, channel("HHZ", (12.0, 39.3)) + channel("HHN", (39.64,)))
    with mosquitto(tmp_path) as broker:
        async with replay(data) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)
            async with daemon(config) as running:
                await picks.receive(1)
                await server.wait_ended()
                await asyncio.sleep(0.3)
                assert len(picks.messages) + await picks.more(0.2) == 1, "the others still wait for more data"
                status, took_s = await running.stop()
                await picks.receive(3, 2)
    assert status == 0
    assert took_s < 5
    assert found(picks.messages) == {
        ("ONE", phase, START_NS + moment_ms * 1_000_000)
        for phase, moment_ms in (("P", 12_000), ("P", 39_300), ("S", 39_640))
    }


async def test_server_absent_at_start_is_one_warning_and_tried_again(tmp_path: Path) -> None:
    """Nobody listens at first: one warning, no crash; the picks come when the server does."""
    data, port = written(tmp_path, three_components()), free_port()
    with mosquitto(tmp_path) as broker:
        async with (
            subscriber(broker.port) as picks,
            daemon(write_config(tmp_path, seedlink=[port], mqtt=broker.port)) as running,
        ):
            await running.logged("server absent: trying again")
            await asyncio.sleep(2.5)
            assert len(running.of("server absent: trying again")) == 1
            async with replay(data, port=port):
                assert found(await picks.receive(6)) == expected()
            assert (await running.stop())[0] == 0


async def test_broker_absent_at_start_holds_picks(tmp_path: Path) -> None:
    """Picks made while there is no broker are delivered, once each, when there is one."""
    data, broker = written(tmp_path, three_components()), mosquitto(tmp_path)
    async with replay(data) as server:
        async with daemon(write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)) as running:
            await running.logged("broker absent: holding picks, trying again")
            await server.wait_ended()
            with broker:
                async with subscriber(broker.port) as picks:
                    assert found(await picks.receive(6)) == expected()
                    assert await picks.more(0.5) == 0
                assert (await running.stop())[0] == 0
        assert (await running.logged("broker connected"))["held"] >= 5


async def test_shutdown_is_in_time_without_broker_and_server(tmp_path: Path) -> None:
    """Nothing answers, and a pick is held: SIGTERM still ends the daemon within 5 s, and the loss is said."""
    data = written(tmp_path, three_components())
    async with (
        replay(data) as server,
        daemon(write_config(tmp_path, seedlink=[server.port, free_port()], mqtt=free_port())) as running,
    ):
        await running.logged("station is picked")
        await server.wait_ended()
        status, took_s = await running.stop()
    assert status == 0
    assert took_s < 5
    assert running.of("stopped")[0]["picks_not_delivered"] >= 5


async def test_second_signal_exits_at_once(tmp_path: Path) -> None:
    """While the first one waits for a broker, a later one ends the process; an echo of the first does not."""
    data = written(tmp_path, three_components())
    async with (
        replay(data) as server,
        daemon(write_config(tmp_path, seedlink=[server.port], mqtt=free_port())) as running,
    ):
        await running.logged("station is picked")
        await server.wait_ended()
        for _ in range(2):  # as timeout(1) does: to the process and to its group
            running.process.send_signal(signal.SIGTERM)
            await running.logged("stopping")
        await asyncio.sleep(0.4)
        assert running.process.returncode is None
        status, took_s = await running.stop(signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert took_s < 1


async def test_unusable_records_are_said_counted_and_passed_over(tmp_path: Path) -> None:
    """Corrupt records between good ones: one warning, each counted; all picks still come, and the metrics add up."""
    records = interleaved()
    corrupt = bytearray(records[9])
    corrupt[44:46] = b"\xff\xff"  # the header says that the samples begin beyond the record
    records[9:9] = [bytes(corrupt)]
    records[60:60] = [b"no miniSEED at all" * 20] * 2
    port = free_port()
    with mosquitto(tmp_path) as broker:
        async with scripted_seedlink(4, play(records)) as server, subscriber(broker.port) as picks:
            more = f"[metrics]\nenabled = true\nport = {port}\n"
            async with daemon(write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)) as running:
                messages = await picks.receive(6)
                await running.logged("record dropped")
                await asyncio.sleep(2.2)
                metrics = await asyncio.to_thread(read_metrics, port)
                assert (await running.stop())[0] == 0
    assert found(messages) == expected()
    assert [line["reason"] for line in running.of("record dropped")] == ["corrupt"]
    assert metrics['onset_bad_records_total{reason="corrupt"}'] == 3
    assert metrics[f'onset_records_total{{server="127.0.0.1:{server.port}"}}'] == len(records) - 3
    assert metrics['onset_picks_total{phase="P"}'] == 3
    assert metrics['onset_pick_latency_seconds_count{phase="P"}'] == 3
    assert metrics['onset_publisher_total{kind="acknowledged"}'] == 6
    assert metrics['onset_engine_total{kind="steps"}'] == metrics["onset_chunks_total"] > 40
    assert metrics['onset_station_decisions_total{reason="reset"}'] == 1
    assert (metrics["onset_stations"], metrics["onset_queue_records"], metrics["onset_outbox_picks"]) == (1, 0, 0)
    assert (
        metrics["onset_broker_connected"],
        metrics[f'onset_server_connected{{server="127.0.0.1:{server.port}"}}'],
    ) == (1, 1)


async def test_vertical_only_station_is_picked(tmp_path: Path) -> None:
    """A station with only a vertical gives its P picks, flagged, and one warning."""
    data = written(tmp_path, channel("HHZ", P_AT_S))
    with mosquitto(tmp_path) as broker:
        async with (
            replay(data) as server,
            subscriber(broker.port) as picks,
            daemon(write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)) as running,
        ):
            messages = await picks.receive(3)
            await running.logged("station has only a vertical: S picks will be rare")
            assert (await running.stop())[0] == 0
    assert found(messages) == expected(phases="P")
    quality = messages[0]["analyticsInfo"]["extensions"]["onset"]["quality"]
    assert {"missing_N", "missing_E"} <= set(quality)


async def test_station_without_usable_channel_is_a_clear_warning(tmp_path: Path) -> None:
    """Channels that nobody can pick: one warning that names the station and why; the daemon goes on."""
    data = written(tmp_path, channel("HHA") + channel("HDF"))
    async with replay(data) as server:
        config = write_config(tmp_path, seedlink=[server.port], mqtt=free_port(), channels=())
        async with daemon(config) as running:
            warning = await running.logged("station has no usable channel: it sends data but cannot be picked")
            assert (await running.stop())[0] == 0
    assert warning["station"] == "XX.ONE"
    assert warning["reasons"] == "HDF not_seismic, HHA orientation_not_picked"
    assert warning["level"] == "warning"


async def test_readiness_is_told_to_systemd(tmp_path: Path) -> None:
    """READY=1 when the daemon serves, though neither server nor broker is there; STOPPING=1 at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(5)
        config = write_config(tmp_path, seedlink=[free_port()], mqtt=free_port())
        async with daemon(config, NOTIFY_SOCKET=str(tmp_path / "notify")) as running:
            assert await asyncio.to_thread(told.recv, 64) == b"READY=1"
            assert (await running.stop(signal.SIGINT))[0] == 0
        assert told.recv(64) == b"STOPPING=1"


async def test_password_is_never_logged(tmp_path: Path) -> None:
    """A broker that refuses the user: the password is in no line, whatever the level."""
    with mosquitto(tmp_path, f"password_file {password_file(tmp_path)}\n") as broker:
        config = write_config(tmp_path, seedlink=[free_port()], mqtt=broker.port)
        text = (
            config.read_text()
            .replace("[mqtt]", '[mqtt]\nusername = "onset"')
            .replace('"json"', '"json"\nlevel = "debug"')
        )
        config.write_text(text)
        async with daemon(config, ONSET_MQTT_PASSWORD="hunter2-secret") as running:
            await running.logged("broker absent: holding picks, trying again")
            await running.stop()
    assert "hunter2" not in str(running.lines)


async def test_status_line_says_how_the_daemon_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every minute (here sooner) one line; while no station is picked, one warning that says where to look."""
    monkeypatch.setattr("streamer.status.LINE_EVERY_S", 0.02)
    monkeypatch.setattr("streamer.status.REFRESH_EVERY_S", 0.01)
    settings = load_settings(write_config(tmp_path, seedlink=[free_port()], mqtt=free_port()))
    bundle = load_bundle(settings.bundle.path)
    with capture_logs() as logs:
        task = asyncio.create_task(report_status(Daemon(settings, bundle, OnnxStepper(bundle))))
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    lines = [line for line in logs if line["event"] == "status"]
    assert len(lines) >= 2
    assert lines[0] == {
        "event": "status", "log_level": "info", "servers": "0/1", "stations": 0, "steps": 0, "acknowledged": 0,
        "picks_P": 0, "picks_S": 0, "picks_given_up": 0, "disk_failures": 0, "records_waiting": 0, "broker": False,
        "picks_held": 0, "held_bytes": 0, "oldest_held_s": 0.0, "picks_unwritten": 0,
    }  # fmt: skip
    assert len([line for line in logs if line["log_level"] == "warning"]) == 1


def replay(path: Path, **others: Any) -> ReplayServer:
    """A server that plays ``path`` at 20 times its speed when the daemon asks for data."""
    return ReplayServer(ReplaySettings(paths=(path,), **{"port": 0, "speed": 20.0, "wait_for_client": True, **others}))


def written(folder: Path, data: bytes) -> Path:
    """A file of ``data``."""
    path = folder / "data.mseed"
    path.write_bytes(data)
    return path


def interleaved() -> list[bytes]:
    """The records of ``three_components`` in the order of their time."""
    parts = [split(channel(code, at_s)) for code, at_s in (("HHZ", P_AT_S), ("HHN", S_AT_S), ("HHE", ()))]
    return [record for together in zip(*parts, strict=True) for record in together]


def password_file(folder: Path) -> Path:
    """A Mosquitto password file that knows nobody whom the tests are."""
    path = folder / "passwords"
    path.write_text("someone:$7$101$AAAA$AAAA\n")
    path.chmod(0o600)
    return path


def read_metrics(port: int) -> dict[str, float]:
    """Every sample that the daemon serves."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}
