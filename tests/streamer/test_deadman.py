"""The dead-man signal: quiet for far too long or far too many picks, by a station's own past; false alarms counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from streamer.deadman import BIN_S, RARE, PickRate, RateRule, tail_bound

DAY_BINS = 144
HOUR = 6

Rate = Callable[[np.ndarray], np.ndarray]
"""Picks in an hour at each bin, counted from a Monday midnight."""


def hour_of(bins: np.ndarray) -> np.ndarray:
    return (bins // HOUR) % 24


def workday(bins: np.ndarray) -> np.ndarray:
    return (hour_of(bins) >= 8) & (hour_of(bins) < 16) & ((bins // DAY_BINS) % 7 < 5)


def live(one: PickRate, counts: np.ndarray) -> Counter[str]:
    """Feed picks of successive bins; how often each verdict began."""
    begun: Counter[str] = Counter()
    for count in counts:
        before = one.verdict
        for _ in range(count):
            one.pick()
        one.advance(BIN_S)
        begun[one.verdict] += one.verdict != before
    return +begun


def drawn(rate: Rate, days: float, seed: int) -> np.ndarray:
    bins = np.arange(round(days * DAY_BINS))
    return np.random.default_rng(seed).poisson(rate(bins) / HOUR)


def steady(per_hour: float) -> Rate:
    return lambda bins: np.full(len(bins), per_hour)


@pytest.mark.parametrize(
    ("name", "rate", "most"),
    [
        ("a pick in a day", steady(0.05), 0),
        ("a pick in two hours", steady(0.5), 0),
        ("5 an hour", steady(5), 0),
        ("50 an hour", steady(50), 0),
        ("300 an hour", steady(300), 0),
        ("by day only", lambda bins: np.where((hour_of(bins) >= 8) & (hour_of(bins) < 16), 30.0, 0.0), 0),
        # Its first weekend after the time of learning is news, and none after it.
        ("on workdays only", lambda bins: np.where(workday(bins), 30.0, 0.0), 2),
    ],
)
def test_false_alarms_of_a_year(name: str, rate: Rate, most: int) -> None:
    """Two stations over half a year each, whose habits do not change: nothing is said of them."""
    begun = sum((live(PickRate(), drawn(rate, 182, seed)) for seed in range(2)), Counter[str]())
    assert begun["silent"] <= most
    assert begun["noisy"] == 0


@pytest.mark.parametrize(("per_hour", "within_h"), [(0.5, 40.0), (5.0, 6.5), (50.0, 6.5)])
def test_station_that_dies_is_silent_and_comes_back(per_hour: float, within_h: float) -> None:
    """A sensor that delivers noise alone is told after the time that its past makes impossible, and once."""
    one = PickRate()
    live(one, drawn(steady(per_hour), 30, 1))
    assert one.verdict == "none"
    limit_h = one.allowed_s / 3600
    quiet = np.zeros(5 * DAY_BINS, dtype=int)
    assert live(one, quiet) == {"silent": 1}
    again = PickRate()
    live(again, drawn(steady(per_hour), 30, 1))
    bins = 0
    while again.verdict == "none":
        live(again, quiet[:1])
        bins += 1
    assert 6 <= bins / HOUR <= within_h
    assert bins / HOUR == pytest.approx(limit_h, abs=2)
    live(one, np.array([1]))
    assert one.verdict == "none"


def test_silence_is_that_of_the_data() -> None:
    """A station that delivers nothing is not silent: what did not come holds no picks."""
    one = PickRate()
    live(one, drawn(steady(50), 30, 1))
    before = one.saved()
    one.advance(0.0)
    assert one.saved() == before


@pytest.mark.parametrize("per_hour", [0.5, 5.0, 50.0])
def test_station_that_goes_mad_is_noisy_until_it_calms_down(per_hour: float) -> None:
    """Twenty times the rate and 200 an hour at least is told within the hour; ended within an hour of calm."""
    one = PickRate()
    live(one, drawn(steady(per_hour), 30, 2))
    mad = drawn(steady(max(20 * per_hour, 200)), 2, 3)
    assert live(one, mad[:HOUR])["noisy"] == 1
    assert live(one, mad[HOUR:]) == {}
    assert live(one, drawn(steady(per_hour), 1, 4))["none"] == 1
    assert live(one, mad[:HOUR])["noisy"] == 1, "two days of it are not the past at once"


def test_change_for_good_is_learnt() -> None:
    """A station that is noisier for good is so told once, and within three weeks it is the past."""
    one = PickRate()
    live(one, drawn(steady(5), 30, 2))
    begun = live(one, drawn(steady(200), 21, 3))
    assert (begun["noisy"], begun["none"], one.verdict) == (1, 1, "none")


def test_few_picks_are_never_noise() -> None:
    """Below the least rate nothing is noisy, however quiet the past."""
    one = PickRate(rule=RateRule(noisy_least=60))
    live(one, drawn(steady(0.01), 30, 2))
    other = PickRate.restored(one.rule, one.saved())
    assert live(one, np.full(HOUR, 9)) == {}
    assert live(other, np.full(HOUR, 11)) == {"noisy": 1}


def test_nothing_is_said_before_enough_is_known() -> None:
    """Seven days of data first; and a station that has picked but a few times may be quiet for very long."""
    young = PickRate()
    live(young, drawn(steady(50), 6.9, 1))
    assert (young.allowed_s, young.unusual_from) == (float("inf"), float("inf"))
    rare = PickRate()
    live(rare, np.bincount([100, 800], minlength=10 * DAY_BINS))
    assert rare.allowed_s > 300 * 86400


def test_state_is_plain_and_goes_on() -> None:
    """Saved and restored at any moment, also within a bin, it says what it would have said."""
    counts = drawn(steady(5), 30, 5)
    one = PickRate()
    live(one, counts)
    one.pick()
    one.advance(123.0)
    other = PickRate.restored(one.rule, one.saved())
    quiet = np.zeros(DAY_BINS, dtype=int)
    assert live(one, quiet) == live(other, quiet)
    assert one == other
    with pytest.raises(TypeError):
        PickRate.restored(one.rule, {**one.saved(), "mood": 1})


@pytest.mark.parametrize(("mean", "shape"), [(2.0, 1e9), (20.0, 1e9), (5.0, 2.0), (40.0, 10.0)])
def test_bound_of_the_tail_is_one_and_not_idle(mean: float, shape: float) -> None:
    """No less than the share of a million draws at or above, and less than RARE at some count not far off."""
    random = np.random.default_rng(1)
    draws = random.poisson(random.gamma(shape, mean / shape, 1_000_000))
    for count in range(1, 200, 3):
        assert tail_bound(count, mean, shape) >= 0.98 * np.mean(draws >= count) - 1e-5
    limit = next(count for count in range(100_000) if tail_bound(count, mean, shape) < RARE)
    assert limit < 1.5 * (draws.max() + 10)
