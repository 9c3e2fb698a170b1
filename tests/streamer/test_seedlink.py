"""The reader of one server against real sockets: records out, and every way in which a connection ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from broker import free_port
from daemon_kit import DURATION_S, START_NS, channel, three_components
from scripted_seedlink import RECORD_BYTES, Client, close, play, scripted_seedlink, split
from seedlink_kit import reading
from structlog.testing import capture_logs

from streamer.record import Nslc
from streamer.replay import ReplayServer, ReplaySettings
from streamer.replay.rewrite import rewrite

RECORDS = split(channel("HHZ"))


@pytest.mark.parametrize("version", ["3", "4", "auto"])
async def test_records_arrive_complete_in_either_version(tmp_path: Path, version: str) -> None:
    """Every sample of three channels from the replay server, in SeedLink 3 and 4."""
    path = tmp_path / "data.mseed"
    path.write_bytes(three_components())
    settings = ReplaySettings(paths=(path,), port=0, speed=1000.0, wait_for_client=True)
    async with ReplayServer(settings) as server, reading(server.port, protocol=version) as one:
        await one.until(lambda: sum(len(record.samples) for record in one.records) == 3 * 100 * DURATION_S)
        assert {record.nslc for record in one.records} == {Nslc("XX", "ONE", "", f"HH{letter}") for letter in "ZNE"}
        assert one.reader.receiving


@pytest.mark.parametrize(
    ("streams", "commands"),
    [
        (
            [{"network": "GE", "station": "WLF", "location": "--", "channels": ["BH?"]},
             {"network": "XX", "station": "*", "channels": ["HHZ", "EH?"]}],
            ["STATION GE_WLF", "SELECT _B_H_?", "DATA", "STATION XX_*", "SELECT *_H_H_Z", "SELECT *_E_H_?", "DATA"],
        ),
        ([{"network": "*", "station": "*", "channels": []}], ["STATION *", "DATA"]),
    ],
)  # fmt: skip
async def test_selection_is_what_the_server_is_asked_for(streams: list[dict[str, Any]], commands: list[str]) -> None:
    """Stations, locations and channels with wildcards, in the server's own syntax."""
    async with scripted_seedlink(4, play(RECORDS[:1])) as server, reading(server.port, streams=streams) as one:
        await one.until(lambda: len(one.records) == 1)
    asked = server.clients[0].commands
    assert asked[asked.index("STATION " + commands[0].split()[1]) : -1] == commands


async def test_reconnects_with_jittered_backoff_and_one_warning() -> None:
    """Nobody listens: delays double from 1 s to 60 s (here the jitter takes half), and only the first is a warning."""
    with capture_logs() as logs:
        async with reading(free_port()) as one:
            await one.until(lambda: len(one.slept_s) >= 9)
    assert one.slept_s[:9] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    told = [line for line in logs if line["event"] == "server absent: trying again"]
    assert [line["log_level"] for line in told][:3] == ["warning", "debug", "debug"]
    assert one.count("onset_reconnects_total", server=one.reader.settings.address) >= 9


async def test_silent_server_is_left_after_the_idle_timeout() -> None:
    """It sends a record and then nothing, without closing: the reader reconnects and asks for what it missed."""
    async with (
        scripted_seedlink(4, play(RECORDS[:2]), play(RECORDS[2:4])) as server,
        reading(server.port, idle_timeout_s=0.3) as one,
    ):
        await one.until(lambda: len(one.records) == 4)
    first, second = (client.commands for client in server.clients[:2])
    assert "DATA" in first
    assert [line for line in second if line.startswith("DATA ALL 2023-11-14T22:13:2")]


async def test_frame_that_stops_half_way_is_left_after_the_idle_timeout() -> None:
    """Half a packet and silence: the connection does not hang for ever."""

    async def half(client: Client) -> None:
        client.writer.write(b"SE2D\x00\x02\x00\x00" + b"\x00" * 20)
        await asyncio.Event().wait()

    async with (
        scripted_seedlink(4, half, play(RECORDS[:1])) as server,
        reading(server.port, idle_timeout_s=0.3) as one,
    ):
        await one.until(lambda: len(one.records) == 1)


@pytest.mark.parametrize(
    "ending",
    [b"END", b"ERROR UNEXPECTED go away\r\n", b"garbage that is no packet", b"SEJE\xff\xff\xff\xff" + b"\xff" * 9],
)
async def test_endings_of_a_stream_reconnect(ending: bytes) -> None:
    """END, ERROR, garbage, an impossible header: each is one warning, a reconnect, and the data go on."""

    async def end(client: Client) -> None:
        client.writer.write(ending)
        await asyncio.sleep(5)

    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, play(RECORDS[:2], end), play(RECORDS[2:3])) as server,
            reading(server.port) as one,
        ):
            await one.until(lambda: len(one.records) == 3)
    assert len([line for line in logs if line["event"] == "server absent: trying again"]) == 1
    assert len([line for line in logs if line["event"] == "server delivers"]) == 2


async def test_missed_data_are_fetched_after_a_reconnect_in_version_3() -> None:
    """SeedLink 3: the window begins at the end of the channel that is furthest behind."""
    vertical, north = split(channel("HHZ")), split(channel("HHN"))
    async with (
        scripted_seedlink(3, play([*vertical[:5], *north[:3]], close), play([*north[3:5], *vertical[4:6]])) as server,
        reading(server.port) as one,
    ):
        await one.until(lambda: len(one.records) == 11)
    assert one.count("onset_records_seen_total", server=one.reader.settings.address) == 1
    behind_s = one.records[7].end_ns // 10**9 - START_NS // 10**9
    assert f"TIME 2023,11,14,22,13,{20 + behind_s}" in server.clients[1].commands


async def test_record_that_breaks_the_protocol_again_and_again_is_given_up() -> None:
    """SeedLink 3 without a readable record length: after two fruitless attempts the reader asks for new data only."""

    poison = bytes(16 * RECORD_BYTES)
    async with (
        scripted_seedlink(3, play([RECORDS[0], poison]), play([RECORDS[0], poison]), play([RECORDS[0], poison]),
                          play(RECORDS[2:5])) as server,
        reading(server.port) as one,
    ):  # fmt: skip
        await one.until(lambda: len(one.records) >= 4)
    assert ["TIME" in " ".join(client.commands) for client in server.clients[:4]] == [False, True, True, False]


async def test_bad_records_are_counted_and_warned_once() -> None:
    """Between good ones: all good ones arrive, each bad one is counted by reason, one warning a reason."""
    cut, text = RECORDS[1][:300], b"X" * 80

    async def script(client: Client) -> None:
        for payload in (RECORDS[0], cut, cut, text, RECORDS[2]):
            client.send(1, payload)
        client.send(1, b"{}", kind=b"JX")
        client.send(1, RECORDS[3])
        await asyncio.sleep(5)

    with capture_logs() as logs:
        async with scripted_seedlink(4, script) as server, reading(server.port) as one:
            await one.until(lambda: len(one.records) == 3)
    assert one.count("onset_bad_records_total", reason="corrupt") == 3
    assert one.count("onset_bad_records_total", reason="not_miniseed") == 1
    assert [line["reason"] for line in logs if line["event"] == "record dropped"] == ["corrupt", "not_miniseed"]
    assert one.count("onset_packets_total", server=one.reader.settings.address) == 7
    assert one.count("onset_records_total", server=one.reader.settings.address) == 3


async def test_back_pressure_reaches_the_server() -> None:
    """Nobody takes the records: the server cannot send more than the buffers on the way hold; then all arrive."""
    sent = 0

    async def flood(client: Client) -> None:
        nonlocal sent
        for sequence in range(40_000):
            client.send(sequence, rewrite(RECORDS[0], "2", shift_s=-sequence))
            await client.writer.drain()
            sent = sequence + 1
        await asyncio.sleep(60)

    async with scripted_seedlink(4, flood) as server, reading(server.port, idle_timeout_s=0.5) as one:
        one.room.clear()
        await one.until(lambda: sent > 10)
        await asyncio.sleep(1.0)
        stuck = sent
        await asyncio.sleep(0.5)
        assert sent == stuck < 40_000
        assert one.records == []
        one.room.set()
        await one.until(lambda: len(one.records) == 40_000, 30)
    assert len(server.clients) == 1, "waiting for room is not idleness"


async def test_stop_delivers_the_packet_in_hand() -> None:
    """A record that was received and waits for room is not dropped by a stop."""
    async with scripted_seedlink(4, play(RECORDS[:5])) as server, reading(server.port) as one:
        one.room.clear()
        await one.until(lambda: one.count("onset_packets_total", server=one.reader.settings.address) == 1)
        one.reader.stop()
        await asyncio.sleep(0.05)
        assert one.records == []
        one.room.set()
        await one.until(lambda: len(one.records) == 1)
    assert len(one.records) == 1
