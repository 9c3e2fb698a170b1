"""Noise, instruments and faults."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from quiet import SCATTERING, event, station
from scipy.signal import welch

from pretrain.data.trace import RATE_HZ
from pretrain.simulate.culture import cultural_noise
from pretrain.simulate.fault import gaps, glitches
from pretrain.simulate.instrument import (
    ACCELEROMETER,
    BROADBAND,
    CLIP_COUNTS,
    GEOPHONE,
    INSTRUMENTS,
    Instrument,
    digitise,
    gain,
)
from pretrain.simulate.noise import HIGH_MODEL, LOW_MODEL, Noise, draw_noise, model_db, noise_counts
from pretrain.simulate.teleseism import teleseism

with warnings.catch_warnings():
    # ObsPy reads its entry points in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore")
    from obspy.signal.spectral_estimation import get_nhnm, get_nlnm


def flat(height: float) -> Noise:
    """Noise of one height between the models, on all components, not coherent."""
    drawn = draw_noise(np.random.default_rng(0))
    return replace(drawn, heights=np.full(6, height), peaks_db=np.zeros(2), components_db=np.zeros(3), coherence=0.0)


@pytest.mark.parametrize(("model", "reference"), [(LOW_MODEL, get_nlnm), (HIGH_MODEL, get_nhnm)])
def test_the_models_are_petersons(model: tuple, reference: object) -> None:
    """Between 0.01 and 10 Hz both models are those that ObsPy holds, within half a dB."""
    periods, levels = reference()  # type: ignore[operator]
    order = np.argsort(periods)
    ours = np.geomspace(0.11, 100, 300)
    expected = np.interp(np.log10(ours), np.log10(np.array(periods)[order]), np.array(levels)[order])
    assert np.abs(model_db(model, 1 / ours) - expected).max() < 0.5


def test_microseisms_peak_where_they_should() -> None:
    """Between 0.03 and 1 Hz the power is largest near 0.2 Hz, and has a second top near 0.07 Hz."""
    frequency = np.geomspace(0.03, 1, 400)
    power = 10 * np.log10(replace(flat(0.3), peaks_db=np.full(2, 6.0)).power(frequency)[0])
    assert 0.15 < frequency[power.argmax()] < 0.25
    tops = [i for i in range(1, 399) if power[i] > power[i - 1] and power[i] > power[i + 1]]
    assert any(0.055 < frequency[i] < 0.09 for i in tops)


@pytest.mark.parametrize("instrument", [BROADBAND, ACCELEROMETER], ids=lambda one: one.name)
def test_noise_has_the_power_of_its_model(instrument: Instrument) -> None:
    """Counts over the response give the acceleration power that was asked for, within 2 dB from 0.3 to 20 Hz."""
    noise = flat(0.5)
    counts = noise_counts(np.random.default_rng(1), noise, instrument, 30000)
    frequency, power = welch(counts, fs=RATE_HZ, nperseg=4096)
    band = (frequency > 0.3) & (frequency < 20)
    measured = power[:, band] / gain(instrument, 4096)[band] ** 2
    wanted = noise.power(frequency[band]) + 10 ** (instrument.self_noise_db / 10)
    measured, wanted = (values.reshape(3, -1)[:, :800].reshape(3, 20, -1).mean(axis=2) for values in (measured, wanted))
    assert np.abs(10 * np.log10(measured / wanted)).max() < 2


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda one: one.name)
def test_every_instrument_is_finite_and_flat_above_its_corner(instrument: Instrument) -> None:
    """An event and noise come out finite and not still; well above the corner, counts are the stated ones."""
    one = event(station(SCATTERING, instrument=instrument))
    counts = instrument.record(one.ground(np.random.default_rng(0), 3000))
    counts = digitise(counts + noise_counts(np.random.default_rng(0), one.station.noise, instrument, 3000), np.zeros(3))
    assert np.isfinite(counts).all()
    assert (counts == np.rint(counts)).all()
    assert counts.std(axis=1).min() > 0.4
    t = np.arange(3000) / RATE_HZ
    sine = np.tile(np.sin(2 * np.pi * 20 * t), (3, 1))
    assert np.abs(instrument.record(sine)[:, 2000:]).max() == pytest.approx(instrument.counts, rel=0.1)


def test_a_geophone_is_deaf_to_the_microseism() -> None:
    """At 0.2 Hz a 4.5 Hz geophone gives less than a hundredth of what a broadband sensor gives for its scale."""
    place = round(0.2 / (RATE_HZ / 10000))
    ratio = gain(GEOPHONE, 10000)[place] / GEOPHONE.counts / (gain(BROADBAND, 10000)[place] / BROADBAND.counts)
    assert ratio < 0.01


def test_the_digitiser_rounds_and_clips() -> None:
    """Counts are whole, on their offset, and never beyond 24 bits."""
    counts = digitise(np.array([[0.4, 1e9], [0.6, -1e9], [5.0, 5.0]]), np.array([10.0, 0.0, -3.0]))
    assert counts.tolist() == [[10, CLIP_COUNTS], [1, -CLIP_COUNTS], [2, 2]]


def test_cultural_noise_and_glitches_are_finite_and_there() -> None:
    """Thirty draws of each: never NaN, rarely nothing."""
    for make in (cultural_noise, glitches):
        drawn = [make(np.random.default_rng(seed), 3000) for seed in range(30)]
        assert all(np.isfinite(one).all() and one.shape == (3, 3000) for one in drawn)
        assert sum(np.abs(one).max() > 1 for one in drawn) > 20


def test_gaps_spare_onsets() -> None:
    """No gap that takes all components comes within half a second of an onset; some record loses something."""
    lost = [gaps(np.random.default_rng(seed), [1000], 3000) for seed in range(60)]
    assert not any(one[:, 951:1050].all(axis=0).any() for one in lost)
    assert sum(one.any() for one in lost) > 30
    assert any(one.all(axis=1).any() for one in lost)


@pytest.mark.parametrize("order", [1, 2])
def test_a_teleseism_is_slow(order: int) -> None:
    """Less than a hundredth of its energy lies above 3 Hz, and it starts at once."""
    ground = teleseism(np.random.default_rng(0), order, 4000)
    power = np.abs(np.fft.rfft(ground[0])) ** 2
    frequency = np.fft.rfftfreq(4000, 1 / RATE_HZ)
    assert power[frequency > 3].sum() < 0.01 * power.sum()
    assert np.abs(ground[0, :100]).max() > 0.1 * np.abs(ground[0]).max()
