"""SeedLink 3: a packet whose record cannot be read is dropped, counted and told; the connection goes on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from daemon_kit import channel
from hypothesis import given, settings
from hypothesis import strategies as st
from pymseed import DataEncoding
from scripted_seedlink import Client, Script, close, play, scripted_seedlink, silence, split
from seedlink_kit import Reading, reading
from station_data import miniseed
from structlog.testing import capture_logs

from streamer import frame_v3, seedlink_client
from streamer.decode import decode_each
from streamer.record import Record
from streamer.resume import ResumePoint

RECORDS = split(channel("HHZ"))
LENGTH_AT = 54
"""Where the records here have their length, as a power of two (blockette 1000)."""
ONE = [{"network": "XX", "station": "ONE", "channels": ["HHZ"]}]


def spoilt(record: bytes, at: int, data: bytes) -> bytes:
    return record[:at] + data + record[at + len(data) :]


SPOILT = {
    "no header": spoilt(RECORDS[0], 0, bytes(8)),
    "no sequence number": spoilt(RECORDS[0], 0, b"\xff\x00\x13"),
    "quality": spoilt(RECORDS[0], 6, b"\x00"),
    "hour of 77": spoilt(RECORDS[0], 24, b"\x4d"),
    "no blockette 1000": spoilt(RECORDS[0], 48, b"\x00\x00"),
    "blockettes in a circle": spoilt(RECORDS[0], 46, b"\x00\x30\x07\xd0\x00\x30"),
    "noise": np.random.default_rng(1).bytes(512),
    "a packet header in it": spoilt(bytes(512), 200, b"SL000007" + RECORDS[5][:304]),
    **{f"length 2**{power}": spoilt(RECORDS[0], LENGTH_AT, bytes([power])) for power in (0, 5, 7, 8, 10, 12, 16, 20)},
}


def keys(records: list[Record]) -> list[tuple[int, bytes]]:
    return [(one.start_ns, one.samples.tobytes()) for one in records]


def sound(payloads: list[bytes]) -> list[tuple[int, bytes]]:
    """What the good ones among ``payloads`` hold."""
    items = [item for one in payloads for item in decode_each(one)]
    return keys([item for item in items if isinstance(item, Record)])


@pytest.mark.parametrize("what", sorted(SPOILT))
@pytest.mark.parametrize("places", [(0,), (2,), (1, 2, 3), (0, 1, 4), (0, 2, 4, 6, 8)])
async def test_good_packets_around_bad_ones_come_over_one_connection(what: str, places: tuple[int, ...]) -> None:
    """First, between, several in a row: what is good arrives whole; each bad one is counted, told in one line."""
    payloads = RECORDS[:10]
    for place in places:
        payloads[place] = SPOILT[what]
    expected = sound([one for index, one in enumerate(payloads) if index not in places])
    with capture_logs() as logs:
        async with scripted_seedlink(3, play(payloads)) as server, reading(server.port, streams=ONE) as one:
            await one.until(lambda: len(one.records) >= len(expected))
            assert keys(one.records) == expected
            assert len(server.clients) == 1
    assert one.slept_s == []
    assert one.count("onset_bad_records_total", reason="corrupt") == len(places)
    told = [line for line in logs if line["event"] == "record dropped"]
    stations = {line["station"] for line in told}
    assert stations <= {"", "XX_ONE"}
    assert len(told) == len(stations), "one line for a station and reason"
    assert (told[0]["reason"], told[0]["sequence"]) == ("corrupt", places[0] + 1)
    assert one.count("onset_packets_total", server=one.reader.settings.address) == len(payloads)


@pytest.mark.parametrize("what", ["no header", "noise", "a packet header in it", "length 2**0"])
async def test_bad_packet_at_the_end_is_told_at_once(what: str) -> None:
    """It is not waited for the next packet, which may be long in coming; then that is read as ever."""
    more = asyncio.Event()

    async def later(client: Client) -> None:
        await more.wait()
        client.send(4, RECORDS[2])
        await silence(client)

    script = play([*RECORDS[:2], SPOILT[what]], later)
    async with scripted_seedlink(3, script) as server, reading(server.port, streams=ONE) as one:
        await one.until(lambda: one.count("onset_bad_records_total", reason="corrupt") == 1)
        assert len(one.records) == 2
        more.set()
        await one.until(lambda: len(one.records) == 3)
        assert len(server.clients) == 1


async def test_resume_goes_past_a_bad_packet() -> None:
    """Its number counts as received where it follows on: the next connection asks for what comes behind it."""
    bad = SPOILT["length 2**0"]
    async with (
        scripted_seedlink(3, play([*RECORDS[:2], bad, bad], close), play(RECORDS[2:3])) as server,
        reading(server.port, streams=ONE) as one,
    ):
        await one.until(lambda: len(one.records) == 3)
    assert [line.split()[1] for line in server.clients[1].commands if line.startswith("DATA")] == ["5"]


async def test_bad_packet_that_is_served_again_holds_nothing_up() -> None:
    """A server that begins with it after each reconnect: the reader still goes on by number, and nothing is lost."""
    nameless = SPOILT["noise"]

    def from_third(*payloads: bytes) -> Script:
        async def script(client: Client) -> None:
            for sequence, payload in enumerate(payloads, 3):
                client.send(sequence, payload)
            await silence(client)

        return script

    async with (
        scripted_seedlink(3, play([*RECORDS[:2], nameless], close), from_third(nameless, *RECORDS[2:6])) as server,
        reading(server.port, streams=ONE) as one,
    ):
        await one.until(lambda: len(one.records) == 6)
    assert one.resumed() == {"sequence": 1}
    assert keys(one.records) == sound(RECORDS[:6])


def test_only_a_number_that_follows_on_is_passed_over() -> None:
    """A broken packet may name the wrong station: its number must not carry that one over data still to come."""
    point = ResumePoint.restored({"channels": [], "stations": [["XX_ONE", 0xFFFFFE, "3", 1, 1]]})
    for station, sequence, protocol in (
        ("XX_TWO", 0xFFFFFF, "3"), ("XX_ONE", 0xFFFFFF, "4"), ("XX_ONE", 5, "3"), ("XX_ONE", None, "3"),
    ):  # fmt: skip
        point.pass_over(station, sequence, protocol)
        assert point.stations["XX_ONE"].sequence == 0xFFFFFE
    for sequence in (0xFFFFFF, 0):
        point.pass_over("XX_ONE", sequence, "3")
        assert point.stations["XX_ONE"].sequence == sequence
    assert set(point.stations) == {"XX_ONE"}


@pytest.mark.parametrize("begin", [b"", b"SL000001", b"SL000001" + RECORDS[0][:48]])
async def test_garbage_ends_the_connection_and_backs_off(begin: bytes) -> None:
    """No header where one must stand: the reason is told once, the delays grow, and no server delivers."""
    noise = np.random.default_rng(2).bytes(50_000)

    async def garbage(client: Client) -> None:
        client.writer.write(begin + noise)
        await silence(client)

    with capture_logs() as logs:
        async with scripted_seedlink(3, garbage) as server, reading(server.port, streams=ONE) as one:
            await one.until(lambda: len(one.slept_s) >= 3)
    assert one.slept_s[:3] == [0.5, 1, 2]
    assert one.records == []
    events = [line["event"] for line in logs]
    assert len([line for line in logs if line["log_level"] == "warning" and "retry_s" in line]) == 1
    assert "server delivers" not in events


async def test_packets_without_a_record_are_no_data_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of framed garbage is left after so many in a row, and tried again later and later."""
    monkeypatch.setattr(seedlink_client, "MOST_UNREADABLE", 20)
    script = play([bytes(512)] * 30)
    with capture_logs() as logs:
        async with scripted_seedlink(3, script) as server, reading(server.port, streams=ONE) as one:
            await one.until(lambda: len(one.slept_s) >= 3)
    assert one.slept_s[:3] == [0.5, 1, 2]
    reasons = [line["reason"] for line in logs if line["log_level"] == "warning" and "retry_s" in line]
    assert reasons == ["20 packets in a row without a record that can be read"]


@pytest.mark.parametrize("length", [128, 256, 1024, 4096])
@pytest.mark.parametrize("power", [0, 7, 8, 9, 10, 12, 13])
async def test_records_of_another_length(length: int, power: int) -> None:
    """128 to 4096 bytes: all are read, and the usual length is remembered for one that tells a wrong one."""
    samples = np.random.default_rng(3).integers(-9000, 9000, 12 * length, dtype=np.int32)
    whole = miniseed(samples, encoding=DataEncoding.STEIM2, source_id="FDSN:XX_ONE__H_H_Z", record_bytes=length)
    payloads = [whole[at : at + length] for at in range(0, 10 * length, length)]
    bad = spoilt(payloads[4], LENGTH_AT, bytes([power]))
    if 1 << power == length:
        bad = spoilt(bad, 6, b"\x00")
    expected = sound([*payloads[:4], *payloads[5:]])
    payloads[4] = bad
    async with scripted_seedlink(3, play(payloads)) as server, reading(server.port, streams=ONE) as one:
        await one.until(lambda: len(one.records) >= len(expected))
        assert [key for key in keys(one.records) if key in expected] == expected
        assert set(keys(one.records)) <= set(expected) | set(sound([bad]))
        assert len(server.clients) == 1


BYTES = st.tuples(st.integers(0, 63), st.integers(0, 255))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.lists(BYTES, min_size=1, max_size=4)), min_size=1, max_size=5),
    st.integers(1, 2000),
)
def test_corrupted_headers_never_cost_a_good_packet(changes: list[tuple[int, list[tuple[int, int]]]], cut: int) -> None:
    """Any bytes of any headers, cut anywhere into writes: the others come over one connection, and no wrong sample."""
    payloads, touched = RECORDS[:9], set()
    for place, corrupted in changes:
        touched.add(place)
        for at, value in corrupted:
            payloads[place] = spoilt(payloads[place], at, bytes([value]))
    good = sound([one for index, one in enumerate(payloads) if index not in touched])
    one, connections = asyncio.run(read_cut(payloads, cut))
    got = keys(one.records)
    assert connections == 1
    assert [key for key in got if key in good] == good
    assert set(got) <= set(good) | set(sound(payloads)) | set(sound(RECORDS[:9]))


async def read_cut(payloads: list[bytes], cut: int) -> tuple[Reading, int]:
    """What comes of ``payloads`` when they are sent in writes of ``cut`` bytes, until the last has come."""
    wire = b"".join(b"SL%06X" % number + payload for number, payload in enumerate(payloads, 1))
    last = sound(payloads[-1:])[0]

    async def script(client: Client) -> None:
        for at in range(0, len(wire), cut):
            client.writer.write(wire[at : at + cut])
            await asyncio.sleep(0)
        await silence(client)

    async with scripted_seedlink(3, script) as server, reading(server.port, streams=ONE) as one:
        await one.until(lambda: last in keys(one.records))
        return one, len(server.clients)


@pytest.mark.parametrize(
    ("payload", "station"),
    [
        (SPOILT["length 2**0"], "XX_ONE"),
        (SPOILT["no header"], "XX_ONE"),
        (SPOILT["noise"], ""),
        (b"MS\x03" + bytes(37) + b"FDSN:XX_ONE__H_H_Z" + bytes(60), "XX_ONE"),
        (b"MS\x03" + bytes(37) + b"FDSN:XX_TWO__H_H_Z" + bytes(60), ""),
        (b"", ""),
        (bytes(range(256)), ""),
    ],
)
def test_station_of_a_broken_record_is_one_that_is_known(payload: bytes, station: str) -> None:
    """By the codes of miniSEED 2 or 3, if they are whole."""
    assert frame_v3.station_of(payload, {"XX_ONE"}) == station
