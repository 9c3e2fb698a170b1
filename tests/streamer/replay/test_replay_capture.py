"""``streamer replay --capture``: the packets as they came, with their numbers, order and pauses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from capture_kit import ADDRESSES, captured, write_capture
from daemon_kit import SECOND_NS
from replay_data import client, collect
from replay_data import replay as served
from seedlink_client import Protocol, SeedLinkPacket

from picker.errors import ConfigError
from streamer.capture.entry import CapturedPacket
from streamer.replay import Delay, ReplayServer, ReplaySettings
from streamer.replay.captured import CapturedRing
from streamer.replay.ring import StreamDescription
from streamer.replay.stream import StreamName

V3, V4 = Protocol.V3, Protocol.V4


def replay(path: Path, **more: Any) -> ReplayServer:
    """A server of a capture that waits for its client."""
    return served(path, capture=True, wait_for_client=True, **more)


async def received(server: ReplayServer, count: int, protocol: Protocol = V4, **stream: Any) -> list[SeedLinkPacket]:
    """What a client gets that asks for everything."""
    async with client(server, protocol=protocol) as link:
        link.add_stream(stream.pop("station", "XX_*"), **stream)
        return await collect(link, count)


def sent(packets: list[CapturedPacket]) -> list[tuple[Any, ...]]:
    """What a client sees of each."""
    return [(one.station, one.sequence, one.format, one.subformat, one.payload) for one in packets]


def got(packets: list[SeedLinkPacket]) -> list[tuple[Any, ...]]:
    """The same of what a client received."""
    return [(one.station_id, one.seqnum, one.payload_format, one.payload_subformat, one.payload) for one in packets]


def mixed() -> list[CapturedPacket]:
    """Two servers; numbers with holes, a repetition and a fresh start, and a packet that is no miniSEED."""
    one, two = captured("ONE"), captured("TWO", server=1)
    packets = sorted([*one, *two], key=lambda packet: packet.received_ns)
    later = packets[-1].received_ns
    garbage = one[5]._replace(payload=b"no miniSEED", received_ns=later + 1, sequence=9000)
    again = [packet._replace(received_ns=later + 2 + number) for number, packet in enumerate(one[-3:])]
    afresh = [packet._replace(received_ns=later + 9, sequence=number) for number, packet in enumerate(two[:3])]
    return [*packets, garbage, *again, *afresh]


@pytest.mark.parametrize("compressed", [False, True])
async def test_packets_come_as_they_came(tmp_path: Path, compressed: bool) -> None:
    """Order, numbers and bytes are those captured, damaged and repeated ones too, aside and nameless not."""
    packets = mixed()
    aside, nameless = packets[10]._replace(taken=False), packets[10]._replace(station="", payload=bytes(512))
    path = write_capture(tmp_path / "c", [*packets[:10], aside, nameless, *packets[10:]])
    if compressed:
        from streamer.capture.folder import compress

        compress(path)
    async with replay(tmp_path / "c") as server:
        assert got(await received(server, len(packets))) == sent(packets)


async def test_one_server_of_several(tmp_path: Path) -> None:
    """--server leaves the others out; a server that is not in the capture is an error that names those that are."""
    packets = mixed()
    path = write_capture(tmp_path / "c", packets)
    wanted = [one for one in packets if one.server == 1]
    async with replay(path, capture_server=ADDRESSES[1]) as server:
        assert got(await received(server, len(wanted))) == sent(wanted)
    with pytest.raises(ConfigError, match=f"--server x:1: not in the capture, which has {ADDRESSES[0]}"):
        async with replay(path, capture_server="x:1"):
            pass


async def test_pauses_are_divided_by_the_speed(tmp_path: Path) -> None:
    """Ten seconds of arrivals at ten times the speed take one, evenly."""
    packets = [one for one in captured() if one.received_ns < captured()[0].received_ns + 10 * SECOND_NS]
    path = write_capture(tmp_path / "c", packets)
    async with replay(path, speed=10.0) as server, client(server, protocol=V4) as link:
        link.add_stream("XX_*")
        begun_s, moments_s = time.monotonic(), []
        stream = link.collect(reconnect=False)
        async for _ in stream:
            moments_s.append(time.monotonic() - begun_s)
            if len(moments_s) == len(packets):
                break
        await stream.aclose()
    first_ns = packets[0].received_ns
    late_s = [
        moment_s - moments_s[0] - (one.received_ns - first_ns) / 1e10
        for moment_s, one in zip(moments_s, packets, strict=True)
    ]
    assert moments_s[-1] - moments_s[0] > 0.8
    assert max(late_s) < 0.5
    assert min(late_s) > -0.05


async def test_a_clock_that_was_set_back_keeps_the_order(tmp_path: Path) -> None:
    """Arrivals an hour earlier than those before them come at once after them."""
    packets = captured()[:20]
    packets[10:] = [one._replace(received_ns=one.received_ns - 3600 * SECOND_NS) for one in packets[10:]]
    async with replay(write_capture(tmp_path / "c", packets)) as server:
        assert got(await received(server, len(packets))) == sent(packets)
        assert server.timeline.duration_ns < 10 * SECOND_NS


async def test_clients_go_on_from_captured_numbers(tmp_path: Path) -> None:
    """INFO tells the captured numbers, and a client that has had one of them gets what follows it."""
    packets = captured()[:60]
    async with replay(write_capture(tmp_path / "c", packets)) as server:
        await received(server, len(packets))
        async with client(server, protocol=V4) as link:
            (station,) = json.loads(await link.info("STATIONS"))["station"]
        assert (station["start_seq"], station["end_seq"]) == (packets[0].sequence, (packets[-1].sequence or 0) + 1)
        rest = await received(server, 40, station="XX_ONE", seqnum=packets[19].sequence)
    assert got(rest) == sent(packets[20:])


@pytest.mark.parametrize(
    ("wanted", "place"),
    [(10, 1), (11, 2), (14, 2), (15, 3), (20, 3), (21, 4), (5, 1), (99, 6), (3, 4), (4, 5), (0, 1)],
)
def test_where_a_number_is(wanted: int, place: int) -> None:
    """Numbers with a hole, then counted anew: the newest that fits, what follows one had, else the next greater one."""
    ring = CapturedRing("X_Y", [stream := _stream()], 16)
    for number in (10, 14, 20, 3):
        ring.append(0, stream, 0, 0, b"", number)
    assert ring.from_v4(wanted) == place
    assert ring.from_v3(wanted + 3 * (1 << 24)) == ring.from_v3(wanted)
    assert (ring.first_number, ring.next_number) == (10, 4)


def test_numbers_of_v3_wrap() -> None:
    """After FFFFFF comes 0, and a client that had FFFFFF gets it."""
    ring = CapturedRing("X_Y", [stream := _stream()], 16)
    for number in (0xFFFFFE, 0xFFFFFF, 0, 1):
        ring.append(0, stream, 0, 0, b"", number)
    assert [ring.from_v3(number) for number in (0xFFFFFF, 0, 2)] == [2, 3, 5]


def _stream() -> StreamDescription:
    return StreamDescription(StreamName("X", "Y", "", "H", "H", "Z"), "2", "D", 0, True)


@pytest.mark.parametrize(
    "change",
    [
        {"shift": "end"},
        {"virtual_stations": 3},
        {"delays": (Delay(low_s=1, high_s=2),)},
        {"jitter_s": 1.0},
        {"reorder": True},
        {"repack_s": 1.0},
        {"first_sequence": 5},
    ],
)
async def test_options_that_would_change_the_capture_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """An error that names the option."""
    path = write_capture(tmp_path / "c", captured())
    (name,) = change
    option = "delay-s" if name == "delays" else name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"--{option}: a capture is played as it came"):
        async with ReplayServer(ReplaySettings(paths=(path,), capture=True, port=0, **change)):
            pass


async def test_the_file_is_read_while_it_is_served(tmp_path: Path) -> None:
    """Of a capture that is not compressed memory holds places, not bytes."""
    path = write_capture(tmp_path / "c", captured())
    async with replay(path) as server:
        assert not any(isinstance(one.data, bytes) for station in server.timeline.stations for one in station.records)
