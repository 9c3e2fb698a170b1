"""Probabilities to picks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from picker.decision import Decider, PhaseRule, decide
from picker.pick import Pick, PickEvent
from picker.spec import PickerSpec

SPEC = PickerSpec(name="test", lookahead_samples=64, state=(), thresholds={"P": 0.3, "S": 0.3})
LENGTH = 600

peaks = st.tuples(
    st.sampled_from("PS"), st.floats(-5, LENGTH + 5), st.floats(0.05, 0.99), st.sampled_from((2.0, 6.0, 25.0))
)


def probabilities(*bumps: tuple[str, float, float, float], length: int = LENGTH) -> NDArray[np.float32]:
    """(3, length): a Gaussian bump for each (phase, centre, height, width in samples)."""
    time, out = np.arange(length), np.full((3, length), 0.01)
    for phase, centre, height, width in bumps:
        row = SPEC.phases.index(phase)
        out[row] = np.maximum(out[row], height * np.exp(-0.5 * ((time - centre) / width) ** 2))
    return out.astype(np.float32)


def feed(pieces: Sequence[NDArray[np.float32]], decider: Decider | None = None, first: int = 0) -> list[Pick]:
    """All picks of consecutive pieces, in the order in which they are decided."""
    decider, picks = decider or Decider(SPEC), []
    for piece in pieces:
        picks += decider.feed(first, piece)
        first += piece.shape[1]
    return picks + decider.flush()


@settings(max_examples=60, deadline=None)
@given(
    bumps=st.lists(peaks, max_size=8),
    cuts=st.lists(st.integers(0, LENGTH), max_size=12),
    ripple=st.sampled_from((0.0, 0.15, 0.5)),
)
def test_any_feeding_length_gives_the_same_picks(
    bumps: list[tuple[str, float, float, float]], cuts: list[int], ripple: float
) -> None:
    """One call, a sample a call, or any split: the same picks in the same order, clashes of P and S included."""
    data = probabilities(*bumps)
    data[:2] += ripple * np.random.default_rng(len(bumps)).random((2, LENGTH), np.float32)
    expected = feed([data])
    assert feed(np.split(data, sorted(cuts), axis=1)) == expected
    assert feed(np.split(data, LENGTH, axis=1)) == expected
    assert decide(SPEC, data) == sorted(expected, key=lambda pick: pick.sample)


@pytest.mark.parametrize("centre", [100.0, 100.3, 99.75, 100.5])
@pytest.mark.parametrize("phase", ["P", "S"])
def test_refined_below_one_sample(phase: str, centre: float) -> None:
    """A parabola through the peak finds the centre of a bump to a twentieth of a sample."""
    (pick,) = decide(SPEC, probabilities((phase, centre, 0.9, 4.0)))
    assert pick.phase == phase
    assert abs(pick.sample - centre) < 0.05
    assert pick.probability == pytest.approx(0.9, abs=0.01)


def test_threshold_of_each_phase() -> None:
    """P and S have thresholds of their own, from the specification or from a rule; at the threshold is above it."""
    data = probabilities(("P", 100, 0.5, 5), ("S", 300, 0.5, 5))
    assert [pick.phase for pick in decide(SPEC, data)] == ["P", "S"]
    assert [pick.phase for pick in decide(SPEC, data, {"P": PhaseRule(threshold=0.51)})] == ["S"]
    assert [pick.phase for pick in decide(SPEC, data, {"S": PhaseRule(threshold=0.51)})] == ["P"]
    assert len(decide(SPEC, data, {"P": PhaseRule(threshold=0.5)})) == 2


def test_one_pick_where_the_probability_wavers() -> None:
    """Until it falls to half its peak the candidate stays open: the highest of three bumps is the one pick."""
    wavering = probabilities(("P", 100, 0.6, 3), ("P", 110, 0.9, 3), ("P", 120, 0.5, 3))
    wavering[0, 100:121] = np.maximum(wavering[0, 100:121], 0.46)
    (pick,) = decide(SPEC, wavering)
    assert pick.sample == pytest.approx(110, abs=0.1)
    assert len(decide(SPEC, wavering, {"P": PhaseRule(release=0.9, dead_time_s=0)})) == 1  # not below 0.3 in between


def test_must_fall_below_the_threshold_before_the_next() -> None:
    """A high plateau after a pick opens no second candidate, however long it lasts; a fall and a rise do."""
    data = probabilities(("P", 50, 0.95, 3))
    data[0, 50:400] = np.maximum(data[0, 50:400], 0.4)
    data[0, 450] = 0.7
    assert [round(pick.sample) for pick in decide(SPEC, data)] == [50, 450]


def test_dead_time() -> None:
    """Bumps 30 samples apart are one pick at a dead time of half a second, two at a tenth."""
    data = probabilities(("P", 100, 0.9, 3), ("P", 130, 0.9, 3))
    assert [round(pick.sample) for pick in decide(SPEC, data)] == [100]
    assert [round(pick.sample) for pick in decide(SPEC, data, {"P": PhaseRule(dead_time_s=0.1)})] == [100, 130]


def test_a_flat_top_has_one_middle() -> None:
    """Which of its samples is the highest is a matter of rounding, and moves the pick by next to nothing."""
    flat = np.minimum(probabilities(("P", 200.0, 1.2, 6)), np.float32(0.9))
    tops = [flat + np.float32(1e-4) * np.random.default_rng(seed).random(flat.shape, np.float32) for seed in range(20)]
    assert np.ptp([top[0].argmax() for top in tops]) >= 6
    times = [decide(SPEC, top)[0].sample for top in tops]
    assert times == pytest.approx([200.0] * 20, abs=0.05)


def test_a_candidate_is_decided_after_the_longest_wait() -> None:
    """A plateau that never falls is decided ``longest_s`` after its peak, look-ahead added."""
    data = probabilities()
    data[0, 100:] = 0.8
    data[0, 120] = 0.9
    for longest, decided in ((1.0, 221), (2.0, 321)):
        (pick,) = decide(SPEC, data, {"P": PhaseRule(longest_s=longest)})
        assert (round(pick.sample), pick.decided_sample) == (120, decided + SPEC.lookahead_samples)


def test_crossed_sample_is_the_first_above_the_threshold() -> None:
    """It is where the candidate opened, and no later and higher peak moves it."""
    data = probabilities()
    data[0, 100:131] = np.linspace(0.31, 0.9, 31)
    (pick,) = decide(SPEC, data)
    assert (pick.crossed_sample, pick.sample) == (100, pytest.approx(128, abs=0.5))  # the middle of its upper fifth
    data[0, 131:160] = np.linspace(0.9, 0.99, 29)
    (later,) = decide(SPEC, data)
    assert (later.crossed_sample, later.sample) == (100, pytest.approx(152, abs=0.5))


@pytest.mark.parametrize(("apart", "phases"), [(10, ["S"]), (19, ["S"]), (21, ["S", "P"])])
def test_a_less_likely_follower_is_dropped(apart: int, phases: list[str]) -> None:
    """Of two phases closer than 0.2 s only the likelier stays; from 0.2 s on both do."""
    data = probabilities(("S", 100, 0.9, 2), ("P", 100 + apart, 0.5, 2))
    assert [pick.phase for pick in decide(SPEC, data)] == phases


def test_a_less_likely_forerunner_is_dropped() -> None:
    """Where the likelier phase is open and higher when the first would be decided."""
    assert [pick.phase for pick in decide(SPEC, probabilities(("P", 100, 0.5, 2), ("S", 110, 0.9, 12)))] == ["S"]
    assert [pick.phase for pick in decide(SPEC, probabilities(("P", 110, 0.9, 2), ("S", 110, 0.5, 12)))] == ["P"]


def test_a_published_pick_is_not_taken_back() -> None:
    """A likelier rival that comes after the decision is published too."""
    data = probabilities(("P", 100, 0.5, 2), ("S", 117, 0.9, 1.5))
    assert [pick.phase for pick in feed([data])] == ["P", "S"]


def test_s_needs_no_p_and_may_follow_one_closely() -> None:
    """An S alone is a pick, before a P too, and 0.2 s after a likelier P."""
    assert [pick.phase for pick in decide(SPEC, probabilities(("S", 100, 0.9, 3)))] == ["S"]
    assert [pick.phase for pick in decide(SPEC, probabilities(("S", 100, 0.9, 3), ("P", 300, 0.9, 3)))] == ["S", "P"]
    assert [pick.phase for pick in decide(SPEC, probabilities(("P", 100, 0.9, 3), ("S", 120, 0.4, 3)))] == ["P", "S"]


@pytest.mark.parametrize("height", [0.32, 0.5, 0.95])
@pytest.mark.parametrize("width", [1.0, 4.0, 12.0])
def test_uncertainty_is_the_width_of_the_peak(height: float, width: float) -> None:
    """For a Gaussian peak of any height it is its standard deviation; never less than a sample allows."""
    (pick,) = decide(SPEC, probabilities(("P", 300.3, height, width)))
    assert pick.uncertainty_samples == pytest.approx(width, rel=0.1, abs=0.2)
    spike = probabilities()
    spike[0, 300] = 0.9
    (pick,) = decide(SPEC, spike)
    assert 12**-0.5 <= (pick.uncertainty_samples or 0) < 0.6


def test_uncertainty_of_a_plateau_is_of_its_length() -> None:
    """A peak that is cut off while still high says little more than where it was seen, at the end of data too."""
    data = probabilities()
    data[0, 200:] = 0.8
    for end, length in ((LENGTH, 101), (240, 39)):
        (pick,) = decide(SPEC, data[:, :end])
        assert length / 2 < (pick.uncertainty_samples or 0) < length


def kinds(events: list[PickEvent]) -> list[tuple[str, str]]:
    return [(event.kind, event.pick.phase) for event in events]


def test_a_candidate_left_open_is_told() -> None:
    """The call in which it opens tells where it stands, once; the call in which it closes tells what became of it."""
    decider, data = Decider(SPEC), probabilities(("P", 130, 0.9, 20))
    (crossed,) = decider.follow(0, data[:, :120])
    assert crossed.kind == "crossed"
    assert crossed.pick.sample == 119
    assert crossed.pick.probability == float(data[0, 119])
    assert crossed.pick.decided_sample == 119 + SPEC.lookahead_samples
    assert crossed.pick.uncertainty_samples is None
    assert decider.follow(120, data[:, 120:140]) == []
    (decided,) = decider.follow(140, data[:, 140:])
    assert decided.kind == "decided"
    assert decided.pick.crossed_sample == crossed.pick.crossed_sample
    assert decided.pick == feed([data])[0]


def test_what_opens_and_closes_within_a_call_is_told_once() -> None:
    """Only its end is told, be it a pick or not."""
    data = probabilities(("S", 100, 0.9, 2), ("P", 110, 0.5, 2))
    assert kinds(Decider(SPEC).follow(0, data)) == [("decided", "S"), ("dropped", "P")]
    decider = Decider(SPEC)
    told = [event for sample in range(LENGTH) for event in decider.follow(sample, data[:, sample : sample + 1])]
    assert kinds(told) == [("crossed", "S"), ("decided", "S"), ("crossed", "P"), ("dropped", "P")]


def test_every_candidate_told_has_an_end() -> None:
    """Each crossing that is told is followed by one decision or one drop of the same crossing, flush included."""
    rng = np.random.default_rng(7)
    data = probabilities(*((phase, at, 0.9, 4.0) for at in range(20, 600, 60) for phase in "PS"))
    data[:2] *= rng.random((2, LENGTH), np.float32)
    decider, told = Decider(SPEC), []
    for first in range(0, LENGTH, 8):
        told += decider.follow(first, data[:, first : first + 8])
    told += decider.finish()
    begun = [(event.pick.phase, event.pick.crossed_sample) for event in told if event.kind == "crossed"]
    ended = [(event.pick.phase, event.pick.crossed_sample) for event in told if event.kind != "crossed"]
    assert begun
    assert len(set(ended)) == len(ended)
    assert set(begun) <= set(ended)
    assert {"decided", "dropped"} <= {event.kind for event in told}
    assert [event.pick for event in told if event.kind == "decided"] == feed([data])


def test_flush_decides_what_is_open() -> None:
    """At the end of a record a candidate becomes a pick, once."""
    decider = Decider(SPEC)
    assert decider.feed(0, probabilities(("P", 98, 0.9, 4), length=100)) == []
    (pick,) = decider.flush()
    assert (pick.sample, pick.decided_sample) == (pytest.approx(98, abs=0.1), 99 + SPEC.lookahead_samples)
    assert decider.flush() == []


def test_a_gap_must_be_declared() -> None:
    """Samples that do not follow on are refused; after a reset any number may come, with nothing remembered."""
    data = probabilities(("P", 60, 0.9, 40), length=64)
    decider = Decider(SPEC)
    decider.feed(1000, data)
    for first in (1000, 1063, 1065):
        with pytest.raises(ValueError, match="does not follow 1063"):
            decider.feed(first, data)
    decider.reset()
    assert decider.flush() == []
    quiet = probabilities(length=64)
    assert decider.feed(5, quiet) + decider.feed(69, quiet) + decider.flush() == []


def test_sample_numbers_since_the_epoch() -> None:
    """Numbers of 1.7e11 keep the sub-sample refinement."""
    first = 170_000_000_000
    (pick,) = feed([probabilities(("S", 200.3, 0.9, 4))], first=first)
    assert pick.sample - first == pytest.approx(200.3, abs=0.05)


@pytest.mark.parametrize(
    "values", [{"threshold": 0.0}, {"threshold": 1.0}, {"threshold": float("nan")}, {"release": 0.0}, {"release": 1.0}]
)
def test_a_bad_rule_is_refused(values: dict[str, float]) -> None:
    """Thresholds and releases lie inside 0 to 1."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        PhaseRule(**values)


LATER = PickerSpec(name="later", lookahead_samples=64, state=(), second_look_samples={"S": 100})


def late(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same probabilities as a graph with a second look at S gives them: its row 100 samples later."""
    out = np.pad(data, ((0, 0), (0, 100)))
    out[1] = np.pad(data[1], (100, 0))
    return out


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, LENGTH), max_size=6))
def test_a_second_look_puts_picks_where_they_belong_and_says_when_they_were_decided(cuts: list[int]) -> None:
    """S has the instants that it had without; it is decided 100 samples later, however the columns are cut."""
    data = probabilities(("P", 100, 0.9, 6), ("S", 250, 0.8, 6), ("P", 400, 0.7, 6))
    at_once = {(p.phase, p.sample): p for p in decide(SPEC, data)}
    decider, found, first = Decider(LATER), [], 0
    for piece in np.split(late(data), sorted(cuts), axis=1):
        found += decider.feed(first, piece)
        first += piece.shape[1]
    assert {(p.phase, p.sample) for p in found} == at_once.keys()
    for pick in found:
        before = at_once[pick.phase, pick.sample]
        assert pick.crossed_sample == before.crossed_sample
        assert pick.decided_sample - before.decided_sample == (100 if pick.phase == "S" else 0)


def test_a_second_look_says_nothing_of_what_came_before_the_first_sample() -> None:
    """The first columns speak of samples that were never fed: whatever they say, it is no pick."""
    data = late(probabilities(("P", 300, 0.9, 6)))
    data[1, :100] = 0.9
    assert [pick.phase for pick in decide(LATER, data)] == ["P"]
    decider = Decider(LATER)
    decider.feed(0, data[:, :60])
    decider.reset()
    assert [pick.phase for pick in decider.feed(5000, data)] == ["P"]
