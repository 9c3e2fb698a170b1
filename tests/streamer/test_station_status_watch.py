"""What is known of a station: gaps, components, picks of the hour, and which picks a mute holds back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from status_kit import DELAY_NS, FIRST, KEY, SLOT_NS, a_chunk, a_pick, feed
from structlog.testing import capture_logs

from streamer.mute import MuteRule
from streamer.snapshot_tree import packed, unpacked
from streamer.station_watch import HourCount, StationWatch

RULE = MuteRule(picks=3, window_s=60.0, release_picks=1, release_s=60.0)
HOUR_CHUNKS = 5625


def muting() -> StationWatch:
    return StationWatch(mute_rule=lambda station: RULE)


def test_facts_of_the_newest_chunk() -> None:
    """Time of the last sample, latency, and what was there and wrong in the last minute."""
    watch = StationWatch()
    feed(watch, [a_chunk(0, reset=True, flags=["reset"])])
    feed(watch, [a_chunk(n, components="ZN", flags=["missing_E"]) for n in range(1, 300)])
    feed(watch, [a_chunk(300, components="ZN", flags=["missing_E", "clock_questionable"])])
    one = watch.stations[KEY]
    assert one.last_sample_ns == (FIRST + 64 * 300 + 63) * SLOT_NS
    assert one.latency_s == DELAY_NS / 1e9
    assert one.lately(one.components_ns) == ["N", "Z"]
    assert one.lately(one.flags_ns) == ["clock_questionable", "missing_E"]


def test_gaps_are_counted_once_each_and_for_an_hour() -> None:
    """The beginning is none; a run of chunks with a gap is one; so is a fresh start; an hour later there are none."""
    watch = StationWatch()
    feed(watch, [a_chunk(0, reset=True, flags=["reset", "gap"]), a_chunk(1)])
    feed(watch, [a_chunk(n, flags=["gap"]) for n in (2, 3, 4)])
    feed(watch, [a_chunk(5), a_chunk(200, reset=True, flags=["reset"]), a_chunk(201)])
    one = watch.stations[KEY]
    assert one.gaps.until(one.last_sample_ns or 0) == 2
    feed(watch, [a_chunk(HOUR_CHUNKS + 400)])
    assert one.gaps.until(one.last_sample_ns or 0) == 0


@given(st.lists(st.integers(0, 7200), max_size=200), st.integers(0, 600))
def test_count_of_an_hour_is_right_and_bounded(seconds: list[int], later: int) -> None:
    """To a minute at the far end; never more than an hour of minutes is kept."""
    count = HourCount()
    for second in sorted(seconds):
        count.note(second * 10**9)
    now = max(seconds, default=0) + later
    least = sum(second > now - 3600 + 60 for second in seconds)
    assert least <= count.until(now * 10**9) <= sum(second > now - 3660 for second in seconds)
    assert len(count.minutes) <= 60


def test_muted_picks_are_held_back_and_counted() -> None:
    """Beyond the limit nothing is published; after the calm it is again; every confirmed pick is counted."""
    watch = muting()
    assert feed(watch, [a_chunk(n) for n in range(6)], [0, 1, 2, 3, 4]) == [True, True, True, False, False]
    one = watch.stations[KEY]
    assert one.muted
    assert watch.muted == {"P": 2}
    assert (one.picks["P"].until(one.last_sample_ns or 0), one.muted_picks.until(one.last_sample_ns or 0)) == (5, 2)
    assert feed(watch, [a_chunk(n) for n in range(6, 260)], [253]) == [True]
    assert not one.muted


def test_revisions_of_a_pick_share_a_fate() -> None:
    """What was published as provisional gets its end; what was not gets none, though the mute has changed between."""
    watch = muting()
    begun = a_chunk(0)
    watch.chunk(begun)
    assert watch.pick(a_pick(begun, "S", "provisional"))
    assert feed(watch, [a_chunk(n) for n in range(1, 5)], [0, 1, 2, 3])[-1] is False
    assert watch.stations[KEY].muted
    assert watch.pick(a_pick(begun, "S", "confirmed", revision=2)), "its end is owed"
    held = a_chunk(5)
    watch.chunk(held)
    assert not watch.pick(a_pick(held, "S", "provisional"))
    feed(watch, [a_chunk(n) for n in range(6, 260)])
    assert not watch.stations[KEY].muted
    assert not watch.pick(a_pick(held, "S", "retracted", revision=2)), "nobody has heard of it"
    assert watch.muted == {"P": 1, "S": 0}


def test_without_a_rule_nothing_is_held_back() -> None:
    """The default: every pick is published, however many."""
    watch = StationWatch()
    assert all(feed(watch, [a_chunk(n) for n in range(2000)], list(range(2000)) * 2))


@pytest.mark.parametrize("cut", [3, 5, 100])
def test_past_survives_in_the_snapshot(cut: int) -> None:
    """Packed, read and taken up at any point, it goes on as an undisturbed one, mute and open picks included."""
    whole, first, second = muting(), muting(), muting()
    chunks = [a_chunk(n, flags=["gap"] if n % 7 == 0 else []) for n in range(300)]
    wanted = feed(whole, chunks[:cut], range(0, cut)) + feed(whole, chunks[cut:], range(0, 8))
    got = feed(first, chunks[:cut], range(0, cut))
    second.restore(unpacked(packed({"watch": first.saved()}))["watch"])
    got += feed(second, chunks[cut:], range(0, 8))
    assert got == wanted
    assert second.saved() == whole.saved()


def test_past_that_does_not_fit_is_left() -> None:
    """That of another version, or of none, begins anew with a warning and costs nothing else."""
    watch = muting()
    feed(watch, [a_chunk(0)])
    saved = watch.saved()
    broken = {**saved, "stations": {KEY: {**saved["stations"][KEY], "rate": {"mood": 1}}}}
    for other in ({"version": 99, "stations": {}}, broken, {}):
        fresh = muting()
        with capture_logs() as logs:
            fresh.restore(other)
        assert [line["log_level"] for line in logs] == ["warning"]
        assert fresh.stations == {}
    fresh = muting()
    fresh.restore(None)
    assert fresh.stations == {}


def test_mute_switched_on_later_begins_with_what_is_known() -> None:
    """Settings of the new process hold: with a mute where there was none, and without one where there was."""
    without = StationWatch()
    feed(without, [a_chunk(n) for n in range(5)], range(5))
    watch = muting()
    watch.restore(without.saved())
    assert watch.stations[KEY].mute is not None
    back = StationWatch()
    back.restore(watch.saved())
    assert back.stations[KEY].mute is None
