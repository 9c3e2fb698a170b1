"""Files to records to a timeline: ordering, virtual stations, shift, repacking, and files that are wrong."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymseed import DataEncoding, MS3Record
from replay_data import RATE_HZ, SECOND_NS, START_NS, encode, samples, station_file, write
from structlog.testing import capture_logs

from picker.errors import ConfigError
from streamer.errors import BadRecord
from streamer.replay import Delay, ReplaySettings
from streamer.replay.repack import needs_repack, repack
from streamer.replay.rewrite import crc32c, rewrite
from streamer.replay.source import RecordReader, Source, load_source
from streamer.replay.timeline import Timeline, build_timeline

SOURCE_ID = "FDSN:BW_UH1__H_H_Z"


def load(*paths: Path, **options: Any) -> Source:
    return load_source(ReplaySettings(paths=paths, **options))


def timeline(*paths: Path, **options: Any) -> Timeline:
    wanted = ReplaySettings(paths=paths, **options)
    return build_timeline(load_source(wanted), wanted)


def test_crc32c_known_answer() -> None:
    """The check value of CRC-32C and the 32 zero bytes of RFC 3720, B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("version", [2, 3])
@settings(max_examples=50, deadline=None)
@given(shift_s=st.integers(-1_500_000_000, 900_000_000), offset_us=st.integers(0, 999_999))
def test_rewriting_moves_time_and_renames(version: int, shift_s: int, offset_us: int) -> None:
    """Start and station are new, sub-seconds, samples, length and codes are not; miniSEED 3 passes its CRC check."""
    data = samples(1, 2.0)
    (record, *_) = encode(SOURCE_ID, data, version=version, start_ns=START_NS + offset_us * 1000)
    before = MS3Record.parse(record, unpack_data=True)
    after = MS3Record.parse(rewrite(record, str(version), station="V0042", shift_s=shift_s), unpack_data=True)
    assert after.starttime == before.starttime + shift_s * SECOND_NS
    assert after.sourceid == "FDSN:BW_V0042__H_H_Z"
    assert np.array_equal(after.np_datasamples, before.np_datasamples)
    assert after.samprate == RATE_HZ


def test_rewriting_little_endian_miniseed_2() -> None:
    """The byte order of the header is found from its year."""
    (record, *_) = encode(SOURCE_ID, samples(1, 1.0), encoding=DataEncoding.INT32, length=512)
    big = MS3Record.parse(record, unpack_data=True)
    little = bytearray(record)
    for offset, layout in ((20, "HH"), (28, "HHhh"), (40, "iHHHH"), (52, "b")):
        if layout != "b":
            struct.pack_into(f"<{layout}", little, offset, *struct.unpack_from(f">{layout}", record, offset))
    blockette, position = struct.unpack_from(">HH", record, 48), 48
    while True:
        struct.pack_into("<HH", little, position, *blockette)
        if blockette[0] == 1000:
            little[position + 5] = 0
        if not blockette[1]:
            break
        position = blockette[1]
        blockette = struct.unpack_from(">HH", record, position)
    start = struct.unpack_from(">H", record, 44)[0]
    swapped = np.frombuffer(record[start:], ">i4").astype("<i4").tobytes()
    little[start:] = swapped
    parsed = MS3Record.parse(bytes(little), unpack_data=True)
    assert (parsed.starttime, list(parsed.datasamples)) == (big.starttime, list(big.datasamples))
    moved = MS3Record.parse(rewrite(bytes(little), "2", shift_s=86_400 * 300), unpack_data=True)
    assert moved.starttime == big.starttime + 86_400 * 300 * SECOND_NS
    assert list(moved.datasamples) == list(big.datasamples)


def test_a_long_station_code_does_not_fit_miniseed_2() -> None:
    """It is an error, not a cut code; miniSEED 3 takes it, and its header says the new length."""
    (record, *_) = encode(SOURCE_ID, samples(1, 1.0))
    with pytest.raises(ValueError, match="5 characters"):
        rewrite(record, "2", station="TOOLONG")
    (record, *_) = encode(SOURCE_ID, samples(1, 1.0), version=3)
    longer = rewrite(record, "3", station="MUCHLONGER")
    assert len(longer) == len(record) + 7
    assert MS3Record.parse(longer).sourceid == "FDSN:BW_MUCHLONGER__H_H_Z"


@pytest.mark.parametrize(
    ("encoding", "dtype"),
    [
        (DataEncoding.STEIM1, "i4"),
        (DataEncoding.STEIM2, "i4"),
        (DataEncoding.INT16, "i4"),
        (DataEncoding.INT32, "i4"),
        (DataEncoding.FLOAT32, "f4"),
        (DataEncoding.FLOAT64, "f8"),
    ],
)
def test_repacking_keeps_every_sample_and_time(encoding: DataEncoding, dtype: str) -> None:
    """A long record becomes 512-byte records of at most one second, the same samples at the same times."""
    data = (samples(3, 7.35) // 64).astype(dtype)
    (record,) = encode(SOURCE_ID, data, length=8192, encoding=encoding)
    assert needs_repack(record, 1.0)
    pieces = [MS3Record.parse(piece, unpack_data=True) for piece in repack(record, 1.0)]
    assert all(piece.reclen == 512 and piece.formatversion == 2 for piece in pieces)
    assert max(piece.samplecnt for piece in pieces) <= RATE_HZ
    assert np.array_equal(np.concatenate([piece.np_datasamples for piece in pieces]), data)
    counts = np.cumsum([0, *(piece.samplecnt for piece in pieces)])[:-1]
    assert [piece.starttime for piece in pieces] == [START_NS + int(n) * 10_000_000 for n in counts]


def test_short_records_are_left_as_they_are(tmp_path: Path) -> None:
    """What is short enough already keeps its bytes; what was 4096 bytes is served in 512."""
    short = encode(SOURCE_ID, samples(1, 0.8))
    long = encode("FDSN:BW_UH2__H_H_Z", samples(2, 9.0), length=4096)
    source = load(write(tmp_path / "x.mseed", short + long), repack_s=1.0)
    reader = RecordReader()
    assert [reader.read(record) for record in source.stations["BW_UH1"]] == short
    assert all(record.in_v3 for record in source.stations["BW_UH2"])
    assert len(source.stations["BW_UH2"]) >= 9
    reader.close()


def test_original_bytes_come_in_order_of_record_end(tmp_path: Path) -> None:
    """Records are indexed, not altered, and sorted by when they would be complete, over files and folders."""
    path, _ = station_file(tmp_path, "BW_UH1")
    folder = tmp_path / "archive" / "2010"
    folder.mkdir(parents=True)
    other, _ = station_file(folder, "BW_UH2", version=3)
    (folder / ".hidden.mseed").write_bytes(path.read_bytes())
    (folder / "README.txt").write_text("not miniSEED")
    source = load(path, tmp_path / "archive")
    assert list(source.stations) == ["BW_UH1", "BW_UH2"]
    reader = RecordReader()
    for file, records in zip((path, other), source.stations.values(), strict=True):
        assert all(a.end_ns <= b.end_ns for a, b in pairwise(records))
        raw = [reader.read(record) for record in records]
        assert sorted(raw) == sorted(bytes(one.record) for one in MS3Record.from_file(str(file)))
    reader.close()


def test_a_file_that_shrinks_during_replay_is_a_bad_record(tmp_path: Path) -> None:
    """The record is reported as such instead of being served short."""
    path, _ = station_file(tmp_path)
    source, reader = load(path), RecordReader()
    path.write_bytes(path.read_bytes()[:700])
    records = sorted(source.stations["BW_UH1"], key=lambda record: record.data.offset)
    assert len(reader.read(records[0])) == 512
    with pytest.raises(BadRecord, match="shorter"):
        reader.read(records[1])
    reader.close()


def test_wrong_paths_are_clear_errors(tmp_path: Path) -> None:
    """Missing path, file without miniSEED, empty folder: each names itself."""
    text = tmp_path / "notes.txt"
    text.write_text("no miniSEED here" * 100)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"gone\.mseed: no such file"):
        load(tmp_path / "gone.mseed")
    with pytest.raises(ConfigError, match=r"notes\.txt: no miniSEED record"):
        load(text)
    with pytest.raises(ConfigError, match=r"no miniSEED record in .*empty"):
        load(tmp_path / "empty")


def test_corrupt_records_are_left_out_with_one_warning(tmp_path: Path) -> None:
    """Garbage in the middle, a bad CRC and a cut end cost those records only; the file is named once."""
    two, three = encode(SOURCE_ID, samples(1)), encode("FDSN:BW_UH2__H_H_Z", samples(2), version=3)
    broken = bytearray(three[1])
    broken[-1] ^= 1
    path = write(tmp_path / "x.mseed", [b"garbage" * 9, *two[:2], b"\0" * 512, two[2], three[0], broken, *three[2:4]])
    path.write_bytes(path.read_bytes() + two[3][:100])
    with capture_logs() as logs:
        source = load(path)
    assert {name: len(records) for name, records in source.stations.items()} == {"BW_UH1": 3, "BW_UH2": 3}
    (warning,) = [entry for entry in logs if entry["event"] == "bad miniSEED left out"]
    assert (warning["log_level"], warning["path"], warning["records"]) == ("warning", str(path), 6)


def test_records_that_v3_cannot_carry_are_named(tmp_path: Path) -> None:
    """One warning says which, why and the mend; there is none when all can be served."""
    station_file(tmp_path, "BW_UH1")
    with capture_logs() as logs:
        load(tmp_path)
    assert logs == []
    station_file(tmp_path, "BW_UH2", length=4096)
    with capture_logs() as logs:
        load(tmp_path)
    (warning,) = logs
    assert "BW_UH2__H_H_Z" in warning["streams"]
    assert "4096 bytes" in warning["because"]
    assert "--repack-s" in warning["mend"]


def test_virtual_stations_have_codes_of_their_own(tmp_path: Path) -> None:
    """M stations are made from those there, each with all records of its source."""
    station_file(tmp_path, "BW_UH1")
    station_file(tmp_path, "MV_MBGA")
    plan = timeline(tmp_path, virtual_stations=5)
    assert [one.station_id for one in plan.stations] == ["BW_V0001", "MV_V0002", "BW_V0003", "MV_V0004", "BW_V0005"]
    assert len(plan) == sum(len(one.records) for one in plan.stations)
    assert list(plan) == sorted(plan, key=lambda entry: entry[:2])


def test_records_appear_at_their_end_plus_delay(tmp_path: Path) -> None:
    """Without options a record appears when it is complete; a delay for one stream moves only that stream."""
    path, _ = station_file(tmp_path)
    assert all(due == record.end_ns - START_NS for due, _, record in timeline(path))
    skewed = timeline(path, delays=(Delay.parse("*_E=3"), Delay.parse("0.5")))
    for due, _, record in skewed:
        assert due == record.end_ns - START_NS + (3 if record.name.subsource == "E" else 0.5) * SECOND_NS


def test_station_delays_are_drawn_once_and_by_seed(tmp_path: Path) -> None:
    """A range gives each station one delay within it, the same for the same seed and whatever else is served."""
    for name in ("BW_UH1", "BW_UH2", "BW_UH3"):
        station_file(tmp_path, name, seconds=8.0)

    def delays(*paths: Path, seed: int) -> dict[str, set[int]]:
        out: dict[str, set[int]] = {}
        plan = timeline(*paths, delays=(Delay.parse("0.5:3"),), seed=seed)
        for due, index, record in plan:
            out.setdefault(plan.stations[index].station_id, set()).add(due - (record.end_ns - plan.start_ns))
        return out

    first = delays(tmp_path, seed=1)
    assert all(len(values) == 1 for values in first.values())
    assert all(0.5 * SECOND_NS <= value <= 3 * SECOND_NS for values in first.values() for value in values)
    assert len({min(values) for values in first.values()}) == 3
    assert delays(tmp_path, seed=1) == first != delays(tmp_path, seed=2)
    assert delays(tmp_path / "BW_UH2.mseed", seed=1)["BW_UH2"] == first["BW_UH2"]


@pytest.mark.parametrize("reorder", [False, True])
def test_jitter_keeps_the_order_unless_asked(tmp_path: Path, reorder: bool) -> None:
    """Jitter only makes later, by at most itself or up to the record before; --reorder lets records overtake."""
    path, _ = station_file(tmp_path)
    plan = timeline(path, jitter_s=20.0, reorder=reorder, seed=5)
    (station,) = plan.stations
    ends = [station.records[index].end_ns for index in station.order]
    assert (ends == sorted(ends)) is not reorder
    assert sorted(station.order) == list(range(len(station.records)))
    assert all(due >= record.end_ns - START_NS for due, _, record in plan)
    assert all(a <= b for a, b in pairwise(station.release_ns))
    again = timeline(path, jitter_s=20.0, reorder=reorder, seed=5)
    assert np.array_equal(again.stations[0].release_ns, station.release_ns)


@pytest.mark.parametrize("text", ["", "x", "1:0.5", "-1", "A=x", "nan", "inf"])
def test_wrong_delays_are_clear_errors(text: str) -> None:
    """The option and what was written are named."""
    with pytest.raises(ConfigError, match=r"--delay-s .*SECONDS"):
        Delay.parse(text)
