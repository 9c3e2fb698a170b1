"""The demo's subscriber reads the messages that the daemon writes."""

from __future__ import annotations

import json

import pytest

from demo.onsets import parse_ns
from demo.records import SOURCES, Served, load
from demo.subscriber import read_pick
from picker.decision import PhaseRule
from picker.pick import Pick
from streamer.chunk import StationKey
from streamer.message import Source
from streamer.payload import PickReport, build_message


@pytest.fixture(scope="module")
def served() -> list[Served]:
    return [load(source) for source in SOURCES if source.key.startswith("jochberg")]


def message(time_ns: int) -> dict[str, object]:
    """What the daemon publishes for an S of BW.RJOB at ``time_ns`` of the timeline."""
    sample = time_ns / 10_000_000
    report = PickReport(
        pick=Pick(
            phase="S",
            sample=sample,
            probability=0.75,
            crossed_sample=int(sample) - 3,
            decided_sample=int(sample) + 70,
        ),
        station=StationKey("BW", "RJOB", "", "EH"),
        channel="EHN",
        time_shift_ns=0,
        bundle_label="tiny-01234567",
        bundle_digest="0" * 64,
        lookahead_s=0.64,
        rule=PhaseRule(),
        data_complete_ns=time_ns,
        step_started_ns=time_ns,
        step_ended_ns=time_ns,
    )
    source = Source(agencyID="XX", author="test")
    read: dict[str, object] = json.loads(build_message(report, source, time_ns).encode())
    return read


@pytest.mark.parametrize(
    ("key", "recorded"),
    [("jochberg_2005a", "2005-08-01T14:57:51.150000Z"), ("jochberg_2009", "2009-08-24T00:20:08.650000Z")],
)
def test_a_message_of_the_daemon_is_moved_back_to_the_time_of_its_record(
    served: list[Served], key: str, recorded: str
) -> None:
    """One station has records of several years; the pick's time on the timeline says which one it belongs to."""
    shift_ns = next(one.shift_ns for one in served if one.source.key == key)
    pick = read_pick(message(parse_ns(recorded) + shift_ns), served)
    assert (pick.network, pick.station, pick.phase) == ("BW", "RJOB", "S")
    assert pick.time_ns == pytest.approx(parse_ns(recorded), abs=1000)
    assert pick.probability == 0.75
    assert pick.latency_s == pytest.approx(0.70, abs=0.011)


def test_a_pick_at_a_time_that_was_never_served_is_refused(served: list[Served]) -> None:
    """It is not silently given to some record."""
    with pytest.raises(ValueError, match=r"no record of BW\.RJOB was served"):
        read_pick(message(parse_ns("2024-01-01T00:00:00Z")), served)
