"""The life of a pick: provisional, then confirmed or retracted, under one id, from the tracker to the outbox."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mqtt_docs import SOURCE, example_report
from numpy.typing import NDArray
from station_data import noise, record, run
from tracker_kit import GRID, KEY, chunk, probabilities, spec, track

from picker.decision import PhaseRule
from streamer.broker import Broker
from streamer.memory_outbox import MemoryOutbox
from streamer.message import PickMessage
from streamer.payload import PickReport, reported_channel
from streamer.publisher import Publisher
from streamer.tracker import TrackedPick, Tracker

LOOKAHEAD = 64
CHUNKS = 20


def lives(values: NDArray[np.float32], provisional: bool = True, guard_s: float = 0.0) -> list[TrackedPick]:
    tracker = Tracker(spec(LOOKAHEAD), guard_s=guard_s, provisional=provisional)
    return track(tracker, [chunk(i, reset=i == 0) for i in range(CHUNKS)], values)


def story(tracked: list[TrackedPick]) -> list[tuple[str, str, int]]:
    return [(one.pick.phase, one.status, one.revision) for one in tracked]


def report_of(one: TrackedPick) -> PickReport:
    """As ``Picking`` makes it."""
    codes = {name: f"HH{name}" for name in one.crossing.components}
    return example_report(
        pick=one.pick, station=KEY, revision=one.revision, status=one.status, time_shift_ns=one.time_shift_ns,
        crossed_shift_ns=one.crossing.time_shift_ns,
        channel=reported_channel(one.pick.phase, codes.get("Z"), [codes[c] for c in "NE" if c in codes]),
    )  # fmt: skip


def test_a_pick_that_a_chunk_leaves_open_is_provisional_then_confirmed() -> None:
    """Its crossing lies in one chunk and its decision in the next: two revisions, the first one chunk earlier."""
    first, second = lives(probabilities({"P": [64 * 8 - 1]}, CHUNKS, LOOKAHEAD))
    assert story([first, second]) == [("P", "provisional", 1), ("P", "confirmed", 2)]
    assert first.chunk.first_sample + 64 == second.chunk.first_sample
    assert first.crossing == second.crossing
    assert first.pick.sample <= second.pick.sample == GRID + 64 * 8 - 1
    assert first.pick.uncertainty_samples is None
    assert second.pick.uncertainty_samples is not None
    assert first.pick.decided_sample == first.chunk.first_sample + 63


def test_a_pick_decided_within_a_chunk_is_confirmed_at_once() -> None:
    """Nobody is told twice what is known at once."""
    assert story(lives(probabilities({"P": [64 * 8 + 30]}, CHUNKS, LOOKAHEAD))) == [("P", "confirmed", 1)]


def test_a_candidate_that_loses_a_clash_is_retracted() -> None:
    """The P is told, then a likelier S shows up within 0.2 s of it: the P is taken back with its last values."""
    values = probabilities({"S": [64 * 8 + 12]}, CHUNKS, LOOKAHEAD)
    start = 64 * 8 + LOOKAHEAD
    values[0, start - 4 : start + 20] = 0.5
    assert story(lives(values)) == [("P", "provisional", 1), ("S", "confirmed", 1), ("P", "retracted", 2)]
    told, _, taken_back = lives(values)
    assert told.crossing == taken_back.crossing
    assert taken_back.pick.probability == 0.5
    assert story(lives(values, provisional=False)) == [("S", "confirmed", 1)]


def test_nothing_provisional_in_the_guard() -> None:
    """What begins in the guard is not told before it is known to lie behind it."""
    values = np.zeros((3, 64 * CHUNKS), dtype=np.float32)
    values[0, 64 * 8 - 10 : 64 * 8 + 30] = np.linspace(0.3, 0.9, 40)
    tracker_s = (64 * 8 - LOOKAHEAD + 10) / 100
    assert story(lives(values, guard_s=tracker_s)) == [("P", "confirmed", 1)]
    assert story(lives(values, guard_s=tracker_s - 1)) == [("P", "provisional", 1), ("P", "confirmed", 2)]
    assert story(lives(values, guard_s=tracker_s + 1)) == []


def test_what_is_open_at_a_fresh_start_is_ended() -> None:
    """No provisional pick is left without its end, whatever breaks the stream: a reset, NaN, the end of data."""
    values = np.zeros((3, 64 * CHUNKS), dtype=np.float32)
    values[0, 64 * 10 - 5 : 64 * 10] = 0.8
    values[:, 64 * 10 :] = 0.0
    expected = [("P", "provisional", 1), ("P", "confirmed", 2)]
    tracker = Tracker(spec(0), guard_s=0.0, provisional=True)
    assert story(track(tracker, [chunk(i, reset=i in (0, 10)) for i in range(CHUNKS)], values)) == expected
    broken = values.copy()
    broken[:, 64 * 10 : 64 * 11] = np.nan
    tracker = Tracker(spec(0), guard_s=0.0, provisional=True)
    assert story(track(tracker, [chunk(i, reset=i == 0) for i in range(CHUNKS)], broken)) == expected
    tracker = Tracker(spec(0), guard_s=0.0, provisional=True)
    assert story(track(tracker, [chunk(i, reset=i == 0) for i in range(10)], values)) == expected


def test_identity_stays_that_of_the_crossing() -> None:
    """Components that appear and a clock that is set between the revisions change neither id nor channel."""
    values = probabilities({"S": [64 * 8 + 2]}, CHUNKS, LOOKAHEAD)
    chunks = [
        chunk(i, reset=i == 0, valid="ZE" if i < 8 else "ZNE", shift_ns=0 if i < 8 else 700) for i in range(CHUNKS)
    ]
    tracked = track(Tracker(spec(LOOKAHEAD), provisional=True), chunks, values)
    assert story(tracked) == [("S", "provisional", 1), ("S", "confirmed", 2)]
    first, second = map(report_of, tracked)
    assert (first.id, first.channel) == (second.id, "HHE")
    assert (second.time_shift_ns, second.crossed_shift_ns) == (700, 0)
    silent = track(Tracker(spec(LOOKAHEAD)), chunks, values)
    assert [report_of(one).id for one in silent] == [second.id]


@settings(max_examples=80, deadline=None)
@given(
    peaks=st.lists(st.tuples(st.sampled_from("PS"), st.integers(0, 64 * CHUNKS)), max_size=10),
    ripple=st.sampled_from((0.0, 0.3)),
    resets=st.sets(st.integers(1, CHUNKS - 1), max_size=2),
)
def test_every_story_is_whole(peaks: list[tuple[str, int]], ripple: float, resets: set[int]) -> None:
    """Confirmed picks are those made without provisional ones; a provisional one has one end; revisions count up."""
    at = {phase: [sample for other, sample in peaks if other == phase] for phase in "PS"}
    values = probabilities(at, CHUNKS, LOOKAHEAD)
    values[:2] += ripple * np.random.default_rng(len(peaks)).random((2, 64 * CHUNKS), np.float32)
    chunks = [chunk(i, reset=i == 0 or i in resets) for i in range(CHUNKS)]
    told = track(Tracker(spec(LOOKAHEAD), guard_s=1.0, provisional=True), chunks, values)
    silent = track(Tracker(spec(LOOKAHEAD), guard_s=1.0), chunks, values)
    assert [one.pick for one in told if one.status == "confirmed"] == [one.pick for one in silent]
    assert {(one.status, one.revision) for one in silent} <= {("confirmed", 1)}
    of_id: dict[str, list[tuple[str, int]]] = {}
    for one in told:
        of_id.setdefault(report_of(one).id, []).append((one.status, one.revision))
    for life in of_id.values():
        assert [revision for _, revision in life] == list(range(1, len(life) + 1))
        assert [status for status, _ in life] in (
            ["confirmed"],
            ["provisional", "confirmed"],
            ["provisional", "retracted"],
        )
    assert all(a.chunk.first_sample <= b.chunk.first_sample for a, b in pairwise(told))


async def test_each_revision_is_held_once_and_in_order() -> None:
    """The outbox takes every revision of a pick, and none of them again when a restart makes them anew."""
    values = probabilities({"P": [64 * 8 - 1], "S": [64 * 12 + 30]}, CHUNKS, LOOKAHEAD)
    publisher = Publisher(Broker(port=1), SOURCE, MemoryOutbox())
    for _ in range(2):
        for one in lives(values):
            assert publisher.put(report_of(one)) is not None
    assert (publisher.counters.put, publisher.counters.repeated) == (3, 3)
    held = [PickMessage.model_validate_json(entry.payload) for entry in publisher.outbox.pending()]
    life = [(one.phase, one.analytics_info.extensions.onset.status) for one in held]
    assert life == [("P", "provisional"), ("P", "confirmed"), ("S", "confirmed")]
    assert held[0].id == held[1].id
    assert len({entry.id for entry in publisher.outbox.pending()}) == 3
    # A pick in one message is known by its id alone.
    assert [entry.id for entry in publisher.outbox.pending()][-1] == held[-1].id


def test_thresholds_of_a_tracker_decide_what_crosses() -> None:
    """A station with a higher threshold tells later, under another id."""
    values = probabilities({"P": [64 * 8 + 2]}, CHUNKS, LOOKAHEAD)
    low = lives(values)[0]
    tracker = Tracker(spec(LOOKAHEAD), {"P": PhaseRule(threshold=0.8)}, provisional=True)
    (high,) = track(tracker, [chunk(i, reset=i == 0) for i in range(CHUNKS)], values)
    assert (low.status, high.status) == ("provisional", "confirmed")
    assert low.crossing.sample < high.crossing.sample


@pytest.mark.parametrize(("at", "flags"), [(8, {"gap"}), (5, {"gap_near"}), (0, set())])
def test_a_gap_nearby_is_flagged(at: int, flags: set[str]) -> None:
    """Within a second before the crossing it is a gap, within five seconds one nearby, before that nothing."""
    chunks = [chunk(i, flags=("gap",) if i == at else ()) for i in range(CHUNKS)]
    (one,) = track(Tracker(spec(LOOKAHEAD)), chunks, probabilities({"P": [64 * 9 + 40]}, CHUNKS, LOOKAHEAD))
    assert one.flags == flags
    assert one.reset_age_s == pytest.approx((64 * 9 + 40) / 100)


@pytest.mark.parametrize(
    ("away", "dead", "flags"),
    [
        (range(0, 6), "", {"gap_near"}),
        (range(2, 5), "", {"gap_near"}),
        (range(2, 5), "E", {"gap_near", "missing_E"}),
        (range(2, 9), "", {"missing_N"}),
        (range(2, CHUNKS), "", {"missing_N"}),
        (range(0), "E", {"missing_E"}),
        (range(0, 1), "", set()),
    ],
)
def test_a_component_that_came_back_is_a_gap_nearby(away: range, dead: str, flags: set[str]) -> None:
    """It lacked whole chunks up to five seconds before the crossing; one that is still away is told as missing."""
    chunks = []
    for i in range(CHUNKS):
        lacking = dead + ("N" if i in away else "")
        here = "".join(letter for letter in "ZNE" if letter not in lacking)
        chunks.append(chunk(i, flags=tuple(f"missing_{letter}" for letter in lacking), valid=here))
    (one,) = track(Tracker(spec(LOOKAHEAD)), chunks, probabilities({"P": [64 * 9 + 40]}, CHUNKS, LOOKAHEAD))
    assert one.flags == flags


def test_the_lowest_timing_quality_is_the_pick_s() -> None:
    """Of the second before and of the pick itself; none where no record says."""
    values = probabilities({"P": [64 * 9 + 40]}, CHUNKS, LOOKAHEAD)
    chunks = [replace(chunk(i), timing_quality={3: 1, 8: 0, 9: 90}.get(i)) for i in range(CHUNKS)]
    (one,) = track(Tracker(spec(LOOKAHEAD)), chunks, values)
    assert one.timing_quality == 0
    (one,) = track(Tracker(spec(LOOKAHEAD)), [chunk(i) for i in range(CHUNKS)], values)
    assert one.timing_quality is None


def test_timing_quality_comes_from_the_records() -> None:
    """A chunk has the lowest of the records that it holds samples of."""
    qualities = {0: 100, 1: 0, 2: None, 3: 55}
    records = [record("Z", 2.0 * i, noise(200), timing_quality=quality) for i, quality in qualities.items()]
    chunks, _ = run([record("N", 0.0, noise(800), timing_quality=77), *records])
    told = [one.timing_quality for one in chunks]
    assert told[:3] + told[-2:] == [77, 77, 77, 55, 55]
    assert set(told) == {77, 0, 55}
    chunks, _ = run(records[3:])
    assert {one.timing_quality for one in chunks} == {55}
    chunks, _ = run(records[2:3])
    assert {one.timing_quality for one in chunks} == {None}
