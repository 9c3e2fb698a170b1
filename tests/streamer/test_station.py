"""The policies of a station, one by one, each with its count and its flag."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from station_data import EPOCH_NS, KEY, SECOND_NS, by_time, line, miniseed, noise, packets, record, run, same

from picker.errors import ConfigError
from streamer.chunk import Chunk
from streamer.decode import decode
from streamer.errors import BadRecord
from streamer.record import Record
from streamer.resample import CHUNK_SLOTS, SLOT_NS
from streamer.station import Station, StationPolicy

LENGTH = 4000
DATA = {letter: noise(LENGTH, seed) for seed, letter in enumerate("ZNE")}
FIRST_SLOT = EPOCH_NS // SLOT_NS


def stream(size: int = 100, letters: str = "ZNE", first: int = 0, last: int = LENGTH) -> list[Record]:
    """Records of the common data from sample ``first`` to ``last``."""
    return by_time(
        one for letter in letters for one in packets(letter, DATA[letter][first:last], [size], start_s=first / 100)
    )


def without(records: list[Record], first_s: float, last_s: float, letters: str = "ZNE") -> list[Record]:
    """``records``, of which those of ``letters`` that start in the span are missing."""
    span = range(EPOCH_NS + round(first_s * SECOND_NS), EPOCH_NS + round(last_s * SECOND_NS))
    return [one for one in records if not (one.nslc.channel[-1] in letters and one.start_ns in span)]


def valid_slots(chunks: list[Chunk], component: int) -> np.ndarray:
    """Valid slots, counted from the first sample of the data."""
    return line(chunks, component)[0] - FIRST_SLOT


def test_a_plain_stream() -> None:
    """Chunks follow each other on the grid of 64, hold all samples bit-exactly less the offset, and flag only edges."""
    chunks, station = run(stream())
    assert [chunk.first_sample % CHUNK_SLOTS for chunk in chunks] == [0] * len(chunks)
    assert np.all(np.diff([chunk.first_sample for chunk in chunks]) == CHUNK_SLOTS)
    for component, letter in enumerate("ZNE"):
        slots, values = line(chunks, component)
        assert np.array_equal(slots, FIRST_SLOT + np.arange(LENGTH))
        assert np.array_equal(values, (DATA[letter] - DATA[letter][0]).astype(np.float32))
    assert chunks[0].reset
    assert not any(chunk.reset for chunk in chunks[1:])
    assert [chunk.flags for chunk in chunks[1:-1]] == [frozenset()] * (len(chunks) - 2)
    assert chunks[0].flags == {"reset", "gap"}
    assert station.counts == {"reset": 1}
    assert all(chunk.station == KEY and chunk.samples.dtype == np.float32 for chunk in chunks)


def test_from_real_miniseed() -> None:
    """Steim 2 records of three channels, decoded, give the same chunks as the samples they hold."""
    records = by_time(
        one for letter in "ZNE" for one in decode(miniseed(DATA[letter], source_id=f"FDSN:XX_TEST__H_H_{letter}"))
    )
    assert same(run(records)[0], run(stream())[0])


def test_invalid_samples_are_zero() -> None:
    """Where a chunk is not valid its samples are exactly zero."""
    chunks, _ = run(without(stream(), 10, 12, "Z"))
    for chunk in chunks:
        assert not chunk.samples[~chunk.valid].any()


@pytest.mark.parametrize("offset", [8_000_000, -8_388_608, 2**31 - 500])
def test_large_offsets_lose_nothing(offset: int) -> None:
    """The first sample is subtracted exactly before float32, at 24-bit and 32-bit rails."""
    small = noise(1000, 5)
    plain, _ = run(by_time(one for letter in "ZNE" for one in packets(letter, small, [100])))
    moved, _ = run(
        by_time(one for letter in "ZNE" for one in packets(letter, (small + offset).astype(np.int32), [100]))
    )
    assert same(plain, moved)


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_short_holes_are_interpolated(missing: int) -> None:
    """Up to 0.05 s is filled with a straight line, valid and flagged, in its own chunk only."""
    head, tail = stream(last=1000), stream(first=1000 + missing)
    chunks, station = run(head + tail)
    slots, values = line(chunks, 0)
    assert np.array_equal(slots - FIRST_SLOT, np.arange(LENGTH))
    left, right = float(DATA["Z"][999] - DATA["Z"][0]), float(DATA["Z"][1000 + missing] - DATA["Z"][0])
    expected = np.linspace(left, right, missing + 2)[1:-1].astype(np.float32)
    assert np.allclose(values[1000 : 1000 + missing], expected, rtol=1e-6)
    assert np.array_equal(values[1000 + missing :], (DATA["Z"] - DATA["Z"][0])[1000 + missing :].astype(np.float32))
    assert station.counts["interpolated"] == 3
    touched = {(FIRST_SLOT + sample) // CHUNK_SLOTS for sample in range(1000, 1000 + missing)}
    assert {chunk.first_sample // CHUNK_SLOTS for chunk in chunks if "interpolated" in chunk.flags} == touched


@pytest.mark.parametrize("gap_s", [0.06, 0.1, 1.0])
def test_holes_below_the_hold_time_carry_the_state(gap_s: float) -> None:
    """A gap is invalid and flagged; no chunk is left out, nothing is reset and the offset stays."""
    missing = round(gap_s * 100)
    chunks, station = run(stream(last=1000) + stream(first=1000 + missing))
    slots = valid_slots(chunks, 0)
    assert np.array_equal(slots, np.delete(np.arange(LENGTH), np.s_[1000 : 1000 + missing]))
    assert np.all(np.diff([chunk.first_sample for chunk in chunks]) == CHUNK_SLOTS)
    assert [chunk.reset for chunk in chunks].count(True) == 1
    assert station.counts["gap"] == 3
    assert all("gap" in chunk.flags for chunk in chunks if not chunk.valid.all())
    last = line(chunks, 0)[1][-1]
    assert last == np.float32(DATA["Z"][-1] - DATA["Z"][0])


@pytest.mark.parametrize("gap_s", [5, 60, 86_400 * 30])
def test_holes_beyond_the_hold_time_reset(gap_s: int) -> None:
    """At most hold_s of empty chunks, then nothing, then a reset with new offsets."""
    later = [replace(one, start_ns=one.start_ns + gap_s * SECOND_NS) for one in stream(first=1000)]
    chunks, station = run(stream(last=1000) + later)
    resets = [index for index, chunk in enumerate(chunks) if chunk.reset]
    assert len(resets) == 2
    assert "reset" in chunks[resets[1]].flags
    empty = [chunk for chunk in chunks if not chunk.valid.any()]
    assert len(empty) == station.counts["held"] <= 3
    assert all(chunk.flags == {"gap"} for chunk in empty)
    assert chunks[resets[1]].valid.any()
    after, values = line(chunks[resets[1] :], 0)
    assert np.array_equal(after - FIRST_SLOT - gap_s * 100, np.arange(1000, LENGTH))
    assert np.array_equal(values, (DATA["Z"][1000:] - DATA["Z"][1000]).astype(np.float32))


def test_a_hole_in_one_component_never_resets() -> None:
    """While another component is valid the state goes on, the offset of the holey one too."""
    records = without(stream(), 10, 20, "N")
    chunks, _ = run(records)
    assert [chunk.reset for chunk in chunks].count(True) == 1
    assert any("missing_N" in chunk.flags for chunk in chunks)
    assert line(chunks, 1)[1][-1] == np.float32(DATA["N"][-1] - DATA["N"][0])


def test_duplicates_are_dropped() -> None:
    """Each record twice, at once or much later, changes nothing and is counted."""
    records = stream()
    chunks, station = run(one for pair in zip(records, records, strict=True) for one in pair)
    assert same(chunks, run(records)[0])
    assert station.counts["duplicate"] == len(records)
    again = records[:90] + records[:30] + records[90:]
    chunks, station = run(again)
    assert same(chunks, run(records)[0])
    assert station.counts["duplicate"] == 30


def test_overlap_keeps_what_was_seen_first() -> None:
    """The overlapping samples of a later record are dropped, its new ones are used."""
    wrong = np.concatenate([np.full(50, 99_999, dtype=np.int32), DATA["Z"][1000:1100]])
    records = stream(letters="NE") + stream(letters="Z", last=1000) + [record("Z", 9.5, wrong)]
    records = by_time(records + stream(letters="Z", first=1100))
    chunks, station = run(records)
    assert same(chunks, run(stream())[0])
    assert station.counts["overlap"] == 1


def test_overlap_with_a_record_that_waits() -> None:
    """First-seen holds among records that wait behind a hole, on both sides of them."""
    records = stream(letters="NE") + stream(letters="Z")
    first = [one for one in records if one.start_ns != EPOCH_NS + 10 * SECOND_NS or one.nslc.channel != "HHZ"]
    ordered = by_time(first)
    place = ordered.index(next(one for one in ordered if one.start_ns == EPOCH_NS + 12 * SECOND_NS))
    wide = np.concatenate([np.full(50, -7, np.int32), DATA["Z"][1000:1100], np.full(50, 7, np.int32)])
    chunks, station = run([*ordered[:place], record("Z", 9.5, wide), *ordered[place:]])
    assert same(chunks, run(stream())[0])
    assert station.counts["overlap"] == 1


def test_out_of_order_records_are_put_in_order() -> None:
    """Records that swap places within the wait give the chunks of the ordered stream."""
    records = stream(50)
    shuffled = [one for at in range(0, len(records), 9) for one in reversed(records[at : at + 9])]
    chunks, station = run(shuffled)
    assert same(chunks, run(records)[0])
    assert station.counts["out_of_order"] > 10
    assert not station.counts["late"]


def test_late_data_never_rewrite_state() -> None:
    """A record that comes after its hole was given up is dropped and counted; the chunks stay as they were."""
    records = stream()
    missing = [one for one in records if one.start_ns == EPOCH_NS + 10 * SECOND_NS]
    rest = [one for one in records if one not in missing]
    place = next(at for at, one in enumerate(rest) if one.start_ns == EPOCH_NS + 20 * SECOND_NS)
    chunks, station = run(rest[:place] + missing + rest[place:])
    assert station.counts["late"] == 3
    assert same(chunks, run(rest)[0])


@pytest.mark.parametrize(
    ("start_s", "reason"),
    [(73 * 365.25 * 86_400, "future"), (100, "future"), (-7 * 86_400, "backward_clock"), (-1e9, "backward_clock")],
    ids=["2099", "in 80 s", "last week", "1992"],
)
def test_wrong_dates_poison_nothing(start_s: float, reason: str) -> None:
    """Records dated far off, between good ones, are dropped with their reason; the chunks are those without them."""
    records = stream()
    bad = [record(letter, start_s, noise(100, 7)) for letter in "ZNE"]
    station = Station(KEY)
    chunks: list[Chunk] = []
    for one in [*records[:60], *bad, *records[60:]]:
        station.add(one, EPOCH_NS + 20 * SECOND_NS)
        chunks += station.ready()
    assert same(chunks + station.flush(), run(records)[0])
    assert station.counts[reason] == 3


def test_a_clock_that_runs_ahead_for_one_record() -> None:
    """A record dated half a minute ahead, which is not refused, waits and harms nothing before its time."""
    records = stream()
    ahead = record("Z", 35.0, DATA["Z"][3500:3600])
    assert same(run([*records[:30], ahead, *records[30:]])[0], run(records)[0])


def test_a_backward_clock_step_heals() -> None:
    """After a step back the data are dropped until time has caught up, then used again."""
    good = stream(last=2000)
    back = [replace(one, start_ns=one.start_ns - 5 * SECOND_NS) for one in stream(first=2000)]
    chunks, station = run(good + back)
    slots = valid_slots(chunks, 0)
    assert np.array_equal(slots, np.arange(LENGTH - 500))
    assert station.counts["duplicate"] == 15


def test_three_seconds_of_skew_change_nothing() -> None:
    """E that comes 3 s after Z gives the chunks of a stream without skew."""
    records = stream()
    assert same(run(by_time(records, {"E": 3.0}))[0], run(records)[0])
    assert same(run(by_time(records, {"Z": 4.9, "N": 2.2}))[0], run(records)[0])


def test_sixty_seconds_of_skew_go_on_without() -> None:
    """E that comes 60 s late is missing and flagged, its data are late; Z and N are as without E.

    The last chunk is left out: it is still open when the others end, so the end of E is in time for it.
    """
    long = {letter: noise(12_000, seed) for seed, letter in enumerate("ZNE")}
    records = [one for letter in "ZNE" for one in packets(letter, long[letter], [100])]
    chunks, station = run(by_time(records, {"E": 60.0}))
    alone, _ = run(by_time(one for one in records if one.nslc.channel != "HHE"))
    assert all("missing_E" in chunk.flags for chunk in chunks[:-1])
    assert same(chunks[:-1], alone[:-1])
    assert station.counts["late"] + station.counts["backward_clock"] == 120
    assert station.counts["missing_component"] == 1


def test_the_first_chunk_waits_for_the_slowest_filter() -> None:
    """A component that has started, but whose filter has not filled the first chunk yet, holds it back."""
    slow = {letter: noise(1000, seed) for seed, letter in enumerate("ZNE")}
    records = [one for letter in "ZNE" for one in packets(letter, slow[letter], [10], rate_hz=50.0)]
    policy = StationPolicy(component_wait_s=3.0)
    assert same(run(by_time(records, {"E": 2.9}), policy)[0], run(by_time(records), policy)[0])


def test_the_wait_is_in_data_time() -> None:
    """A dead component holds the others for component_wait_s and the longest record, then no longer."""
    station, held = Station(KEY), []
    for one in without(stream(), 10, 1000, "E"):
        station.add(one, one.end_ns)
        station.ready()
        assert station.next_slot is None or one.end_ns - station.next_slot * SLOT_NS <= 7.7 * SECOND_NS
        held.append(0 if station.next_slot is None else one.end_ns - station.next_slot * SLOT_NS)
    assert max(held[-30:]) < 2 * SECOND_NS
    assert station.components["E"].absent


def test_a_component_comes_back() -> None:
    """After a minute away a component is used again from its first record that is not late, and waited for."""
    long = {letter: noise(10_000, seed) for seed, letter in enumerate("ZNE")}
    records = by_time(one for letter in "ZNE" for one in packets(letter, long[letter], [100]))
    chunks, station = run(without(records, 20, 60, "E"))
    slots = valid_slots(chunks, 2)
    assert np.array_equal(slots[:2000], np.arange(2000))
    assert 6000 <= slots[2000] <= 6100
    assert np.array_equal(slots[2000:], np.arange(slots[2000], 10_000))
    flags = [("missing_E" in chunk.flags) for chunk in chunks]
    assert flags[0] is flags[-2] is False
    assert station.counts["missing_component"] == 1


def test_an_absent_component_cannot_write_behind_a_skip() -> None:
    """Data for a stretch that was skipped because nothing was there are late, like those of an emitted chunk."""
    before, after = stream(letters="Z", last=2000), packets("Z", DATA["Z"], [100], start_s=80.0)
    inside = packets("N", DATA["N"][:100], [100], start_s=50.0)
    chunks, station = run([*before, *after[:20], *inside, *after[20:]])
    assert same(chunks, run(before + after)[0])
    assert station.counts["late"] == 1


def test_long_records_of_one_component_are_learned() -> None:
    """Where E comes in records of 10 s and Z in 1 s, E is late once and then waited for."""
    long = {letter: noise(12_000, seed) for seed, letter in enumerate("ZNE")}
    records = [one for letter in "ZN" for one in packets(letter, long[letter], [100])] + packets("E", long["E"], [1000])
    chunks, _ = run(sorted(records, key=lambda one: one.end_ns))
    slots = valid_slots(chunks, 2)
    assert slots[0] <= 2000
    assert np.array_equal(slots, np.arange(slots[0], 12_000))


def test_a_vertical_alone_is_picked() -> None:
    """A station without horizontals starts after the wait and flags them missing."""
    chunks, station = run(stream(letters="Z"))
    assert np.array_equal(valid_slots(chunks, 0), np.arange(LENGTH))
    assert all({"missing_N", "missing_E"} <= chunk.flags for chunk in chunks)
    assert station.counts["missing_component"] == 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_not_finite_samples_are_invalid(dtype: type) -> None:
    """NaN, infinity and values no model could square are invalid and counted; all others stay."""
    samples = DATA["Z"].astype(dtype)
    samples[[500, 501, 777]] = np.nan, np.inf, -1e30
    records = by_time(stream(letters="NE") + packets("Z", samples, [100]))
    chunks, station = run(records)
    assert np.array_equal(valid_slots(chunks, 0), np.delete(np.arange(LENGTH), [500, 501, 777]))
    assert station.counts["not_finite"] == 3
    assert all(np.isfinite(chunk.samples).all() for chunk in chunks)


def test_resampled_components_are_aligned_and_flagged() -> None:
    """The same wave at 100, 50 and 200 Hz comes out at the same slots within its amplitude's 0.2 %."""
    waves = {}
    for letter, rate_hz in (("Z", 100.0), ("N", 50.0), ("E", 200.0)):
        time_s = np.arange(int(20 * rate_hz)) / rate_hz
        waves[letter] = packets(letter, 1e4 * np.sin(2 * np.pi * 2 * (time_s - 5)) * (time_s > 5), [77], 0, rate_hz)
    chunks, _ = run(by_time(one for records in waves.values() for one in records))
    inner = np.concatenate([chunk.samples for chunk in chunks], axis=1)[:, 700:1800]
    assert np.abs(inner[1] - inner[0]).max() < 20
    assert np.abs(inner[2] - inner[0]).max() < 20
    assert all("resampled" in chunk.flags for chunk in chunks)


def test_the_rate_may_change() -> None:
    """A channel that changes from 100 to 200 Hz goes on without a hole."""
    fast = packets("Z", noise(4000, 8), [200], start_s=20.0, rate_hz=200.0)
    chunks, station = run(by_time(stream(letters="NE") + stream(letters="Z", last=2000) + fast))
    assert np.array_equal(valid_slots(chunks, 0), np.arange(LENGTH))
    assert station.counts["rate_changed"] == 1
    assert station.counts["gap"] == 0


def test_sub_sample_shift_and_clock_flag() -> None:
    """The distance from the grid is carried by the chunk, a questionable clock by its flag, where it is."""
    records = [replace(one, start_ns=one.start_ns + 3_210_000) for one in stream()]
    records = [replace(one, clock_questionable=one.start_ns > EPOCH_NS + 30 * SECOND_NS) for one in records]
    chunks, _ = run(records)
    assert {chunk.time_shift_ns for chunk in chunks} == {3_210_000}
    flagged = [chunk.first_sample - FIRST_SLOT for chunk in chunks if "clock_questionable" in chunk.flags]
    assert 3000 - CHUNK_SLOTS < flagged[0] <= 3000
    assert len(flagged) == LENGTH // CHUNK_SLOTS - 3000 // CHUNK_SLOTS + 1


def test_jittering_record_times_are_one_stream() -> None:
    """Times in steps of 0.1 ms, as miniSEED 2 has them, make no gaps, slips or new clocks."""
    records = [
        replace(one, start_ns=one.start_ns + (index // 3 % 3 - 1) * 100_000) for index, one in enumerate(stream())
    ]
    chunks, station = run(records)
    assert np.array_equal(valid_slots(chunks, 0), np.arange(LENGTH))
    assert station.counts == {"reset": 1}


def test_a_clock_that_drifts_against_its_header() -> None:
    """Records that say 100 Hz and come at 99.9: the clock is set anew, samples slip, time stays right."""
    records = []
    for letter in "ZNE":
        records += [record(letter, k * 1.001, np.full(100, k, np.int32)) for k in range(60)]
    chunks, station = run(by_time(records))
    slots, values = line(chunks, 0)
    assert np.array_equal(slots - FIRST_SLOT, np.arange(slots[-1] - FIRST_SLOT + 1))
    assert station.counts["slip"] + station.counts["interpolated"] >= 3 * 5
    true_s = (slots - FIRST_SLOT) / 100
    assert np.abs(values * 1.001 + 0.5 - true_s).max() < 0.53


def test_the_stamp_is_that_of_the_completing_record() -> None:
    """data_complete_ns is the arrival of the record that made the chunk whole."""
    station, now_ns = Station(KEY), EPOCH_NS + 100 * SECOND_NS
    for one in stream():
        now_ns += 1_000_003
        station.add(one, now_ns)
        for chunk in station.ready():
            assert chunk.data_complete_ns == now_ns


def test_ready_hands_over_once_and_flush_ends() -> None:
    """Chunks come once; after a flush data may go on, without the samples of chunks already emitted."""
    station = Station(KEY)
    for one in stream(last=2000):
        station.add(one, one.end_ns)
    first = station.ready()
    assert first
    assert station.ready() == []
    flushed = station.flush()
    assert station.flush() == []
    for one in stream(first=2000):
        station.add(one, one.end_ns)
    chunks = first + flushed + station.ready() + station.flush()
    starts = [chunk.first_sample for chunk in chunks]
    assert starts == sorted(set(starts))
    slots = valid_slots(chunks, 0)
    assert len(slots) > LENGTH - CHUNK_SLOTS
    assert set(slots) <= set(range(LENGTH))


def test_an_empty_station_flushes_nothing() -> None:
    """No data, no chunks, before and after data that are all refused."""
    station = Station(KEY)
    assert station.flush() == []
    station.add(record("Z", 1e6, noise(100)), EPOCH_NS)
    assert station.flush() == []


@pytest.mark.parametrize("at", [1, 17, 60, 100])
def test_a_pickled_station_goes_on_as_if_nothing_had_been(at: int) -> None:
    """The whole state is in plain attributes: a station saved at any record gives the same chunks."""
    records = by_time(without(stream(37), 12, 13, "N"), {"E": 2.0})
    station = Station(KEY)
    chunks: list[Chunk] = []
    for index, one in enumerate(records):
        if index == at:
            station = pickle.loads(pickle.dumps(station))
        station.add(one, one.end_ns)
        chunks += station.ready()
    assert same(chunks + station.flush(), run(records)[0])


def test_a_rate_that_cannot_be_resampled() -> None:
    """Such a record is a BadRecord and leaves the station as it was."""
    station = Station(KEY)
    with pytest.raises(BadRecord):
        station.add(record("Z", 0, noise(100), rate_hz=20.06), EPOCH_NS)
    assert not station.components["Z"].pending


def test_a_contradicting_orientation_is_counted() -> None:
    """A third number after Z12 has no component."""
    station = Station(KEY, orientations="Z12")
    station.add(record("3", 0, noise(100)), EPOCH_NS)
    assert station.counts == {"component_conflict": 1}


@pytest.mark.parametrize("values", [{"component_wait_s": -1}, {"hold_s": 61}, {"interpolate_s": float("nan")}])
def test_senseless_policies_are_refused(values: dict[str, float]) -> None:
    """A wait outside 0-60 s names the key."""
    with pytest.raises(ConfigError, match=next(iter(values))):
        StationPolicy(**values)
