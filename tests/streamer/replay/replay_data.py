"""miniSEED made on the fly for the tests of the replay server, and what a client got of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MS3Record
from seedlink_client import AsyncSeedLink, SeedLinkPacket

from streamer.replay import ReplayServer, ReplaySettings

START_NS = 1_274_977_440_000_000_000  # 2010-05-27T16:24:00Z
SECOND_NS = 1_000_000_000
RATE_HZ = 100.0
CHANNELS = ("H_H_Z", "H_H_N", "H_H_E")


def samples(seed: int, seconds: float = 30.0) -> NDArray[np.int32]:
    """A noise of 24-bit counts, the same for the same seed."""
    generator = np.random.default_rng(seed)
    return generator.integers(-(1 << 20), 1 << 20, int(seconds * RATE_HZ)).astype(np.int32)


def encode(
    source_id: str,
    data: NDArray[Any],
    *,
    start_ns: int = START_NS,
    version: int = 2,
    length: int = 512,
    encoding: DataEncoding = DataEncoding.STEIM2,
) -> list[bytes]:
    """Records of one contiguous segment."""
    record = MS3Record(reclen=length, encoding=encoding)
    record.sourceid, record.samprate, record.starttime = source_id, RATE_HZ, start_ns
    record.formatversion = version
    kind = {"i": "i", "f": "f" if data.itemsize == 4 else "d"}[data.dtype.kind]
    return list(record.generate(data, kind))


def write(path: Path, records: Iterable[bytes]) -> Path:
    """One file of records."""
    path.write_bytes(b"".join(records))
    return path


def station_file(
    folder: Path, station_id: str = "BW_UH1", *, seconds: float = 30.0, location: str = "", **options: Any
) -> tuple[Path, dict[str, NDArray[np.int32]]]:
    """Three components of one station in one file; its samples by stream ID."""
    expected, records = {}, []
    for number, channel in enumerate(CHANNELS):
        stream_id = f"{location}_{channel}"
        expected[stream_id] = samples(sum(map(ord, station_id)) + number, seconds)
        records += encode(f"FDSN:{station_id}_{stream_id}", expected[stream_id], **options)
    return write(folder / f"{station_id}.mseed", records), expected


def replay(*paths: Path, **settings: Any) -> ReplayServer:
    """A server on any free port, very fast unless a speed is given."""
    return ReplayServer(ReplaySettings(paths=paths, **{"port": 0, "speed": 10_000.0} | settings))


def client(server: ReplayServer | int, **options: Any) -> AsyncSeedLink:
    """EarthScope's client for that server or local port."""
    port = server if isinstance(server, int) else server.port
    return AsyncSeedLink("127.0.0.1", port, **{"timeout": 20.0, "clientname": "test"} | options)


async def collect(connection: AsyncSeedLink, count: int | None = None) -> list[SeedLinkPacket]:
    """Packets up to END or the connection's end, or the first ``count``."""
    packets: list[SeedLinkPacket] = []
    stream = connection.collect(reconnect=False)
    async for packet in stream:
        packets.append(packet)
        if count is not None and len(packets) == count:
            break
    await stream.aclose()
    return packets


def decode(payloads: Iterable[bytes]) -> dict[str, list[tuple[int, NDArray[Any]]]]:
    """Start time (ns) and samples of each record, in order of arrival, by source ID."""
    out: dict[str, list[tuple[int, NDArray[Any]]]] = defaultdict(list)
    for payload in payloads:
        record = MS3Record.parse(payload, unpack_data=True)
        out[record.sourceid].append((record.starttime, record.np_datasamples.copy()))
    return out


def joined(payloads: Iterable[bytes]) -> dict[str, NDArray[Any]]:
    """All samples by source ID, in order of arrival."""
    return {source: np.concatenate([data for _, data in parts]) for source, parts in decode(payloads).items()}


def sequences(packets: Sequence[SeedLinkPacket]) -> dict[str, list[int | None]]:
    """Sequence numbers by station, in order of arrival."""
    out: dict[str, list[int | None]] = defaultdict(list)
    for packet in packets:
        out[packet.station_id].append(packet.seqnum)
    return out


def assert_served(packets: list[SeedLinkPacket], station_id: str, expected: dict[str, NDArray[Any]]) -> None:
    """Every sample of the station came, in order and bit for bit."""
    got = joined(packet.payload for packet in packets if packet.station_id == station_id)
    assert got.keys() == {f"FDSN:{station_id}_{stream}" for stream in expected}
    for stream, data in expected.items():
        assert np.array_equal(got[f"FDSN:{station_id}_{stream}"], data)
