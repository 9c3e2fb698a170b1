"""Which stations a reader asks for: wildcards by the server's list, new ones meanwhile, and servers without list."""

from __future__ import annotations

import asyncio
import json
import struct
from pathlib import Path

import pytest
from daemon_kit import DURATION_S, channel, three_components
from scripted_seedlink import Client, close, play, scripted_seedlink, silence, split
from seedlink_kit import reading
from structlog.testing import capture_logs

from streamer.replay import ReplayServer, ReplaySettings

SAMPLES = 100 * DURATION_S
ONE, TWO = split(channel("HHZ", station="ONE")), split(channel("HHZ", station="TWO"))


def listed(*stations: str) -> bytes:
    """The answer to INFO STREAMS of version 4."""
    streams = [{"id": "_H_H_Z", "format": "2", "subformat": "D", "start_time": "x", "end_time": "x"}]
    document = json.dumps({"station": [{"id": name, "stream": streams} for name in stations]}).encode()
    return struct.pack("<2s2sIQB", b"SE", b"JI", len(document), 0, 0) + document


def asked(client: Client) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in client.commands if line.startswith("STATION")]


@pytest.mark.parametrize("version", ["3", "4"])
async def test_wildcard_is_expanded_by_the_servers_list(tmp_path: Path, version: str) -> None:
    """Each station is asked for by its name, so that it can go on by its own number; the other network is not."""
    paths = []
    for name in ("ONE", "TWO", "SIX"):
        paths.append(tmp_path / f"{name}.mseed")
        paths[-1].write_bytes(three_components(name))
    streams = [{"network": "X?", "station": "?*", "channels": ["HHZ"]},
               {"network": "YY", "station": "*"}]  # fmt: skip
    settings = ReplaySettings(paths=tuple(paths), port=0, speed=1000.0, wait_for_client=True)
    async with ReplayServer(settings) as server, reading(server.port, protocol=version, streams=streams) as one:
        await one.until(lambda: one.samples() == {f"XX.{name}..HHZ": SAMPLES for name in ("ONE", "TWO", "SIX")})
        (connection,) = server._connections
        assert set(connection._session._stations) == {"XX_ONE", "XX_TWO", "XX_SIX"}


async def test_station_that_appears_later_is_found() -> None:
    """The list is read again from time to time; nothing happens until it names another station, then all go on."""
    there = ["XX_ONE"]
    first, second = asyncio.Event(), asyncio.Event()

    async def serve(client: Client) -> None:
        names = asked(client)
        begin = 6 if "DATA 6" in client.commands else 1
        for number in range(begin, 11 if len(names) > 1 else 6):
            for name, records in (("XX_ONE", ONE), ("XX_TWO", TWO)):
                if name in names:
                    client.send(number, records[number - 1], name.encode())
        await client.writer.drain()
        (second if len(names) > 1 else first).set()
        await silence(client)

    streams = [{"network": "XX", "station": "*", "channels": ["HHZ"]}]
    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, serve, info=lambda: listed(*there)) as server,
            reading(server.port, streams=streams, look_for_stations_min=0.01) as one,
        ):
            await asyncio.wait_for(first.wait(), 5)
            await one.until(lambda: sum("INFO STREAMS XX_*" in client.commands for client in server.clients[1:]) >= 2)
            assert "END" not in server.clients[1].commands
            there.append("XX_TWO")
            await asyncio.wait_for(second.wait(), 5)
            await one.until(lambda: len(one.records) == 15)
            assert one.samples().keys() == {"XX.ONE..HHZ", "XX.TWO..HHZ"}
            assert one.slept_s == []
            assert one.resumed() == {"sequence": 1}
    assert [line["stations"] for line in logs if line["event"] == "server has new stations"] == ["XX_TWO"]
    assert not [line for line in logs if line["event"] == "server absent: trying again"]


async def test_station_that_the_server_does_not_know_does_not_hold_up_the_others() -> None:
    """In version 4 an unknown name is an ERROR: it is left out, said, and looked for again."""
    names = [{"network": "XX", "station": name, "channels": ["HHZ"]} for name in ("ONE", "TYPO")]
    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, play(ONE[:3]), refuse=("STATION XX_TYPO",)) as server,
            reading(server.port, streams=names) as one,
        ):
            await one.until(lambda: len(one.records) == 3)
    assert asked(server.clients[0]) == ["XX_ONE", "XX_TYPO"]
    assert server.clients[0].commands[-3:] == ["DATA", "STATION XX_TYPO", "END"]
    assert [line["stations"] for line in logs if line["event"] == "server does not know stations"] == ["XX_TYPO"]


async def test_server_without_a_list_is_asked_for_the_wildcard() -> None:
    """It answers INFO with ERROR: that is said once, and after a loss it is asked by time."""
    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, play(ONE[:5], close), play(ONE[4:6], close), play(ONE[6:8])) as server,
            reading(server.port) as one,
        ):
            await one.until(lambda: len(one.records) == 8)
    assert [asked(client) for client in server.clients[:3]] == [["XX_*"]] * 3
    assert one.resumed() == {"window": 2}
    assert len([line for line in logs if line["event"].startswith("server gives no list")]) == 1


@pytest.mark.parametrize("answer", [b"what?\r\n", b"", b"SLINFO  " + b"\0" * 512])
async def test_server_that_cannot_be_asked_for_a_list_is_not_asked_again(answer: bytes) -> None:
    """Nonsense, or no answer at all: one connection is lost by it, the next goes without."""
    async with (
        scripted_seedlink(4, play(ONE[:3]), info=lambda: answer) as server,
        reading(server.port, connect_timeout_s=0.5) as one,
    ):
        await one.until(lambda: len(one.records) == 3)
    assert len(one.slept_s) == 1
    assert [any(line.startswith("INFO") for line in client.commands) for client in server.clients] == [True, False]


async def test_server_that_lists_all_or_nothing() -> None:
    """INFO with a pattern is an error there: the whole list is asked for, and read."""
    error = b'{"error": {"code": "ARGUMENTS", "message": "no patterns"}}'
    answers = iter([struct.pack("<2s2sIQB", b"SE", b"JE", len(error), 0, 0) + error, listed("XX_ONE", "YY_TWO")])
    async with (
        scripted_seedlink(4, play(ONE[:3]), info=lambda: next(answers)) as server,
        reading(server.port) as one,
    ):
        await one.until(lambda: len(one.records) == 3)
    assert [line for line in server.clients[0].commands if "INFO" in line] == ["INFO STREAMS XX_*", "INFO STREAMS"]
    assert asked(server.clients[0]) == ["XX_ONE"]


async def test_empty_list_falls_back_to_the_wildcard_until_there_are_stations() -> None:
    """A server that has just started lists nothing: the wildcard gets what comes."""
    async with (
        scripted_seedlink(4, play(ONE[:3]), info=listed) as server,
        reading(server.port) as one,
    ):
        await one.until(lambda: len(one.records) == 3)
    assert asked(server.clients[0]) == ["XX_*"]
