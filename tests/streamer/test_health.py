"""``/healthz`` of a real daemon: well, and each reason why it is not; and ``streamer status``, which asks for it."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, free_port, mosquitto
from daemon_kit import channel, three_components, write_config
from health_kit import fetch, health, make_daemon, running, until
from outbox_kit import no_file_larger

from streamer import health as module
from streamer.cli import main
from streamer.decode import decode_each
from streamer.endpoint import Endpoint
from streamer.errors import BadRecord
from streamer.health import LIMITS_S, REASONS
from streamer.picking import QUEUE_RECORDS
from streamer.replay import ReplayServer, ReplaySettings
from streamer.sqlite_outbox import SqliteOutbox
from streamer.status_command import MEANING, base_url, configured_url, duration

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes two minutes in service takes a moment here."""
    for word in ("no_server", "broker_absent", "queue_full", "no_chunk"):
        monkeypatch.setitem(LIMITS_S, word, 0.5)
    monkeypatch.setattr(module, "TICK_S", 0.05)


@needs_mosquitto
async def test_well_then_without_broker_and_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """200 while all is there; 503 with a reason each when the broker and then the server go; ``status`` follows."""
    broker, port = mosquitto(tmp_path), free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(replay(tmp_path, three_components(), 5.0))
        one, _ = make_daemon(config_of(tmp_path, server.port, broker.port, port))
        with broker:
            async with running(one):
                await until(lambda: one.publisher.connected and one.picking.counts["P"] > 0)
                await until(lambda: one.health.report()[0])
                status, body = await health(port)
                assert (status, body["status"], body["reasons"]) == (200, "ok", [])
                assert body["servers"] == [{"server": f"127.0.0.1:{server.port}", "delivers": True, "absent_s": 0.0}]
                assert (body["stations"], body["broker"]["connected"]) == (1, True)
                assert await asyncio.to_thread(main, ["status", "--url", f"http://127.0.0.1:{port}"]) == 0
                text = capsys.readouterr().out
                assert "healthy" in text
                assert f"127.0.0.1:{server.port}  delivers, " in text
                assert "1 picked, 0 records waiting, 0 bad records" in text
                broker.kill()
                await until(lambda: one.health.report()[1]["reasons"] == ["broker_absent"])
                status, body = await health(port)
                assert (status, body["reasons"], body["broker"]["connected"]) == (503, ["broker_absent"], False)
                assert await gauges(port) == {word: float(word == "broker_absent") for word in REASONS}
                await stack.aclose()
                await until(lambda: "no_server" in one.health.report()[1]["reasons"])
                assert await asyncio.to_thread(main, ["status", "--config", str(tmp_path / "streamer.toml")]) == 1
                text = capsys.readouterr().out
                for part in ("not healthy", "no_server: no SeedLink server delivers", "absent for", "broker_absent: "):
                    assert part in text
                assert await asyncio.to_thread(main, ["status", "--url", f"127.0.0.1:{port}", "--json"]) == 1
                answer = json.loads(capsys.readouterr().out.splitlines()[-1])
                assert answer["metrics"]['onset_picks_total{phase="P"}'] >= 1


async def test_records_that_lead_to_nothing(tmp_path: Path) -> None:
    """Records flow, but of channels that nobody can pick: no_chunk; it is no reason while nothing flows."""
    async with replay(tmp_path, channel("HHA"), 5.0) as server:
        config = config_of(tmp_path, server.port, free_port(), free_port(), channels=())
        one, _ = make_daemon(config)
        one.health.look()
        assert "no_chunk" not in one.health._look.held_s
        async with running(one):
            await until(lambda: "no_chunk" in one.health.report()[1]["reasons"])
            assert one.picking.worked_off > 0


async def test_full_queue(tmp_path: Path) -> None:
    """The engine hangs and the queue fills up: queue_full once it has been so for a while."""
    one, _ = make_daemon(config_of(tmp_path, free_port(), free_port(), free_port()))
    record = next(item for item in decode_each(three_components()) if not isinstance(item, BadRecord))
    for _ in range(QUEUE_RECORDS):
        await one.picking.deliver(record, record.end_ns)
    one.health.look()
    assert "queue_full" not in one.health.report()[1]["reasons"]
    await asyncio.sleep(0.6)
    one.health.look()
    assert "queue_full" in one.health.report()[1]["reasons"]


async def test_disk_that_takes_nothing(tmp_path: Path) -> None:
    """The outbox's file cannot be written: said at once, and no longer when it can. In memory by choice is well."""
    outbox = SqliteOutbox(tmp_path / "outbox.sqlite", retry_s=0.05)
    one, _ = make_daemon(config_of(tmp_path, free_port(), free_port(), free_port()), outbox)
    async with running(one):
        await until(lambda: outbox.on_disk)
        assert "outbox_not_on_disk" not in one.health.report()[1]["reasons"]
        with no_file_larger(200_000):
            outbox.put("a", "onset/v1/picks/XX/ONE/--/P", b"x" * 1_000_000, time.time_ns())
            await until(lambda: "outbox_not_on_disk" in one.health.report()[1]["reasons"])
        await until(lambda: "outbox_not_on_disk" not in one.health.report()[1]["reasons"])
    await asyncio.to_thread(outbox.close)
    memory, _ = make_daemon(config_of(tmp_path, free_port(), free_port(), free_port()))
    memory.health.look()
    assert "outbox_not_on_disk" not in memory.health.report()[1]["reasons"]


async def test_blocked_event_loop_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop stands still: the endpoint answers all the same, and says so."""
    monkeypatch.setattr(module, "BLOCKED_S", 0.3)
    port = free_port()
    one, _ = make_daemon(config_of(tmp_path, free_port(), free_port(), port))
    async with running(one):
        assert (await health(port))[0] == 200
        asking = asyncio.get_running_loop().run_in_executor(None, asked_after, port, 0.7)
        time.sleep(1.2)  # noqa: ASYNC251
        status, body = await asking
    assert status == 503
    assert "event_loop_blocked" in body["reasons"]


def asked_after(port: int, wait_s: float) -> tuple[int, dict[str, Any]]:
    """``/healthz`` after a while, in a thread."""
    time.sleep(wait_s)
    return fetch(port)


def test_nobody_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No daemon, or something else: one line and status 2; likewise for settings that serve nothing."""
    port = free_port()
    assert main(["status", "--url", f"http://127.0.0.1:{port}"]) == 2
    assert f"http://127.0.0.1:{port}: no answer" in capsys.readouterr().err
    assert main(["status", "--config", str(write_config(tmp_path, seedlink=[1], mqtt=1))]) == 2
    assert "set metrics.enabled to true" in capsys.readouterr().err
    assert main(["status", "--url", "ftp://somewhere"]) == 2
    assert "not an HTTP address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:9109"), ("0.0.0.0", "http://127.0.0.1:9109"), ("::", "http://[::1]:9109")],
)
def test_settings_say_where_to_ask(tmp_path: Path, host: str, url: str) -> None:
    """An address to listen on is not always one to ask at."""
    path = write_config(tmp_path, seedlink=[1], mqtt=1, more=f'[metrics]\nenabled = true\nhost = "{host}"\n')
    assert configured_url(path) == url


def test_words_and_durations() -> None:
    """Every reason has its meaning; addresses lose their path; durations are for people."""
    assert set(MEANING) == set(REASONS)
    assert base_url("http://picker:9109/metrics") == "http://picker:9109"
    assert [duration(seconds) for seconds in (5, 75, 3 * 3600 + 120, 90_000)] == [
        "5 s",
        "1 min 15 s",
        "3 h 2 min",
        "1 d 1 h",
    ]


def test_endpoint_on_ipv6_and_taken_port(tmp_path: Path) -> None:
    """It listens on either family, and a port that is taken is the user's to mend."""
    one, _ = make_daemon(write_config(tmp_path, seedlink=[1], mqtt=1))
    with Endpoint(one.metrics.registry, one.health.report, "::1", 0) as endpoint:
        with urllib.request.urlopen(f"http://[::1]:{endpoint.port}/metrics", timeout=5) as reply:
            assert b"onset_unhealthy" in reply.read()
        with pytest.raises(Exception, match=r"metrics cannot listen on ::1:\d+ .* mend metrics.host or metrics.port"):
            Endpoint(one.metrics.registry, one.health.report, "::1", endpoint.port)


def config_of(folder: Path, seedlink: int, mqtt: int, metrics: int, **more: Any) -> Path:
    """Settings with the endpoint on a port of its own."""
    text = f"[metrics]\nenabled = true\nport = {metrics}\n"
    return write_config(folder, seedlink=[seedlink], mqtt=mqtt, more=text, **more)


def replay(folder: Path, data: bytes, speed: float) -> ReplayServer:
    """A server that plays ``data`` when it is asked."""
    path = folder / "data.mseed"
    path.write_bytes(data)
    return ReplayServer(ReplaySettings(paths=(path,), port=0, speed=speed, wait_for_client=True))


async def gauges(port: int) -> dict[str, float]:
    """``onset_unhealthy`` by reason, as Prometheus reads it."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            return str(reply.read(), "utf-8")

    lines = [line for line in (await asyncio.to_thread(read)).splitlines() if line.startswith("onset_unhealthy{")]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}
