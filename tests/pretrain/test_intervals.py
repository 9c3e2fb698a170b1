"""Intervals, latency, reliability and strata: figures computed by hand or known from theory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from pretrain.bootstrap import draws_of, interval_of, poisson
from pretrain.data.trace import Label, Trace
from pretrain.intervals import counts_of, paired, score_intervals
from pretrain.latency import latencies
from pretrain.metric import Reference, TracePick, score
from pretrain.reliability import calibration_error, coverage, judged, reliability
from pretrain.strata import binned, instrument, members, snr_db, strata

USE = {"P": 0.3, "S": 0.3}


def records(count: int, hit: float, late: float = 0.0, seed: int = 0) -> tuple[list[Reference], list[TracePick]]:
    """Events with a P at 1000: a share ``hit`` is picked (``late`` samples off), a tenth has a false pick."""
    random = np.random.default_rng(seed)
    references = [Reference(name=str(k), samples=6000, p_sample=1000.0, group=f"e{k // 2}") for k in range(count)]
    picks = []
    for reference in references:
        if random.random() < hit:
            picks.append(TracePick(trace_name=reference.name, phase="P", sample=1000.0 + late, probability=0.9))
        if random.random() < 0.1:
            picks.append(TracePick(trace_name=reference.name, phase="P", sample=1300.0, probability=0.5))
    return references, picks


def test_counts_are_those_of_the_metric() -> None:
    """Summed over records, the counts that are resampled are the tallies of the score."""
    references, picks = records(60, 0.8)
    counts, scored = counts_of(references, picks, USE), score(references, picks, USE)
    for tolerance_s, tally in scored["P"].tallies.items():
        mine = counts["P"][tolerance_s]
        assert (mine.labels.sum(), mine.hits.sum(), mine.false.sum()) == (tally.labels, tally.hits, tally.false_picks)
        whole = mine.drawn(np.ones((1, len(references)), dtype=np.int64))
        assert [whole[k][0] for k in ("recall", "precision", "f1")] == pytest.approx(
            [tally.recall, tally.precision, tally.f1]
        )


def test_records_of_one_event_are_drawn_together() -> None:
    """Both or neither, and as many events as there are."""
    weights = draws_of(["a", "a", "b", "c"], draws=200)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 5


def test_intervals_cover_as_they_say() -> None:
    """Over 100 data sets of a picker with recall 0.8 the interval of recall holds 0.8 about 95 times."""
    held = 0
    for seed in range(100):
        references, picks = records(120, 0.8, seed=seed)
        low, high = score_intervals(references, picks, USE)["P"][0.5]["recall"]
        held += low <= 0.8 <= high
    assert 87 <= held <= 100


def test_a_paired_interval_is_narrow() -> None:
    """Two pickers that differ in one pick of fifty: the difference is that pick's, far below either's own interval."""
    references, picks = records(100, 0.7)
    fewer = picks[1:]
    one = paired(references, (picks, USE), (fewer, USE))["P"][0.5]
    alone = score_intervals(references, picks, USE)["P"][0.5]["f1"]
    assert one.value == pytest.approx(one.ours - one.theirs)
    assert one.within.high - one.within.low < 0.3 * (alone.high - alone.low)
    same = paired(references, (picks, USE), (picks, USE))["P"][0.5]
    assert tuple(same.within) == (0.0, 0.0)


@pytest.mark.parametrize(("count", "hours"), [(0, 2.0), (3, 0.5), (40, 10.0)])
def test_poisson_is_garwood_s(count: int, hours: float) -> None:
    """The exact interval, by way of the chi-square distribution."""
    low = chi2.ppf(0.025, 2 * count) / 2 / hours if count else 0.0
    assert tuple(poisson(count, hours)) == pytest.approx((low, chi2.ppf(0.975, 2 * count + 2) / 2 / hours))


def test_nothing_has_no_interval() -> None:
    """NaN, not a made-up number."""
    assert np.isnan(poisson(0, 0.0)).all()
    assert np.isnan(interval_of(np.array([np.nan]))).all()


def test_latency_counts_every_place_in_the_chunk() -> None:
    """Crossed 10 samples after the label with a look-ahead of 64: 0.75 to 1.38 s to the end of the chunk, evenly."""
    reference = Reference(name="a", samples=6000, p_sample=1000.0)
    pick = TracePick(
        trace_name="a", phase="P", sample=1012.0, probability=0.9, crossed_sample=1010, decided_sample=1025 + 64
    )
    found = latencies([reference], [pick], "P", 64, 64)
    assert np.sort(found.first_s[0]) == pytest.approx(np.arange(75, 139) / 100)
    assert np.sort(found.confirmed_s[0]) == pytest.approx(np.arange(90, 154) / 100)
    between = found.confirmed_s - found.first_s
    assert set(np.round(between.ravel(), 2)) == {0.0, 0.64}
    assert between.mean() == pytest.approx(0.15)  # as far apart as the two samples, on average
    late = replace(pick, sample=1090.0)
    assert latencies([reference], [late], "P", 64, 64).first_s.size == 0


def test_calibration_error_by_hand() -> None:
    """Two bins: |0.2 - 0| and |0.9 - 0.5|, half the picks each."""
    probability = np.array([0.2, 0.9, 0.2, 0.9])
    right = np.array([False, True, False, False])
    assert calibration_error(probability, right, 2) == pytest.approx(0.3)


def probable(count: int, spread: float, seed: int = 3) -> tuple[list[Reference], list[TracePick]]:
    """Picks that are right as often as they say, with residuals that spread by ``spread`` times the uncertainty."""
    random = np.random.default_rng(seed)
    references, picks = [], []
    for k in range(count):
        references.append(Reference(name=str(k), samples=6000, p_sample=1000.0))
        probability = random.uniform(0.3, 1.0)
        off = spread * 4 * random.normal() if random.random() < probability else 200.0
        picks.append(
            TracePick(
                trace_name=str(k),
                phase="P",
                sample=1000.0 + off,
                probability=0.99,
                stated_probability=probability,
                uncertainty_samples=4.0,
            )
        )
    return references, picks


def test_a_true_picker_is_found_true() -> None:
    """Error as by chance, coverage 68 %; an overconfident one is found out by both."""
    found = reliability(judged(*probable(600, 1.0)))
    assert found is not None
    assert found.error < 2 * found.by_chance
    assert len(found.bins) == 10
    share, within, count = coverage(judged(*probable(600, 1.0))) or (0.0, (0.0, 0.0), 0)
    assert within[0] < 0.6827 < within[1]
    assert 300 < count < 600
    assert share < 0.75
    boasting = [replace(pick, stated_probability=0.99) for pick in probable(600, 2.0)[1]]
    worse = judged(probable(600, 2.0)[0], boasting)
    told = reliability(worse)
    assert told is not None
    assert told.within.low > 0.2
    assert (coverage(worse) or (1.0,))[0] < 0.5


def test_what_cannot_be_judged_is_left_out() -> None:
    """A pick outside the window of an event, and an S where only P is labelled, are neither right nor false."""
    reference = Reference(name="a", samples=6000, p_sample=1000.0)
    noise = Reference(name="n", samples=6000)
    picks = [
        TracePick(trace_name=name, phase=phase, sample=sample, probability=0.9)
        for name, phase, sample in (("a", "P", 1003.0), ("a", "P", 1300.0), ("a", "P", 5000.0), ("a", "S", 1200.0))
    ]
    picks.append(TracePick(trace_name="n", phase="S", sample=5.0, probability=0.9))
    found = [(one.pick.phase, one.pick.sample, one.right, one.residual_s) for one in judged([reference, noise], picks)]
    assert found == [("P", 1003.0, True, 0.03), ("P", 1300.0, False, None), ("S", 5.0, False, None)]


def test_signal_to_noise_in_decibels() -> None:
    """Noise of 1 and, from the label on, noise of 10 is 20 dB, however slow and large the microseism below it."""
    random, time = np.random.default_rng(0), np.arange(6000) / 100
    waveform = random.normal(size=(3, 6000))
    waveform[:, 3000:] *= 10
    waveform += 500 * np.sin(2 * np.pi * 0.15 * time)
    trace = Trace(
        name="a",
        waveform=waveform.astype(np.float32),
        valid=np.ones((3, 6000), bool),
        labels=(Label(phase="P", sample=3000.0), Label(phase="S", sample=50.0)),
    )
    assert snr_db(trace, "P") == pytest.approx(20, abs=1.5)
    assert snr_db(trace, "S") is None
    assert snr_db(replace(trace, labels=()), "P") is None


def test_strata() -> None:
    """Instruments by their code, distances by S minus P, what is not known by that name; bins in their order."""
    assert [instrument(code) for code in ("HHZ", "HN", "DPE_DPN_DPZ", "EL", "")] == [
        "velocity", "acceleration", "velocity", "velocity, low gain", "unknown"
    ]  # fmt: skip
    assert [binned(value, (5.0, 10.0), "dB") for value in (-3, 5, 99, None)] == [
        "below 5 dB", "5 to 10 dB", "10 dB and more", "unknown"
    ]  # fmt: skip
    near = Reference(name="near", samples=9000, p_sample=1000.0, s_sample=1100.0, channel="HNZ")
    far = Reference(name="far", samples=9000, p_sample=1000.0, s_sample=3000.0)
    only = Reference(name="only", samples=9000, p_sample=1000.0)
    ways = strata([near, far, only], {("far", "P"): 12.0})
    found = {
        key: {k: [r.name for r in v] for k, v in members([far, only, near], of, "P").items()}
        for key, of in ways.items()
    }
    assert list(found["by_s_minus_p"]) == ["below 2 s", "10 s and more", "unknown"]
    assert found["by_snr"] == {"10 to 20 dB": ["far"], "unknown": ["only", "near"]}
    assert found["by_instrument"] == {"acceleration": ["near"], "unknown": ["far", "only"]}
    assert members([only], ways["by_source"], "S") == {}
