"""The parts of the chaos runs: faults are what they say, and the report sees what went wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chaos_data import LENGTHS_S, NAN_EVERY, Fault, corrupted, faulty, plan, read_faults, write_faults
from chaos_proxy import Proxy
from chaos_report import differences, doubled, outside, repetitions, unflagged, unmatched
from chaos_script import CAST, acts
from pymseed import MS3Record
from rig_server import ahead, repeated, with_faults
from rig_subscriber import Heard, confirmed
from rig_waves import records, source_id, waveforms

from streamer.decode import decode, decode_each
from streamer.errors import BadRecord
from streamer.replay.settings import ReplaySettings
from streamer.replay.source import SourceRecord, load_source
from streamer.replay.timeline import Timeline, build_timeline

START_NS = 1_700_000_000_000_000_000


def channel(version: int = 2) -> list[bytes]:
    return records(waveforms(40, [20], 1)[0], source_id("XX", "ONE", "Z"), START_NS, version=version)


def source_record(payload: bytes) -> SourceRecord:
    header = MS3Record.parse(payload)
    end_ns = header.starttime + round(header.samplecnt * 1e9 / header.samprate)
    return SourceRecord(None, "2", "D", header.starttime, end_ns, payload)  # type: ignore[arg-type]


def timeline(folder: Path) -> Timeline:
    (folder / "one.mseed").write_bytes(b"".join(channel()))
    settings = ReplaySettings.model_validate({"paths": (folder,)})
    return build_timeline(load_source(settings), settings)


@pytest.mark.parametrize("version", [2, 3])
def test_every_corrupted_record_is_found(version: int) -> None:
    """The decoder refuses each record whose first frame was damaged, and none as it was."""
    sound = channel(version)
    assert len(sound) > 5
    for seed, payload in enumerate(sound):
        assert len(decode(payload)) == 1
        (found,) = decode_each(corrupted(payload, seed))
        assert isinstance(found, BadRecord)
        assert found.reason == "corrupt"


def test_faults_of_records() -> None:
    """Clocks are off by what the fault says with the samples kept; NaN are as many as announced; a gap is nothing."""
    payload = channel()[0]
    record, original = source_record(payload), decode(payload)[0]
    for kind, by_s in (("clock_future", 3650 * 86400), ("clock_past", -86400), ("clock_shift", 0.3)):
        (moved,) = faulty(Fault("ONE", kind, 0, 10), record, payload)
        (read,) = decode(bytes(moved.data))  # type: ignore[arg-type]
        assert read.start_ns == original.start_ns + round(by_s * 1e9)
        assert np.array_equal(read.samples, original.samples)
        assert moved.end_ns == record.end_ns, "it is sent when it was due"
    pieces = faulty(Fault("ONE", "nan", 0, 10), record, payload)
    samples = np.concatenate([decode(bytes(piece.data))[0].samples for piece in pieces])  # type: ignore[arg-type]
    assert len(samples) == len(original.samples)
    assert np.isnan(samples).sum() == -(-len(samples) // NAN_EVERY)
    assert faulty(Fault("ONE", "gap", 0, 10), record, payload) == []
    with pytest.raises(ValueError, match="no such fault: flood"):
        faulty(Fault("ONE", "flood", 0, 10), record, payload)


def test_the_plan_holds_every_kind_and_is_kept(tmp_path: Path) -> None:
    """Fifty stations meet all kinds of fault within the time allowed, some none; the same seed gives the same plan."""
    stations = [f"V{number:04d}" for number in range(50)]
    faults = plan(stations, 100, 200, seed=3)
    assert {fault.kind for fault in faults} == set(LENGTHS_S)
    assert all(100 <= fault.begin_s <= 200 for fault in faults)
    assert 40 < len(faults) < 50
    assert faults == plan(stations, 100, 200, seed=3) != plan(stations, 100, 200, seed=4)
    assert read_faults(write_faults(tmp_path / "faults.json", faults)) == faults


def test_the_script_plays_the_whole_cast() -> None:
    """Each fault comes as often as the cast says, in order of time, from the first moment to the last."""
    script = acts(8, 100, seed=1)
    assert Counter(act.kind for act in script) == dict(CAST)
    assert [act.at_s for act in script] == sorted(act.at_s for act in script)
    assert all(8 <= act.at_s <= 100 for act in script)
    assert script == acts(8, 100, seed=1) != acts(8, 100, seed=2)


def test_timelines_of_a_server(tmp_path: Path) -> None:
    """Ahead moves every release; repeated doubles some records, never their order; faults leave the others alone."""
    whole = timeline(tmp_path)
    (station,) = whole.stations
    assert (ahead(whole, 5.0).stations[0].release_ns == station.release_ns - 5_000_000_000).all()
    (twice,) = repeated(whole).stations
    assert len(station.order) < len(twice.order) < 2 * len(station.order)
    assert (np.diff(twice.release_ns) >= 0).all()
    assert set(twice.order) == set(station.order)
    (left,) = with_faults(whole, [Fault("ONE", "gap", 10.0, 20.0)]).stations
    begins_s = [(record.start_ns - START_NS) / 1e9 for record in left.records]
    assert begins_s == [
        begin_s for record in station.records if not 10 <= (begin_s := (record.start_ns - START_NS) / 1e9) < 20
    ]
    assert len(left.records) < len(station.records)


def heard(id: str, second: float, **changes: Any) -> Heard:
    onset = {"status": "confirmed", "revision": 1, "quality": [], **changes}
    return Heard(0.0, {
        "id": id, "phase": "P", "time": f"2023-11-14T22:{13 + int(second // 60):02d}:{second % 60:09.6f}Z",
        "channel": {"properties": {"station": "ONE"}},
        "analyticsInfo": {"predictions": [{"probability": 0.5}], "extensions": {"onset": onset}},
    })  # fmt: skip


def test_the_report_sees_lost_invented_doubled_and_repeated_picks() -> None:
    """Each difference between two runs is counted, and a repetition is none."""
    reference = confirmed([heard("a", 21), heard("b", 31)])
    run = [heard("a", 21), heard("a", 21), heard("c", 31.2), heard("d", 50, status="retracted")]
    lost, invented = differences(reference, confirmed(run))
    assert [one.id for one in lost] == ["b"]
    assert [one.id for one in invented] == ["c"]
    assert repetitions(run) == 1
    assert doubled(confirmed([*run, heard("b", 31)]), START_NS) == 1
    assert doubled(reference, START_NS) == 0
    moved = confirmed([heard("a", 21.000001), heard("b", 31)])
    assert [len(side) for side in differences(reference, moved)] == [1, 1]
    renamed = confirmed([heard("x", 21.0005), heard("b", 31.1)])
    assert [one.id for one in unmatched(reference, renamed)] == ["b"]
    assert [one.id for one in unmatched(renamed, reference)] == ["b"]


def test_faults_excuse_their_own_time_only() -> None:
    """Picks from a fault to five minutes later are left out; soon after a hole they must carry a flag."""
    faults = [Fault("ONE", "gap", 40.0, 50.0), Fault("TWO", "gap", 0.0, 1000.0)]
    start_ns = START_NS
    picks = {str(s): heard(str(s), s) for s in (21.0, 71.0, 75.0, 380.0)}  # seconds of the minute 22:13
    assert list(outside(picks, faults, start_ns)) == ["21.0", "380.0"]
    assert list(outside(picks, faults, start_ns, float("inf"))) == ["21.0"]
    assert unflagged(picks, faults, start_ns) == (2, 2)
    picks["71.0"] = heard("71.0", 71.0, quality=["gap_near"])
    assert unflagged(picks, faults, start_ns) == (2, 1)


async def test_the_proxy_goes_silent_without_closing() -> None:
    """It forwards, then on old connections nothing more comes and nothing is closed, and new ones work."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        assert await asyncio.wait_for(reader.read(100), 5) == b"one"
        assert proxy.go_silent() == 1
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.3)
        newer, other = await asyncio.open_connection("127.0.0.1", proxy.port)
        other.write(b"three")
        assert await asyncio.wait_for(newer.read(100), 5) == b"three"
        proxy.admits = False
        refused, third = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await asyncio.wait_for(refused.read(100), 5) == b""
        for one in (writer, other, third):
            one.transport.abort()


def test_waveforms_are_the_same_for_the_same_seed() -> None:
    """Ids of picks of several runs can be compared only where the data are the same."""
    first, again, other = (waveforms(30, [20.0], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    quiet = waveforms(30, [], 1)
    assert np.abs(first[:, 2010:2100]).max() > 1.5 * np.abs(quiet[:, 2010:2100]).max()
