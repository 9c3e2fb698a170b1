"""The release gate: a live run of the daemon that keeps a capture, and the capture played back, make the same picks."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archive_kit import COMPONENTS, packets
from broker import MOSQUITTO, mosquitto
from capture_kit import in_thread, timeless_bytes
from daemon_kit import (
    P_AT_S,
    ROOT,
    SECOND_NS,
    START_NS,
    channel,
    daemon,
    expected,
    found,
    subscriber,
    three_components,
    write_config,
)
from scripted_seedlink import Client, Script, close, scripted_seedlink, silence, split
from station_data import miniseed

from streamer.capture.entry import CapturedPacket
from streamer.capture.reader import Capture
from streamer.replay import ReplayServer, ReplaySettings

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")

GAPS = {"HHZ": ((17.0, 18.5), (26.0, 28.5)), "HHN": ((17.0, 18.5), (25.5, 29.0)), "HHE": ((3.0, 19.0), (26.0, 29.0))}
MORE = '[capture]\npath = "captures"\n[picks]\nprovisional = true\nthresholds = { P = 0.4 }\n'


def data_with_gaps() -> bytes:
    """A station with short, long and one-sided gaps, and one that is whole."""
    torn = (record for code, at_s in COMPONENTS.items() for record in packets(code, at_s, (150, 90), gaps_s=GAPS[code]))
    return b"".join(torn) + three_components("TWO", START_NS + 3 * SECOND_NS)


async def live(folder: Path, servers: Sequence[ReplayServer], port: int, more: str = MORE) -> list[dict[str, Any]]:
    """The messages of a daemon that reads ``servers`` to their end and keeps a capture."""
    config = write_config(folder, seedlink=[server.port for server in servers], mqtt=port, more=more)
    async with subscriber(port) as picks:
        async with daemon(config) as running:
            for server in servers:
                await server.wait_ended()
            await asyncio.sleep(1.0)
            assert (await running.stop())[0] == 0
        await picks.more(0.5)
    return picks.messages


def replay(path: Path, **more: Any) -> ReplayServer:
    """A server that waits for its client."""
    return ReplayServer(ReplaySettings(paths=(path,), port=0, speed=20.0, wait_for_client=True, **more))


async def test_the_capture_of_a_live_run_gives_its_picks_again(tmp_path: Path) -> None:
    """Two servers, gaps, provisional picks: straight through the picking and over SeedLink, equal to the byte."""
    second = tmp_path / "second"
    second.mkdir()
    (tmp_path / "one.mseed").write_bytes(data_with_gaps())
    (tmp_path / "two.mseed").write_bytes(three_components("THREE"))
    with mosquitto(tmp_path) as broker:
        async with (
            replay(tmp_path / "one.mseed", jitter_s=1.5, reorder=True) as one,
            replay(tmp_path / "two.mseed", first_sequence=1000) as two,
        ):
            before = await live(tmp_path, [one, two], broker.port)
        config = tmp_path / "streamer.toml"
        straight = await in_thread(tmp_path, "--config", config, tmp_path / "captures")
        again = await in_thread(tmp_path, "--config", config, tmp_path / "captures")
        async with replay(tmp_path / "captures", capture=True) as server:
            served = await live(second, [server], broker.port)
    assert len({message["id"] for message in before}) >= 12
    assert {message["analyticsInfo"]["extensions"]["onset"]["status"] for message in before} >= {
        "provisional",
        "confirmed",
    }
    assert timeless_bytes(straight) == timeless_bytes(before)
    assert timeless_bytes(served) == timeless_bytes(before)
    assert again == straight
    assert data_latencies(straight) == data_latencies(before), "the captured arrival times are the clock"
    assert data_latencies(served) != data_latencies(before)


def data_latencies(messages: Sequence[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """From the last sample to the arrival of the record that completed the chunk, by message."""
    onsets = [(message["id"], message["analyticsInfo"]["extensions"]["onset"]) for message in messages]
    return {(name, onset["revision"]): onset["latency"]["data_s"] for name, onset in onsets}


@pytest.mark.parametrize(
    ("how", "more"),
    [(signal.SIGKILL, ""), (signal.SIGTERM, '[snapshot]\npath = "snapshot"\n')],
    ids=["killed", "kept"],
)
async def test_what_was_open_at_the_end_is_left_open(tmp_path: Path, how: signal.Signals, more: str) -> None:
    """A daemon that is killed, or keeps its state: the picks are those that were published, and no others."""
    (tmp_path / "one.mseed").write_bytes(three_components("ONE"))
    with mosquitto(tmp_path) as broker:
        async with replay(tmp_path / "one.mseed") as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=MORE + more)
            async with daemon(config) as running:
                await server.wait_ended()
                await asyncio.sleep(1.0)
                await running.stop(how)
            await picks.more(0.3)
        straight = await in_thread(tmp_path, "--config", config, tmp_path / "captures")
    assert len(picks.messages) >= 5
    assert timeless_bytes(straight) == timeless_bytes(picks.messages)


async def test_packets_that_were_left_aside_are_left_aside_again(tmp_path: Path) -> None:
    """A server that leaves data out after a lost connection is asked again by time: the same picks, the same way."""
    records = split(channel("HHZ", P_AT_S))

    def script(begin: int, end: int, then: Script) -> Script:
        async def run(client: Client) -> None:
            for number in range(begin, end):
                client.send(number, records[number])
                await client.writer.drain()
                await asyncio.sleep(0.01)
            await then(client)

        return run

    scripts = script(0, 19, close), script(25, 26, silence), script(0, len(records), silence)
    with mosquitto(tmp_path) as broker:
        async with scripted_seedlink(4, *scripts) as server, subscriber(broker.port) as picks:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=MORE)
            config.write_text(config.read_text().replace('station = "*"', 'station = "ONE"'))
            async with daemon(config) as running:
                await picks.receive(3)
                await asyncio.sleep(0.5)
                assert (await running.stop())[0] == 0
            await picks.more(0.5)
        straight = await in_thread(tmp_path, "--config", config, tmp_path / "captures")
    placed = list(Capture([tmp_path / "captures"]))
    assert [one.packet.sequence for one in placed if not one.packet.taken] == [25]
    assert len(placed) == 19 + 1 + len(records)
    confirmed = [one for one in straight if one["analyticsInfo"]["extensions"]["onset"]["status"] == "confirmed"]
    assert found(confirmed) == expected(phases="P")
    assert timeless_bytes(straight) == timeless_bytes(picks.messages)


async def test_the_command_keeps_packets_without_picking(tmp_path: Path) -> None:
    """``streamer capture`` as a process: what it kept, played, gives every pick; numbers and servers are as sent."""
    (tmp_path / "one.mseed").write_bytes(three_components("ONE") + channel("LHZ"))
    async with replay(tmp_path / "one.mseed", first_sequence=500) as server:
        address = f"127.0.0.1:{server.port}"
        config = write_config(tmp_path, seedlink=[server.port], mqtt=1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "streamer", "capture", "--config", str(config), "--gzip",
            str(tmp_path / "out"), cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await server.wait_ended()
        await asyncio.sleep(0.5)
        process.terminate()
        _, said = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, said
    assert "1 stations" in said.decode().splitlines()[-1]
    (file,) = (tmp_path / "out").iterdir()
    assert file.name.endswith(".capture.gz")
    capture = Capture([tmp_path / "out"])
    placed = list(capture)
    assert {one.server for one in placed} == {address}
    assert [one.packet.sequence for one in placed] == sorted(one.packet.sequence or 0 for one in placed)
    assert placed[0].packet.sequence >= 500
    assert capture.files[0][1].servers[0].streams == ("XX_* HH?",)
    assert all(isinstance(one.packet, CapturedPacket) for one in placed)
    straight = await in_thread(tmp_path, file)
    assert len(straight) == 6
    assert json.dumps(straight) == json.dumps(await in_thread(tmp_path, tmp_path / "out"))


async def test_the_shipped_model_makes_the_same_picks_in_any_company(tmp_path: Path) -> None:
    """The real network on noise, low thresholds: live, station by station in other batches than in the playback."""
    stations = [f"N{number:02d}" for number in range(7)]
    (tmp_path / "noise.mseed").write_bytes(b"".join(noise(station, seed) for seed, station in enumerate(stations)))
    more = '[capture]\npath = "captures"\n[picks]\nthresholds = { P = 0.02, S = 0.02 }\n'
    with mosquitto(tmp_path) as broker:
        async with replay(tmp_path / "noise.mseed", jitter_s=2.0) as server:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            config.write_text(config.read_text().replace('"bundle"', f'"{ROOT / "models" / "small"}"'))
            async with subscriber(broker.port) as picks:
                async with daemon(config) as running:
                    await server.wait_ended()
                    await asyncio.sleep(1.5)
                    assert (await running.stop())[0] == 0
                await picks.more(0.5)
        straight = await in_thread(tmp_path, "--config", config, tmp_path / "captures")
        one_by_one = await in_thread(tmp_path, "--config", config, "--batch", "1", tmp_path / "captures")
    assert len(picks.messages) > 10
    assert timeless_bytes(straight) == timeless_bytes(picks.messages)
    assert one_by_one == straight


def noise(station: str, seed: int) -> bytes:
    """A minute of three components of noise with a step in loudness: the network picks something in it."""
    generator = np.random.default_rng(seed)
    out = []
    for code in ("HHZ", "HHN", "HHE"):
        samples = generator.normal(0, 50, 6000)
        samples[2500 + 40 * seed :] *= 30
        out.append(
            miniseed(samples.astype(np.int32), source_id=f"FDSN:XX_{station}__{'_'.join(code)}", start_ns=START_NS)
        )
    return b"".join(out)
