"""The server on a real socket, read by EarthScope's client (v3 and v4) and by obspy's (v3)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymseed import MS3Record
from replay_data import (
    SECOND_NS,
    START_NS,
    assert_served,
    client,
    collect,
    decode,
    encode,
    replay,
    samples,
    sequences,
    station_file,
)
from seedlink_client import Protocol, SeedLinkError
from structlog.testing import capture_logs

from streamer.replay import Delay, ReplayServer

V3, V4 = Protocol.V3, Protocol.V4
BOTH = pytest.mark.parametrize("protocol", [V3, V4])


@BOTH
async def test_live_data_arrive_bit_for_bit(tmp_path: Path, protocol: Protocol) -> None:
    """A client that asks for what comes next gets every record's original bytes, numbered from 1, when it waits for."""
    path, expected = station_file(tmp_path, location="00")
    async with replay(path, wait_for_client=True, linger_s=0.0) as server, client(server, protocol=protocol) as link:
        link.add_stream("BW_UH1")
        packets = await collect(link, len(server.timeline))
    assert_served(packets, "BW_UH1", expected)
    assert sequences(packets) == {"BW_UH1": list(range(1, len(packets) + 1))}
    originals = {bytes(record.record) for record in MS3Record.from_file(str(path))}
    assert {packet.payload for packet in packets} == originals
    ends = [packet.record().endtime for packet in packets]
    assert ends == sorted(ends)


async def test_v4_serves_miniseed_3_and_long_records(tmp_path: Path) -> None:
    """Records of any length and of miniSEED 3 go to v4 clients as they are, with their format code."""
    three, first = station_file(tmp_path, "BW_UH1", version=3)
    long, second = station_file(tmp_path, "BW_UH2", length=4096)
    async with replay(three, long, wait_for_client=True) as server, client(server, protocol=V4) as link:
        link.add_stream("BW_*")
        packets = await collect(link, len(server.timeline))
    assert_served(packets, "BW_UH1", first)
    assert_served(packets, "BW_UH2", second)
    kinds = {(packet.station_id, packet.payload_format, packet.payload_subformat) for packet in packets}
    assert kinds == {("BW_UH1", "3", "D"), ("BW_UH2", "2", "D")}


async def test_v3_client_is_told_about_by_the_log_what_it_cannot_get(tmp_path: Path) -> None:
    """A v3 client of long records gets none, and the server says so with the mend; after repacking it gets all."""
    path, expected = station_file(tmp_path, length=4096)
    with capture_logs() as logs:
        async with replay(path, linger_s=0.0) as server, client(server, protocol=V3, dialup=True) as link:
            await server.wait_ended()
            link.add_stream("BW_UH1", seqnum=0)
            assert await collect(link) == []
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry.get("stations") for entry in warnings] == [None, "BW_UH1"]
    assert all("--repack-s" in entry["mend"] for entry in warnings)
    async with replay(path, repack_s=1.0, wait_for_client=True) as server, client(server, protocol=V3) as link:
        link.add_stream("BW_UH1")
        packets = await collect(link, len(server.timeline))
    assert_served(packets, "BW_UH1", expected)
    assert max(len(data) for parts in decode(p.payload for p in packets).values() for _, data in parts) <= 100


@BOTH
async def test_resume_by_sequence(tmp_path: Path, protocol: Protocol) -> None:
    """A client that comes back with its last numbers, one for each station, misses nothing and gets nothing twice."""
    files = [station_file(tmp_path, name) for name in ("BW_UH1", "BW_UH2")]
    async with replay(*(path for path, _ in files)) as server:
        await server.wait_ended()
        first = client(server, protocol=protocol)
        async with first:
            for name in ("BW_UH1", "BW_UH2"):
                first.add_stream(name, seqnum=0)
            packets = await collect(first, 11)
        second = client(server, protocol=protocol, dialup=True)
        async with second:
            for name, numbers in sequences(packets).items():
                last = [packet for packet in packets if packet.station_id == name][-1]
                second.add_stream(name, seqnum=numbers[-1], timestamp=last.record().starttime_str())
            packets += await collect(second)
    for name, (_, expected) in zip(("BW_UH1", "BW_UH2"), files, strict=True):
        assert_served(packets, name, expected)
        numbers = sequences(packets)[name]
        assert numbers == list(range(1, len(numbers) + 1))


async def test_v3_resume_over_the_24_bit_wrap(tmp_path: Path) -> None:
    """Numbers go from FFFFFF to 000000 on the wire, and a client that stopped just before resumes over it."""
    path, expected = station_file(tmp_path)
    async with replay(path, first_sequence=(1 << 24) - 5) as server:
        await server.wait_ended()
        async with client(server, protocol=V3) as link:
            link.add_stream("BW_UH1", seqnum=(1 << 24) - 6)
            packets = await collect(link, 5)
        assert [packet.seqnum for packet in packets] == [0xFFFFFB, 0xFFFFFC, 0xFFFFFD, 0xFFFFFE, 0xFFFFFF]
        async with client(server, protocol=V3, dialup=True) as link:
            link.add_stream("BW_UH1", seqnum=-1)  # this client asks for its number plus one: 000000
            after = await collect(link)
    assert [packet.seqnum for packet in after[:2]] == [0, 1]
    assert_served(packets + after, "BW_UH1", expected)


async def test_v4_sequence_with_wildcard_is_an_error(tmp_path: Path) -> None:
    """The client's exception carries the server's reason; a station that is not served likewise."""
    path, _ = station_file(tmp_path)
    async with replay(path) as server:
        for station, seqnum, reason in (("BW_*", 3, "wildcard"), ("XX_NONE", None, "XX_NONE is not served")):
            async with client(server, protocol=V4) as link:
                link.add_stream(station, seqnum=seqnum)
                with pytest.raises(SeedLinkError, match=reason) as error:
                    await collect(link)
            assert error.value.code == "ARGUMENTS"


@BOTH
async def test_time_window(tmp_path: Path, protocol: Protocol) -> None:
    """Only records that reach into the window come, then END: after dial-up in v4, by itself in v3."""
    path, _ = station_file(tmp_path)
    begin_ns, end_ns = START_NS + 10 * SECOND_NS, START_NS + 20 * SECOND_NS
    async with replay(path) as server:
        await server.wait_ended()
        async with client(server, protocol=protocol, dialup=protocol is V4) as link:
            link.add_stream("BW_UH1", "*_H_H_Z")
            link.set_timewindow("2010-05-27T16:24:10Z", "2010-05-27T16:24:20Z")
            packets = await collect(link)
    ((source_id, parts),) = decode(packet.payload for packet in packets).items()
    assert source_id == "FDSN:BW_UH1__H_H_Z"
    everything = encode(source_id, samples(sum(map(ord, "BW_UH1"))))
    spans = [(start, start + len(data) * 10_000_000) for start, data in decode(everything)[source_id]]
    assert [start for start, _ in parts] == [start for start, end in spans if end > begin_ns and start < end_ns]


async def test_window_into_the_future_ends_when_it_is_full(tmp_path: Path) -> None:
    """v3 TIME during the replay: packets come as they appear, and END as soon as all streams have passed the end."""
    path, _ = station_file(tmp_path)
    async with replay(path, speed=40.0, wait_for_client=True) as server:
        async with client(server, protocol=V3) as link:
            link.add_stream("BW_UH1")
            link.set_timewindow("2010-05-27T16:24:02Z", "2010-05-27T16:24:08Z")
            packets = await collect(link)
        assert packets
        assert server.counters.records < len(server.timeline)


@BOTH
@pytest.mark.parametrize(
    ("stations", "selectors", "expected"),
    [
        (["*_*"], "", {"BW_UH1": "ENZ", "BW_UH2": "ENZ", "MV_MBGA": "ENZ"}),
        (["BW_UH?"], "HHZ", {"BW_UH1": "Z", "BW_UH2": "Z"}),
        (["*_MB*"], "!HHZ", {"MV_MBGA": "EN"}),
        (["BW_*", "MV_MBGA"], "HH? !HHE", {"BW_UH1": "NZ", "BW_UH2": "NZ", "MV_MBGA": "NZ"}),
    ],
)
async def test_wildcards(
    tmp_path: Path, protocol: Protocol, stations: list[str], selectors: str, expected: dict[str, str]
) -> None:
    """Wildcards in stations and streams, and negative selectors, choose what they say in both protocols."""
    for name in ("BW_UH1", "BW_UH2", "MV_MBGA"):
        station_file(tmp_path, name, seconds=10.0)
    if protocol is V4:
        selectors = selectors.replace("HH?", "_H_H_?").replace("HHZ", "_H_H_Z").replace("HHE", "_H_H_E")
    async with replay(tmp_path, wait_for_client=True) as server, client(server, protocol=protocol) as link:
        for station in stations:
            link.add_stream(station, selectors)
        count = sum(
            1 for one in server.timeline.stations for record in one.records
            if record.name.subsource in expected.get(one.station_id, "")
        )  # fmt: skip
        packets = await collect(link, count)
        await server.wait_ended()
        got: dict[str, set[str]] = {}
        for packet in packets:
            got.setdefault(packet.station_id, set()).add(packet.record().sourceid[-1])
    assert {station: "".join(sorted(letters)) for station, letters in got.items()} == expected


async def test_v3_uni_station_mode_is_all_stations(tmp_path: Path) -> None:
    """Without STATION a v3 client gets everything that its selectors let through, as from ringserver."""
    files = {name: station_file(tmp_path, name) for name in ("BW_UH1", "BW_UH2")}
    async with replay(tmp_path, wait_for_client=True) as server, client(server, protocol=V3) as link:
        link.set_all_stations("HH?")
        packets = await collect(link, len(server.timeline))
    for name, (_, expected) in files.items():
        assert_served(packets, name, expected)


@BOTH
async def test_info(tmp_path: Path, protocol: Protocol) -> None:
    """STATIONS and STREAMS list what is served before the first record, and their spans and numbers after the last."""
    path, _ = station_file(tmp_path)
    async with replay(path, wait_for_client=True) as server, client(server, protocol=protocol) as link:
        before = await link.info_dict("STREAMS")
        server.begin()
        await server.wait_ended()
        after = await link.info_dict("STREAMS")
        stations = await link.info_dict("STATIONS")
    if protocol is V4:
        (station,) = after["station"]
        assert (station["start_seq"], station["end_seq"]) == (1, len(server.timeline) + 1)
        assert [stream["id"] for stream in before["station"][0]["stream"]] == ["_H_H_Z", "_H_H_N", "_H_H_E"]
        times = {(stream["start_time"], stream["end_time"]) for stream in station["stream"]}
        assert times == {("2010-05-27T16:24:00.000000Z", "2010-05-27T16:24:30.000000Z")}
        assert "stream" not in stations["station"][0]
    else:
        (station,) = after["seedlink"]["station"]
        assert (int(station["begin_seq"], 16), int(station["end_seq"], 16)) == (1, len(server.timeline) + 1)
        assert [stream["seedname"] for stream in before["seedlink"]["station"][0]["stream"]] == ["HHZ", "HHN", "HHE"]
        assert {stream["end_time"] for stream in station["stream"]} == {"2010/05/27 16:24:30.0000"}
        assert "stream" not in stations["seedlink"]["station"][0]


@BOTH
async def test_info_during_transfer(tmp_path: Path, protocol: Protocol) -> None:
    """INFO in mid-stream, as clients keep a connection alive, is answered between packets, which stay whole."""
    path, expected = station_file(tmp_path)
    async with replay(path, wait_for_client=True) as server, client(server, protocol=protocol) as link:
        link.add_stream("BW_UH1")
        packets, info = [], 0
        await link.negotiate()
        while len(packets) < len(server.timeline):
            frame = await link._recv_frame()
            assert frame is not None
            if frame.payload_format in "23":
                packets.append(link._to_packet(frame))
                link._writer.write(b"INFO ID\r\n" if len(packets) % 10 == 1 else b"")
            else:
                info += 1
    assert_served(packets, "BW_UH1", expected)
    assert info > 0


async def test_two_clients_at_once(tmp_path: Path) -> None:
    """A v3 and a v4 client each get all of it, and the same number for the same record."""
    path, expected = station_file(tmp_path)
    async with (
        replay(path, speed=30.0) as server,
        client(server, protocol=V3) as old,
        client(server, protocol=V4) as new,
    ):
        old.add_stream("BW_UH1", seqnum=0)
        new.add_stream("BW_UH1", all_data=True)
        count = len(server.timeline)
        first, second = await asyncio.gather(collect(old, count), collect(new, count))
    assert_served(first, "BW_UH1", expected)
    assert [(p.seqnum, p.payload) for p in first] == [(p.seqnum, p.payload) for p in second]
    assert server.counters.clients == 2


async def test_virtual_stations_are_served_under_their_codes(tmp_path: Path) -> None:
    """The code in the packet and in the record are the virtual one in miniSEED 2 and 3; samples are the source's."""
    two, first = station_file(tmp_path, "BW_UH1")
    three, second = station_file(tmp_path, "MV_MBGA", version=3)
    async with (
        replay(two, three, virtual_stations=4, wait_for_client=True) as server,
        client(server, protocol=V4) as link,
    ):
        link.add_stream("*_V*")
        packets = await collect(link, len(server.timeline))
    for name, expected in (("BW_V0001", first), ("MV_V0002", second), ("BW_V0003", first), ("MV_V0004", second)):
        assert_served(packets, name, expected)


@pytest.mark.parametrize("version", [2, 3])
async def test_shift_moves_start_or_end_to_now(tmp_path: Path, version: int) -> None:
    """By whole seconds and never into the future, in records, windows and INFO alike."""
    path, expected = station_file(tmp_path, version=version, start_ns=START_NS + 250_000_000)
    now_ns = 1_800_000_000_600_000_000
    for shift, length_ns in (("start", 0), ("end", 30 * SECOND_NS)):
        server = ReplayServer(replay(path, shift=shift, wait_for_client=True).settings, clock_ns=lambda: now_ns)
        async with server, client(server, protocol=V4) as link:
            link.add_stream("BW_UH1")
            packets = await collect(link, len(server.timeline))
            ring = server.rings[0]
        starts = [start for start, _ in decode(p.payload for p in packets)["FDSN:BW_UH1__H_H_Z"]]
        assert starts[0] % SECOND_NS == 250_000_000
        assert 0 <= now_ns - (starts[0] + length_ns) < SECOND_NS
        assert {state.start_ns for state in ring.streams.values()} == {starts[0]}
        assert_served(packets, "BW_UH1", expected)


async def test_speed_and_delay_set_the_pace(tmp_path: Path) -> None:
    """Records come at their end times divided by the speed, a delayed component later by its delay."""
    path, _ = station_file(tmp_path, seconds=8.0)
    loop, arrivals = asyncio.get_running_loop(), []
    options: dict[str, Any] = {"speed": 10.0, "delays": (Delay.parse("*_E=3"),), "repack_s": 1.0}
    async with replay(path, wait_for_client=True, **options) as server, client(server, protocol=V4) as link:
        link.add_stream("BW_UH1")
        begun = loop.time()
        async for packet in link.collect(reconnect=False):
            record = packet.record()
            due_s = (record.endtime - START_NS) * 1e-9 + 0.01 + (3.0 if record.sourceid.endswith("E") else 0.0)
            arrivals.append(loop.time() - begun - due_s / 10.0)
            if len(arrivals) == len(server.timeline):
                break
    assert min(arrivals) > -0.01
    assert float(np.median(arrivals)) < 0.2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_obspy_basic_client_gets_a_window(tmp_path: Path) -> None:
    """obspy's request client (v3, multi-station, TIME) reads stations, channels and samples bit for bit."""
    from obspy import UTCDateTime
    from obspy.clients.seedlink.basic_client import Client

    path, expected = station_file(tmp_path, location="00")
    async with replay(path) as server:
        await server.wait_ended()

        def read() -> tuple[Any, Any]:
            link = Client("127.0.0.1", server.port, timeout=10)
            begin = UTCDateTime("2010-05-27T16:24:05")
            info = link.get_info(level="channel")
            return info, link.get_waveforms("BW", "UH1", "00", "HH?", begin, begin + 12.0)

        info, stream = await asyncio.to_thread(read)
    assert info == [("BW", "UH1", "00", f"HH{letter}") for letter in "ENZ"]
    stream.merge(-1)
    for trace in stream:
        data = expected[f"00_H_H_{trace.stats.channel[-1]}"]
        assert np.array_equal(trace.data, data[500:1701])
    assert len(stream) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_obspy_streaming_client_gets_live_data(tmp_path: Path) -> None:
    """obspy's SLClient (v3, DATA) decodes every live record."""
    from obspy.clients.seedlink.client.seedlinkconnection import SeedLinkConnection
    from obspy.clients.seedlink.slclient import SLClient

    path, expected = station_file(tmp_path)
    async with replay(path, wait_for_client=True) as server:

        def read() -> list[Any]:
            link, traces = SLClient(timeout=20), []
            link.multiselect = "BW_UH1:HHZ HHN HHE"
            link.slconn = SeedLinkConnection(timeout=20)
            link.slconn.set_sl_address(f"127.0.0.1:{server.port}")
            link.initialize()

            def handle(count: int, packet: Any) -> bool:
                traces.append(packet.get_trace())
                return count == len(server.timeline)

            link.run(packet_handler=handle)
            return traces

        traces = await asyncio.to_thread(read)
    for stream, data in expected.items():
        channel = stream.replace("_", "")
        assert np.array_equal(np.concatenate([t.data for t in traces if t.stats.channel == channel]), data)
