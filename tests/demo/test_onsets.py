"""The reference onsets: complete, inside the records served, and where the ground begins to move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from obspy import Trace, UTCDateTime

from demo.onsets import ANY_PHASE, ArrivedPick, Judge, ReferenceOnset, load_onsets
from demo.records import SOURCES, Served, load


@pytest.fixture(scope="module")
def served() -> list[Served]:
    return [load(source) for source in SOURCES]


def traces_of(onset: ReferenceOnset, served: list[Served]) -> list[Trace]:
    """Traces of the onset's channel that hold its time."""
    codes = (onset.network, onset.station, onset.location, onset.channel)
    time = UTCDateTime(ns=onset.time_ns)
    return [
        t
        for one in served
        for t in one.stream
        if tuple(t.id.split(".")) == codes and t.stats.starttime < time < t.stats.endtime
    ]


def test_every_onset_lies_in_exactly_one_record_of_its_channel(served: list[Served]) -> None:
    """A wrong code, date or time in the table is noticed."""
    for onset in load_onsets():
        assert len(traces_of(onset, served)) == 1, onset


def test_there_are_enough_certain_onsets_and_uncertain_ones_are_marked() -> None:
    """At least twelve P and S onsets on several stations are demanded; the phase of a demanded one is known."""
    certain = [onset for onset in load_onsets() if onset.certain]
    assert len(certain) >= 12
    assert len({onset.station for onset in certain}) >= 8
    assert {onset.phase for onset in certain} == {"P", "S"}
    assert all(onset.uncertainty_s <= 0.1 for onset in certain)


def test_every_station_served_has_a_certain_onset(served: list[Served]) -> None:
    """No record is served on which only false picks could be made."""
    stations = {(trace.stats.network, trace.stats.station) for one in served for trace in one.stream}
    assert stations == {(onset.network, onset.station) for onset in load_onsets() if onset.certain}


@pytest.mark.parametrize(
    "onset", [o for o in load_onsets() if o.certain], ids=lambda o: f"{o.station}-{o.phase}-{o.time_ns}"
)
def test_the_ground_moves_more_after_a_certain_onset_than_before(onset: ReferenceOnset, served: list[Served]) -> None:
    """The 2-20 Hz motion of the 0.3 s after the onset is larger than that of the 0.3 s before it."""
    trace = traces_of(onset, served)[0].copy()
    trace.data = trace.data.astype(float)
    band = {"freqmin": 1.0, "freqmax": 8.0} if onset.station == "CER" else {"freqmin": 2.0, "freqmax": 20.0}
    trace.detrend("demean").filter("bandpass", corners=2, zerophase=False, **band)
    time = UTCDateTime(ns=onset.time_ns)
    before, after = trace.slice(time - 0.35, time - 0.05).data, trace.slice(time, time + 0.3).data
    assert np.abs(after).max() > 1.5 * np.abs(before).max()


ONSET = ReferenceOnset(
    network="BW",
    station="UH1",
    location="",
    channel="SHZ",
    phase="P",
    time_ns=10**18,
    uncertainty_s=0.02,
    certain=True,
    note="",
)
PICK = ArrivedPick(network="BW", station="UH1", phase="P", time_ns=10**18, probability=0.9, latency_s=0.7)


def later(seconds: float, pick: ArrivedPick = PICK) -> ArrivedPick:
    return replace(pick, time_ns=pick.time_ns + round(seconds * 1e9))


def test_a_pick_within_half_a_second_matches_and_its_residual_is_pick_minus_onset() -> None:
    """The residual is signed."""
    verdict = Judge([ONSET]).judge(later(-0.4))
    assert verdict.kind == "match"
    assert verdict.residual_s == pytest.approx(-0.4)


@pytest.mark.parametrize("pick", [later(0.51), replace(PICK, phase="S"), replace(PICK, station="UH2")])
def test_a_late_pick_another_phase_and_another_station_are_false(pick: ArrivedPick) -> None:
    """Nothing else stands in for the onset, which stays missed."""
    judge = Judge([ONSET])
    assert judge.judge(pick).kind == "false"
    assert judge.missed == [ONSET]


def test_an_onset_is_given_to_one_pick_only() -> None:
    """A second pick of the same onset is false."""
    judge = Judge([ONSET])
    assert [judge.judge(later(shift)).kind for shift in (0.1, 0.05)] == ["match", "false"]
    assert judge.missed == []


def test_an_uncertain_onset_excuses_picks_and_is_never_missed() -> None:
    """Within its uncertainty, or half a second where that is less; '?' excuses either phase."""
    unsure = replace(ONSET, certain=False, uncertainty_s=0.8, phase=ANY_PHASE)
    judge = Judge([unsure])
    assert judge.judge(later(0.7, replace(PICK, phase="S"))).kind == "unsure"
    assert judge.judge(later(0.9)).kind == "false"
    assert judge.missed == []


def test_a_certain_onset_goes_before_a_nearer_uncertain_one() -> None:
    """A pick is worth a match where there is one."""
    unsure = replace(ONSET, certain=False, time_ns=ONSET.time_ns + 200_000_000)
    assert Judge([unsure, ONSET]).judge(later(0.2)).kind == "match"
