"""The tracker: from the probabilities of one station to explained picks, through fresh starts."""

from __future__ import annotations

import numpy as np
import pytest
from tracker_kit import GRID, chunk, probabilities, spec, track

from picker.decision import decide
from streamer.tracker import Tracker


@pytest.mark.parametrize("lookahead", [0, 20, 64, 100, 150])
def test_picks_are_those_of_the_offline_decision(lookahead: int) -> None:
    """Fed chunk by chunk, the same picks as the whole record decided at once, the look-ahead taken off."""
    values = probabilities({"P": [500, 900], "S": [700]}, 20, lookahead)
    tracked = track(Tracker(spec(lookahead)), [chunk(i, reset=i == 0) for i in range(20)], values)
    offline = decide(spec(lookahead), values[:, lookahead:])
    assert [(one.pick.phase, one.pick.sample - GRID) for one in tracked] == [
        (pick.phase, pick.sample) for pick in offline
    ]
    assert [one.pick.sample - GRID for one in tracked] == [500, 700, 900]


@pytest.mark.parametrize("lookahead", [20, 64, 100])
def test_probabilities_of_samples_before_a_reset_are_left_out(lookahead: int) -> None:
    """After a reset the first outputs speak of samples that the fresh state has not seen: whatever they are."""
    values = probabilities({"P": [700]}, 20, lookahead)
    values[0, 64 * 4 : 64 * 4 + lookahead] = 0.9
    tracker = Tracker(spec(lookahead), guard_s=0.0)
    tracked = track(tracker, [chunk(i, reset=i in (0, 4)) for i in range(20)], values)
    assert [one.pick.sample - GRID for one in tracked] == [700]
    assert not tracker.counts["guard"]


def test_what_is_open_at_a_reset_is_decided() -> None:
    """A probability that is high when the stream breaks off becomes a pick, explained by the data before."""
    values = np.zeros((3, 64 * 10), dtype=np.float32)
    values[0, 64 * 8 - 10 : 64 * 8] = np.linspace(0.3, 0.9, 10)
    chunks = [chunk(i, reset=i in (0, 8), flags=("gap",) if i == 8 else ("resampled",)) for i in range(10)]
    tracked = track(Tracker(spec(0)), chunks, values)
    assert [one.pick.crossed_sample - GRID for one in tracked] == [64 * 8 - 10]
    assert tracked[0].flags == {"resampled"}
    assert tracked[0].chunk is chunks[7]


def test_picks_in_the_guard_are_dropped_and_counted() -> None:
    """Within guard_s after a reset nothing is published; right after it is."""
    tracker = Tracker(spec(64), guard_s=3.0)
    values = probabilities({"P": [200, 299, 500, 800 + 64 * 10]}, 40, 64)
    tracked = track(tracker, [chunk(i, reset=i in (0, 20)) for i in range(40)], values)
    assert [one.pick.sample - GRID for one in tracked] == [500]
    assert tracker.counts == {"guard": 3, "P": 1, "discontinuity": 0}
    assert [round(one.pick.sample) - GRID for one in track(Tracker(spec(64), guard_s=2.0), [chunk(0, reset=True)] + [
        chunk(i) for i in range(1, 10)], probabilities({"P": [200]}, 10, 64))] == [200]  # fmt: skip


def test_a_chunk_that_does_not_follow_is_a_fresh_start() -> None:
    """It never happens while stations keep their promise; if they do not, it is counted and nothing fails."""
    tracker = Tracker(spec(64), guard_s=0.0)
    chunks = [chunk(i, reset=i == 0) for i in (*range(10), *range(30, 40))]
    values = probabilities({"P": [300]}, 20, 64)
    assert [one.pick.sample - GRID for one in track(tracker, chunks, values)] == [300]
    assert tracker.counts["discontinuity"] == 1


def test_probabilities_that_are_no_numbers_are_a_fresh_start() -> None:
    """What was open is decided, the guard begins anew after that chunk, and later picks come."""
    tracker = Tracker(spec(0), guard_s=1.0)
    values = probabilities({"P": [300, 400, 500]}, 20, 0)
    values[:, 320:384] = np.nan
    tracked = track(tracker, [chunk(i, reset=i == 0) for i in range(20)], values)
    assert [one.pick.sample - GRID for one in tracked] == [300, 500]
    assert tracker.counts["guard"] == 1


def test_a_pick_carries_the_flags_components_and_shift_of_its_data() -> None:
    """Flags from one second before the crossing to the decision; components and clock of the chunk that holds it."""
    values = probabilities({"P": [64 * 10 + 30]}, 20, 64)
    chunks = [
        chunk(
            i, reset=i == 0, flags=(f"f{i}",), valid="Z" if i == 10 else "ZNE", shift_ns=1000 * i
        )
        for i in range(20)
    ]  # fmt: skip
    (one,) = track(Tracker(spec(64)), chunks, values)
    assert one.flags == {"f8", "f9", "f10", "f11"}
    assert (one.crossing.components, one.time_shift_ns) == ("Z", 10_000)
    assert one.chunk is chunks[11]
