"""The daemon killed at any moment and started again: each pick once, under one id, and no blind minute."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, mosquitto
from daemon_kit import TICK_S, Subscriber, daemon, expected, found, subscriber, three_components, write_config

from streamer.replay import ReplayServer, ReplaySettings
from streamer.snapshot_file import read

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")

SPEED = 5.0
KEEP = '[outbox]\npath = "outbox.sqlite"\n[snapshot]\npath = "snapshot"\nevery_s = 1\n'
STATIONS = ("ONE", "TWO")


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[ReplayServer]:
    """Two stations, 40 s of data in 8 s."""
    data = folder / "data.mseed"
    data.write_bytes(b"".join(three_components(station) for station in STATIONS))
    async with ReplayServer(
        ReplaySettings(paths=(data,), host="127.0.0.1", port=0, speed=SPEED, wait_for_client=True)
    ) as server:
        yield server


async def all_picks(picks: Subscriber) -> dict[str, dict[str, Any]]:
    """The last revision of each pick by its id, when every pick that is expected was confirmed; MQTT may repeat."""
    while True:
        last: dict[str, dict[str, Any]] = {}
        for message in picks.messages:
            last[message["id"]] = max(message, last.get(message["id"], message), key=lambda one: about(one)["revision"])
        if expected(STATIONS) <= found([one for one in last.values() if about(one)["status"] == "confirmed"]):
            return last
        await picks.receive(len(picks.messages) + 1)


def about(message: dict[str, Any]) -> dict[str, Any]:
    """What Onset adds to the format."""
    extensions: dict[str, Any] = message["analyticsInfo"]["extensions"]["onset"]
    return extensions


def kept_stations(snapshot: Path) -> int:
    """How many stations the snapshot holds; 0 where there is none."""
    return int(read(snapshot).header["stations"]) if snapshot.exists() else 0


async def both_kept(snapshot: Path) -> None:
    """Wait until a snapshot holds both stations: a station that none has ever held begins afresh after a kill."""
    async with asyncio.timeout(20):
        while kept_stations(snapshot) < len(STATIONS):  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(TICK_S)


@pytest.mark.parametrize("kill_at_s", [(3.1, 5.3), (2.4, 4.6, 6.2)])
async def test_killed_daemon_makes_each_pick_once(tmp_path: Path, kill_at_s: tuple[float, ...]) -> None:
    """kill -9, again and again: the picks are those of an undisturbed run, and no arrival has two ids."""
    with mosquitto(tmp_path) as broker:
        async with served(tmp_path) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=KEEP)
            begun_s = asyncio.get_running_loop().time()
            for number, moment_s in enumerate(kill_at_s):
                async with daemon(config) as running:
                    if not number:
                        await both_kept(tmp_path / "snapshot")
                    await asyncio.sleep(max(0.5, begun_s + moment_s - asyncio.get_running_loop().time()))
                    await running.stop(signal.SIGKILL)
            async with daemon(config) as running:
                await running.logged("resumed from snapshot")
                await all_picks(picks)
                await picks.more(1.0)
                assert (await running.stop())[0] == 0
    last = await all_picks(picks)
    assert len(last) == 12
    assert found(list(last.values())) == expected(STATIONS)


async def test_orderly_restart_loses_nothing_and_starts_nothing_afresh(tmp_path: Path) -> None:
    """SIGTERM and a new start: no station begins afresh, so not even the guard after a start hides a pick."""
    with mosquitto(tmp_path) as broker:
        async with served(tmp_path) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=KEEP)
            async with daemon(config) as running:
                await asyncio.sleep(3.4)
                assert (await running.stop())[0] == 0
            async with daemon(config) as running:
                assert (await running.logged("resumed from snapshot"))["stations"] == 2
                last = await all_picks(picks)
                assert not running.of("station is picked")
                assert (await running.stop())[0] == 0
    assert found(list(last.values())) == expected(STATIONS)
    assert "reset" not in {flag for one in last.values() for flag in about(one)["quality"]}


async def test_damaged_snapshot_is_one_warning_and_a_fresh_start(tmp_path: Path) -> None:
    """Whatever stands in the file, the daemon serves."""
    (tmp_path / "snapshot").write_bytes(b"\x00" * 5000)
    with mosquitto(tmp_path) as broker:
        async with served(tmp_path) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=KEEP)
            async with daemon(config) as running:
                assert (await running.logged("snapshot refused"))["reason"] == "not a snapshot"
                await all_picks(picks)
                assert (await running.stop())[0] == 0
    assert (tmp_path / "snapshot.refused").exists()
