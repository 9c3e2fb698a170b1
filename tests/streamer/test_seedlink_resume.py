"""Going on after a lost connection: nothing lost, nothing twice, whatever the server does with sequence numbers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import DURATION_S, START_NS, channel, three_components
from scripted_seedlink import Client, Script, close, play, scripted_seedlink, silence, split
from seedlink_kit import Reading, reading
from structlog.testing import capture_logs

from streamer.replay import ReplayServer, ReplaySettings
from streamer.resume import ResumePoint

ALL = {f"XX.{station}..HH{letter}": 100 * DURATION_S for station in ("ONE", "TWO") for letter in "ZNE"}
BOTH = pytest.mark.parametrize("version", ["3", "4"])
TWO = [{"network": "XX", "station": name, "channels": ["HHZ"]} for name in ("ONE", "TWO")]


@contextlib.asynccontextmanager
async def replaying(folder: Path, **settings: Any) -> AsyncIterator[ReplayServer]:
    """Two stations from the start, 20 times as fast as live, or as ``settings`` say."""
    paths = []
    for name in ("ONE", "TWO"):
        paths.append(folder / f"{name}.mseed")
        paths[-1].write_bytes(three_components(name))
    given = {"port": 0, "speed": 20.0, "wait_for_client": True} | settings
    async with ReplayServer(ReplaySettings(paths=tuple(paths), **given)) as server:
        yield server


def cut(server: ReplayServer) -> None:
    """Break all connections, as a network does."""
    for connection in list(server._connections):
        connection.drop("cut by the test")


@BOTH
async def test_each_station_goes_on_by_its_own_number(tmp_path: Path, version: str) -> None:
    """Three cuts: every sample of two stations once and in order, by sequence numbers alone, nothing sent twice."""
    async with replaying(tmp_path) as server, reading(server.port, protocol=version) as one:
        for share in (20, 90, 150):
            await one.until(lambda share=share: len(one.records) >= share)
            cut(server)
        await one.until(lambda: one.samples() == ALL)
    assert one.resumed() == {"sequence": 3}
    assert one.seen() == 0


async def test_number_goes_on_over_the_wrap_of_version_3(tmp_path: Path) -> None:
    """The last packet before the cut is FFFFFF or a neighbour: all cuts around the wrap lose nothing."""
    async with (
        replaying(tmp_path, first_sequence=(1 << 24) - 30) as server,
        reading(server.port, protocol="3") as one,
    ):
        for last in (0xFFFFFE, 0xFFFFFF, 1):
            await one.until(lambda last=last: any(origin.sequence == last for origin in one.origins))
            cut(server)
        await one.until(lambda: one.samples() == ALL)
    assert set(one.resumed()) == {"sequence"}


@pytest.mark.parametrize(("last", "asked"), [(0xFFFFFF, "0"), (0xFFFFFE, "FFFFFF"), (9, "A")])
async def test_number_of_version_3_is_hexadecimal_with_the_time_of_the_last_packet(last: int, asked: str) -> None:
    """The next number after the last, of 24 bits, and when that packet began: a rebuilt server can tell by it."""
    record = split(channel("HHZ", station="ONE"))[0]

    async def one_packet(client: Client) -> None:
        client.send(last, record)
        await client.writer.drain()

    streams = [{"network": "XX", "station": "ONE", "channels": ["HHZ"]}]
    async with scripted_seedlink(3, one_packet, silence) as server, reading(server.port, streams=streams) as one:
        await one.until(lambda: len(server.clients) > 1 and "END" in server.clients[1].commands)
    assert [line for line in server.clients[1].commands if line.startswith("DATA")] == [
        f"DATA {asked} 2023,11,14,22,13,20"
    ]


@BOTH
async def test_restarted_daemon_goes_on_from_the_snapshot(tmp_path: Path, version: str) -> None:
    """What a snapshot saved of the work that was done is enough: the rest comes, and no more than that."""
    async with replaying(tmp_path) as server:
        point = ResumePoint()
        async with reading(server.port, protocol=version) as first:
            await first.until(lambda: len(first.records) >= 80)
        for record, origin in list(zip(first.records, first.origins, strict=True))[:60]:
            point.note(record, START_NS + DURATION_S * 10**9, origin)
        restored = ResumePoint.restored(json.loads(json.dumps(point.saved())))
        async with reading(server.port, protocol=version, resume=restored) as second:
            await second.until(lambda: len(second.records) >= 6 * 36 - 60 - 20)
            first.records = first.records[:60] + second.records
            await second.until(lambda: _joined(first, second) == ALL)
    assert second.resumed() == {"sequence": 1}


def _joined(first: Reading, second: Reading) -> dict[str, int]:
    first.records = first.records[:60] + second.records
    return first.samples()


async def test_numbers_of_another_life_of_the_server_are_not_believed(tmp_path: Path) -> None:
    """The server is rebuilt and counts from 1 again: its list of stations says so, and the gap is fetched by time."""
    async with replaying(tmp_path, first_sequence=5000) as server, reading(server.port) as one:
        await one.until(lambda: len(one.records) >= 60)
    point = one.reader._recovery.point
    async with (
        replaying(tmp_path, speed=10_000.0, wait_for_client=False) as server,
        reading(server.port, resume=point) as two,
    ):
        await server.wait_ended()
        await two.until(lambda: {**one.samples(), **_added(one, two)} == ALL)
    assert two.resumed() == {"window": 1}


def _added(one: Reading, two: Reading) -> dict[str, int]:
    """Samples of both, the second's duplicates aside."""
    new = {(record.nslc, record.start_ns): len(record.samples) for record in [*one.records, *two.records]}
    counts: dict[str, int] = {}
    for (nslc, _), count in new.items():
        counts[str(nslc)] = counts.get(str(nslc), 0) + count
    return counts


# Servers that have one position for all stations


class Ring:
    """Packets of two stations that count together, as in ringserver: number, station and record."""

    def __init__(self) -> None:
        one, two = split(channel("HHZ", station="ONE")), split(channel("HHZ", station="TWO"))
        self.packets = [
            (2 * n + k + 1, name, record)
            for n, pair in enumerate(zip(one, two, strict=True))
            for k, (name, record) in enumerate(zip(("XX_ONE", "XX_TWO"), pair, strict=True))
        ]

    def until(self, last: dict[str, int], then: Script) -> Script:
        """The first connection: packets of each station up to a number."""

        async def script(client: Client) -> None:
            for number, name, record in self.packets:
                if number <= last[name]:
                    client.send(number, record, name.encode())
            await client.writer.drain()
            await then(client)

        return script

    async def newest(self, client: Client) -> None:
        """Start at the newest of the numbers asked for, or at the time, as one position has to."""
        asked = [line.split() for line in client.commands if line.startswith("DATA")]
        numbers = [int(words[1]) for words in asked if len(words) == 2]
        begin = max(numbers, default=0)
        for number, name, record in self.packets:
            if number >= begin:
                client.send(number, record, name.encode())
        await client.writer.drain()
        await silence(client)


async def test_server_that_starts_at_the_newest_number_loses_nothing() -> None:
    """It would leave out what the slower station has missed: that is seen before anything is delivered out of order."""
    ring = Ring()
    first = ring.until({"XX_ONE": 9, "XX_TWO": 30}, close)
    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, first, ring.newest, ring.newest) as server,
            reading(server.port, streams=TWO) as one,
        ):
            await one.until(lambda: sum(one.samples().values()) == 2 * 100 * DURATION_S)
            assert one.samples() == {f"XX.{name}..HHZ": 100 * DURATION_S for name in ("ONE", "TWO")}
            assert one.resumed() == {"sequence": 1, "window": 1}
            assert one.slept_s == [0.5], "the other way is taken at once"
            one.reader._recovery._ladder.settle()
            server.clients[-1].writer.close()
            await one.until(lambda: one.resumed() == {"sequence": 1, "window": 2})
    told = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert told.count("resume has failed: trying another way") == 1
    assert len([text for text in told if text.startswith("server leaves data out")]) == 1
    numbers = [line for line in server.clients[1].commands if line.startswith("DATA")]
    assert numbers == ["DATA 10", "DATA 31"]


async def test_gap_that_is_the_stations_own_is_accepted_after_one_look(tmp_path: Path) -> None:
    """Data that nobody has: the server is asked by time once, and then the connection stays."""
    ring = Ring()
    ring.packets = [packet for packet in ring.packets if not 9 < packet[0] < 16]

    async def right(client: Client) -> None:
        asked = dict(zip(("XX_ONE", "XX_TWO"), [c for c in client.commands if c.startswith("DATA")], strict=True))
        for number, name, record in ring.packets:
            words = asked[name].split()
            if len(words) > 2 or number >= int(words[1]):
                client.send(number, record, name.encode())
        await client.writer.drain()
        await silence(client)

    first = ring.until({"XX_ONE": 9, "XX_TWO": 8}, close)
    async with scripted_seedlink(4, first, right) as server, reading(server.port, streams=TWO) as one:
        await one.until(lambda: len(one.records) == len(ring.packets))
        await asyncio.sleep(0.2)
        assert len(server.clients) == 3
        assert one.resumed() == {"sequence": 1, "window": 1}
        server.clients[-1].writer.close()
        await one.until(lambda: one.resumed() == {"sequence": 2, "window": 1})


async def test_station_that_stays_silent_is_asked_for_by_time() -> None:
    """An unknown number yields nothing, silently, while the other flows: after silence_s a time is asked for."""
    ring = Ring()

    async def mute_one(client: Client) -> None:
        for number, name, record in ring.packets:
            if name == "XX_TWO" and number > 30:
                client.send(number, record, name.encode())
                await client.writer.drain()
                await asyncio.sleep(0.03)
        await silence(client)

    first = ring.until({"XX_ONE": 9, "XX_TWO": 30}, close)
    async with (
        scripted_seedlink(4, first, mute_one, ring.newest) as server,
        reading(server.port, streams=TWO, silence_s=0.3) as one,
    ):
        await one.until(lambda: sum(one.samples().values()) == 2 * 100 * DURATION_S)
    assert one.resumed() == {"sequence": 1, "window": 1}
    assert server.clients[2].commands[-2].startswith("DATA ALL 2023-11-14T22:13:2")


async def test_server_that_refuses_numbers_is_asked_by_time_and_then_for_what_comes() -> None:
    """ERROR to DATA with a number, silence to a time: the last way is new data, and all is said."""
    ring = Ring()
    first = ring.until({"XX_ONE": 9, "XX_TWO": 10}, close)
    with capture_logs() as logs:
        async with (
            scripted_seedlink(4, first, ring.newest, refuse=("DATA 1", "DATA ALL")) as server,
            reading(server.port, streams=TWO) as one,
        ):
            await one.until(lambda: len(one.records) > 20)
    assert one.resumed() == {"live": 1}
    forms = [next(c for c in client.commands if c.startswith("DATA")).split()[:2] for client in server.clients[1:4]]
    assert forms == [["DATA", "10"], ["DATA", "ALL"], ["DATA"]]
    told = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert told.count("resume has failed: trying another way") == 2
    assert told.count("going on with new data: what was missed is lost") == 1


async def test_server_that_has_nothing_new_may_be_silent_for_long() -> None:
    """Its list shows that there are no data: idle connections do not make the reader give up what may come later."""
    ring, silences = Ring(), 5
    stream = {"id": "_H_H_Z", "format": "2", "subformat": "D", "end_time": "2023-11-14T22:13:25Z"}
    document = json.dumps({"station": [{"id": name, "stream": [stream]} for name in ("XX_ONE", "XX_TWO")]}).encode()
    answer = struct.pack("<2s2sIQB", b"SE", b"JI", len(document), 0, 0) + document
    first = ring.until({"XX_ONE": 9, "XX_TWO": 10}, close)
    async with (
        scripted_seedlink(4, first, *[silence] * silences, ring.newest, info=lambda: answer) as server,
        reading(server.port, streams=TWO, idle_timeout_s=0.1) as one,
    ):
        await one.until(lambda: sum(one.samples().values()) == 2 * 100 * DURATION_S)
    assert one.resumed() == {"sequence": silences + 1}


async def test_no_more_is_asked_for_than_is_allowed() -> None:
    """After a long absence the window begins longest_resume_h before now, and numbers are not used."""
    ring = Ring()
    point, now_ns = ResumePoint(), START_NS + DURATION_S * 10**9
    async with scripted_seedlink(4, ring.until({"XX_ONE": 9, "XX_TWO": 10}, silence)) as server:
        async with reading(server.port, streams=TWO) as one:
            await one.until(lambda: len(one.records) == 10)
        point = one.reader._recovery.point
    later_ns = now_ns + 5 * 3600 * 10**9
    async with (
        scripted_seedlink(4, play([])) as server,
        reading(server.port, streams=TWO, resume=point, longest_resume_h=2, clock_ns=lambda: later_ns) as two,
    ):
        await two.until(lambda: two.resumed() == {"window": 1})
    (asked,) = {line for line in server.clients[0].commands if line.startswith("DATA")}
    end_ns = min(position.end_ns for position in point.channels.values())
    assert asked == f"DATA ALL 2023-11-15T01:13:{(end_ns // 10**9 - 1_700_000_000 + 20) % 60:02d}Z"


async def test_lost_connections_do_not_make_it_give_up_what_was_missed() -> None:
    """A network that drops each connection at once says nothing about the server: two drops, and numbers are kept."""
    ring = Ring()
    first = ring.until({"XX_ONE": 9, "XX_TWO": 10}, close)
    async with (
        scripted_seedlink(4, first, close, close, ring.newest) as server,
        reading(server.port, streams=TWO) as one,
    ):
        await one.until(lambda: sum(one.samples().values()) == 2 * 100 * DURATION_S)
    assert one.resumed() == {"sequence": 3}
