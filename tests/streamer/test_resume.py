"""Positions: what is believed, what a snapshot holds of them, and how the next way to go on is chosen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.inventory import Offer, Stream
from streamer.origin import Origin
from streamer.record import Nslc, Record
from streamer.resume import SPREAD_NS, ResumePoint
from streamer.resumption import Kind, Ladder, Plan, Watch
from streamer.seen import Seen

SECOND_NS = 10**9
NOW_NS = 10**18
HOUR_NS = 3600 * SECOND_NS


def record(start_ns: int, code: str = "HHZ", station: str = "ONE", length: int = 100) -> Record:
    return Record(
        nslc=Nslc("XX", station, "", code), start_ns=start_ns, sampling_rate_hz=100.0, samples=np.zeros(length)
    )


def origin(sequence: int | None, station: str = "ONE", protocol: str = "4") -> Origin:
    return Origin("server:18000", f"XX_{station}", sequence, protocol)


def point(**sequences: int) -> ResumePoint:
    """Stations that each had a packet a second ago."""
    made = ResumePoint()
    for station, sequence in sequences.items():
        made.note(record(NOW_NS - 2 * SECOND_NS, station=station), NOW_NS - SECOND_NS, origin(sequence, station))
    return made


def plan(ladder: Ladder, position: ResumePoint, **changes: Any) -> Plan:
    known = {"now_ns": NOW_NS, "protocol": "4", "stations": list(position.stations), "inventory": {}, "window": True}
    return ladder.plan(position, **{**known, **changes})


def test_no_record_of_the_future_is_believed() -> None:
    """One dated 2099 does not move a channel, nor does one of last week."""
    made = ResumePoint()
    assert made.received_ns is None
    made.note(record(NOW_NS - 10 * SECOND_NS), NOW_NS)
    made.note(record(4 * NOW_NS), NOW_NS)
    made.note(record(NOW_NS - 7 * 24 * HOUR_NS), NOW_NS)
    assert made.channels[Nslc("XX", "ONE", "", "HHZ")].end_ns == NOW_NS - 9 * SECOND_NS


def test_only_whole_packets_move_a_station() -> None:
    """A record that is not the last of its packet has no number, and the station stays where it was."""
    made = ResumePoint()
    made.note(record(NOW_NS - 9 * SECOND_NS), NOW_NS, origin(7))
    made.note(record(NOW_NS - 8 * SECOND_NS), NOW_NS, origin(None))
    assert made.stations["XX_ONE"].sequence == 7


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ONE", "TWO"]), st.sampled_from(["HHZ", "HHN"]), st.integers(0, 2 * NOW_NS),
            st.none() | st.integers(0, 2**64 - 1), st.sampled_from("34"),
        )
    )
)  # fmt: skip
def test_what_is_saved_is_what_is_restored(notes: list[tuple[str, str, int, int | None, str]]) -> None:
    """Through JSON, whatever was noted."""
    made = ResumePoint()
    for station, code, start_ns, sequence, protocol in notes:
        made.note(record(start_ns, code, station), NOW_NS, origin(sequence, station, protocol))
    again = ResumePoint.restored(json.loads(json.dumps(made.saved())))
    assert (again.channels, again.stations) == (made.channels, made.stations)


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {},
        {"channels": []},
        {"channels": [], "stations": {}},
        {"channels": [["XX", "ONE", "", "HHZ", 1]], "stations": []},
        {"channels": [["XX", "ONE", "", "HHZ", 1, "2"]], "stations": []},
        {"channels": [["XX", "ONE", "", "HHZ", 1, True]], "stations": []},
        {"channels": [["XX", "ONE", "", "HHZ", -1, 2]], "stations": []},
        {"channels": [["XX", "ONE", "", "HHZ", 2**63, 2]], "stations": []},
        {"channels": [], "stations": [["XX_ONE", -1, "4", 1, 1]]},
        {"channels": [], "stations": [["XX_ONE", 2**64, "4", 1, 1]]},
        {"channels": [], "stations": ["XX_ONE"]},
        {"channels": [[]] * 30_000, "stations": []},
    ],
)
def test_nonsense_is_not_restored(saved: Any) -> None:
    """A snapshot of something else, or a damaged one, is refused with its reason."""
    with pytest.raises(ValueError, match=r"resume point|row|out of range|no time"):
        ResumePoint.restored(saved)


def test_first_connection_asks_for_nothing_old() -> None:
    """Without a position there is nothing to go on from."""
    assert plan(Ladder(HOUR_NS), ResumePoint()) == Plan(None)


def test_each_station_has_its_own_number() -> None:
    """Stations that were there ask by their own number, one that is new does not."""
    wanted = plan(Ladder(HOUR_NS), point(ONE=7, TWO=2**40), stations=["XX_ONE", "XX_TWO", "XX_NEW"])
    assert wanted.kind is Kind.SEQUENCE
    assert {name: one.sequence for name, one in wanted.sequences.items()} == {"XX_ONE": 7, "XX_TWO": 2**40}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stations": None}, "not known one by one"),
        ({"protocol": "3"}, "other"),
        ({"stations": ["XX_NEW"]}, "no sequence number"),
        ({"now_ns": NOW_NS + 2 * HOUR_NS}, "too old"),
        ({"inventory": {"XX_ONE": Offer((), 6)}}, "counts anew: XX_ONE is at 6 and was at 7"),
    ],
)
def test_numbers_that_cannot_be_trusted_give_way_to_a_time(changes: dict[str, Any], reason: str) -> None:
    """Each case asks from the oldest end on, and says why."""
    wanted = plan(Ladder(HOUR_NS), point(ONE=7), **changes)
    assert wanted.kind is Kind.WINDOW
    assert reason in wanted.reason
    late_ns = max(0, changes.get("now_ns", NOW_NS) - NOW_NS + SECOND_NS - HOUR_NS)
    assert wanted.since_ns == NOW_NS - SECOND_NS + late_ns


@pytest.mark.parametrize(("ours", "last", "kind"), [(0xFFFFFF, 3, "sequence"), (3, 0xFFFFFE, "window")])
def test_numbers_of_version_3_are_compared_round_the_wrap(ours: int, last: int, kind: str) -> None:
    """FFFFFF is before 000003, and 000003 after FFFFFE."""
    made = ResumePoint()
    made.note(record(NOW_NS - 2 * SECOND_NS), NOW_NS, origin(ours, protocol="3"))
    assert plan(Ladder(HOUR_NS), made, protocol="3", inventory={"XX_ONE": Offer((), last)}).kind == kind


def test_server_without_times_and_numbers_gives_what_comes() -> None:
    """The last way, and it is said why."""
    wanted = plan(Ladder(HOUR_NS), point(ONE=7), stations=None, window=False)
    assert (wanted.kind, wanted.reason) == (
        Kind.LIVE, "its stations are not known one by one; the server takes no times",
    )  # fmt: skip


def test_window_begins_at_the_slowest_living_channel() -> None:
    """Data that are ten minutes late count as long as they come; what ended long ago does not hold the others back."""
    made = ResumePoint()
    made.note(record(NOW_NS - SECOND_NS, "HHZ"), NOW_NS)
    made.note(record(NOW_NS - 600 * SECOND_NS, "HHN"), NOW_NS)
    made.note(record(NOW_NS - 601 * SECOND_NS, "HHE"), NOW_NS - SPREAD_NS - SECOND_NS)
    assert plan(Ladder(HOUR_NS), made).since_ns == NOW_NS - 599 * SECOND_NS


def test_ways_are_gone_down_one_by_one_and_up_again_at_once() -> None:
    """Number, time, what comes: by an error of the server sooner, by lost connections later; data lead to the top."""
    ladder, position = Ladder(HOUR_NS), point(ONE=7)

    def kind() -> Kind | None:
        return plan(ladder, position).kind

    seen = []
    for _ in range(4):
        seen.append(kind())
        ladder.ended(kind(), "error", advanced=False, broken=True)
    assert seen == [Kind.SEQUENCE, Kind.WINDOW, Kind.WINDOW, Kind.LIVE]
    ladder.settle()
    seen = []
    for _ in range(7):
        seen.append(kind())
        ladder.ended(kind(), "lost", advanced=False, broken=False)
    assert seen == [Kind.SEQUENCE] * 3 + [Kind.WINDOW] * 3 + [Kind.LIVE]
    ladder.settle()
    for _ in range(10):
        assert kind() is Kind.SEQUENCE
        ladder.ended(kind(), "lost", advanced=True, broken=True)


def test_channel_that_was_missed_is_remembered_until_its_data_are_here() -> None:
    """Others deliver for half an hour on a bad connection: the window still begins where the lost channel ended."""
    ladder, position = Ladder(HOUR_NS), point(ONE=7, TWO=8)
    plan(ladder, position)
    for later_s in range(0, 1800, 100):
        at_ns = NOW_NS + later_s * SECOND_NS
        position.note(record(at_ns, station="TWO"), at_ns, origin(9, "TWO"))
    ladder.failed(Kind.SEQUENCE, "late")
    assert plan(ladder, position, now_ns=NOW_NS + 1800 * SECOND_NS).since_ns == NOW_NS - SECOND_NS


def test_first_record_of_each_channel_is_judged() -> None:
    """A duplicate proves nothing; what follows on proves its channel; what begins late is measured."""
    ladder, position = Ladder(HOUR_NS), point(ONE=7, TWO=8)
    watch = Watch(plan(ladder, position), ladder, {}, 60, 0)
    assert watch.first(record(NOW_NS - 2 * SECOND_NS)) is None
    assert watch.first(record(NOW_NS - SECOND_NS + 10**7)) == 0
    assert watch.first(record(NOW_NS + SECOND_NS)) is None, "only the first"
    assert watch.first(record(NOW_NS + SECOND_NS, station="TWO")) == 2 * SECOND_NS - 2 * 10**7
    assert not watch.whole
    watch.heard("XX_ONE", 1)
    watch.heard("XX_TWO", 1)
    assert watch.whole


def test_silence_is_judged_by_the_others_or_by_the_servers_list() -> None:
    """Nobody flows: silence says nothing, unless the list shows newer data."""
    ladder, position = Ladder(HOUR_NS), point(ONE=7, TWO=8)
    wanted = plan(ladder, position)
    watch = Watch(wanted, ladder, {}, 60, 0)
    assert (watch.silent(1000), watch.deadline_s) == (None, float("inf"))
    watch.heard("XX_TWO", 1000)
    assert [watch.silent(1059), watch.silent(1060)] == [None, "XX_ONE"]
    newer = {"XX_ONE": Offer((Stream("", "HHZ", NOW_NS + 60 * SECOND_NS),), 100)}
    watch = Watch(wanted, ladder, newer, 60, 0)
    assert [watch.silent(59), watch.silent(watch.deadline_s)] == [None, "XX_ONE"]


def test_seen_records_are_known_by_all_that_names_them_and_forgotten_in_the_end() -> None:
    """Another length, time, channel or rate is another record; memory is bounded."""
    seen, first = Seen(most=10), record(NOW_NS)
    seen.note(first, NOW_NS)
    assert seen.knows(record(NOW_NS))
    for other in (record(NOW_NS, length=99), record(NOW_NS + 1), record(NOW_NS, "HHN"), record(NOW_NS, station="TWO")):
        assert not seen.knows(other)
    for number in range(1, 5):
        seen.note(record(NOW_NS + number), NOW_NS)
    assert seen.knows(first)
    for number in range(5, 10):
        seen.note(record(NOW_NS + number), NOW_NS)
    assert not seen.knows(first)
    seen.note(record(2 * NOW_NS), NOW_NS)
    assert not seen.knows(record(2 * NOW_NS)), "stations refuse it now, and may take it later"
