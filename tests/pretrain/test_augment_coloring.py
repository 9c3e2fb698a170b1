"""Augmentation by site and sampling rate: spectra change, onsets do not move."""

from __future__ import annotations

import math

import pytest
import torch
from training_data import generator, windows

from pretrain import augment
from pretrain.coloring import rate_response, site_response


def impulses(batch: int, at: int = 1000, samples: int = 2048, height: float = 1.0) -> torch.Tensor:
    """(B, 3, W) with one sample that is not zero."""
    waveform = torch.zeros(batch, 3, samples)
    waveform[..., at] = height
    return waveform


def test_a_site_is_causal_and_answers_at_once() -> None:
    """Not a ten-millionth before an impulse; its largest sample is the impulse's own or within a few of it."""
    before = windows(200, 2048).but(waveform=impulses(200, height=1e9))
    after = augment.color(before, generator(), 1.0, 0.0).waveform
    assert after[..., :1000].abs().max() < 1e2
    assert (after[..., 1000].abs() > 0.05e9).all()
    lag = after.abs().argmax(-1) - 1000
    assert (lag <= 12).all()
    assert (lag == 0).float().mean() > 0.8


def test_sites_are_of_minimum_phase_and_differ_between_windows_and_a_little_between_components() -> None:
    """By their cepstrum: phase follows from amplitude. Tilts reach many dB; components differ by a few."""
    length = 8192
    angle = torch.arange(length // 2 + 1, dtype=torch.float64) * (2 * math.pi / length)
    response = site_response(windows(100), generator(), angle)
    cepstrum = torch.fft.irfft(response.abs().log(), length)
    fold = torch.zeros(length, dtype=torch.float64)
    fold[0], fold[1 : length // 2], fold[length // 2] = 1, 2, 1
    minimum = torch.fft.rfft(cepstrum * fold).exp()
    assert (response - minimum).abs().max() / response.abs().max() < 1e-3
    decibel = 20 * response.abs().log10()
    tilt = (decibel[..., length // 100 * 40 :].mean(-1) - decibel[..., 5])[:, 0]
    assert tilt.std() > 5
    assert tilt.abs().max() < 40
    between = (decibel[:, 0] - decibel[:, 1]).abs().amax(-1)
    assert 1 < between.mean() < 10


@pytest.mark.parametrize("filled", [True, False])
def test_a_lower_rate_takes_high_frequencies_and_moves_nothing(filled: bool) -> None:
    """Above 40 Hz nothing is left, below 14 Hz all; an impulse stays symmetric around its own sample."""
    length = 4096
    angle = torch.arange(length // 2 + 1, dtype=torch.float64) * (2 * math.pi / length)
    response = rate_response(windows(300), generator(), angle)
    hertz = angle * 100 / (2 * math.pi)
    assert (response[:, hertz < 14] == 1).all()
    assert (response[:, hertz > 40] == 0).all()
    ends = (response > 0).sum(1) / len(hertz) * 50
    assert {20, 25, 40} == set(ends.round().int().tolist())
    before = windows(50, 2048)
    before = before.but(waveform=impulses(50) if filled else before.waveform * 0)
    after = augment.color(before, generator(), 0.0, 1.0).waveform
    if filled:
        assert (after.argmax(-1) == 1000).all()
        torch.testing.assert_close(after[..., 990:1000], after[..., 1001:1011].flip(-1), atol=1e-6, rtol=0)
    else:
        assert not after.any()


def test_neither_offsets_nor_gaps_nor_the_ends_ring() -> None:
    """A constant of ten million with a gap in it, and a ramp from end to end, come out smooth."""
    made = windows(100, 1024)
    valid = made.valid.clone()
    valid[..., 400:500], valid[..., :50] = False, False
    constant = made.but(waveform=torch.full((100, 3, 1024), 1e7) * valid, valid=valid)
    after = augment.color(constant, generator(), 1.0, 1.0)
    level = after.waveform[..., 60:61]
    assert ((after.waveform - level)[valid.expand(100, 3, -1)].abs() < 1e-3 * 1e7).all()
    assert not after.waveform[~valid].any()
    ramp = made.but(waveform=torch.linspace(0, 1000, 1024).expand(100, 3, -1).clone())
    low = augment.color(ramp, generator(), 0.0, 1.0).waveform
    assert (low.diff(dim=-1)[..., 20:-20] - 1000 / 1023).abs().max() < 0.3
