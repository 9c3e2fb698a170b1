"""Augmentation by what arrives: close events, swelling noise, and a stronger or weaker S."""

from __future__ import annotations

import torch
from training_data import bank, generator, quake, trace, windows

from pretrain import augment
from pretrain.bank import Windows
from pretrain.power import second_power


def test_a_second_event_is_wanted_close_to_the_first_in_the_stated_share() -> None:
    """2 s before to 8 s after the first arrival in sight; windows without one do not ask."""
    made = windows(1000, 2048, labels=[(1, 900.0), (0, 500.0), (0, -100.0)])
    near = augment.close_by(made, generator(), 0.4)
    asked = ~near.isnan()
    assert abs(asked.float().mean() - 0.4) < 0.06
    assert 300 <= near[asked].min() < 320
    assert 1280 < near[asked].max() <= 1300
    assert augment.close_by(windows(50), generator(), 1.0).isnan().all()


def test_three_events_in_one_window_and_close_ones_occur() -> None:
    """P of one event before S of another, and windows with three P in them."""
    records = [quake(1000 + 100 * k, 1500 + 130 * k, 6000, name=f"q{k}") for k in range(6)]
    for record in records:
        record.waveform[:] -= 0.97 * trace(6000, name=record.name).waveform
    of = bank(*records, shares={"manual": 1.0})
    many = augment.AugmentSettings(superpose_share=1.0, third_share=0.5)
    drawn = augment.augment(of, 128, 4096, generator(), many)
    inside = (drawn.positions >= 0) & (drawn.positions < 4096)
    several = (inside & (drawn.phases == 0)).sum(1)
    assert 0.02 < (several >= 3).float().mean() < 0.5
    two = (several >= 2) & ((inside & (drawn.phases == 1)).sum(1) >= 2)
    p = torch.where(inside & (drawn.phases == 0), drawn.positions, torch.nan).nan_to_num(-1).amax(1)
    s = torch.where(inside & (drawn.phases == 1), drawn.positions, torch.inf).amin(1)
    assert (two & (p < s)).sum() > 10, "the later P lies before the earlier S"


def test_noise_swells_slowly_and_no_second_rises_much_above_the_one_before() -> None:
    """Up to ten times within three seconds or more, and where it was not chosen it stays."""
    noise = windows(400, 6144)
    after = augment.swell(noise, generator(), 0.5)
    gain = after.waveform / noise.waveform
    swollen = gain.amax((1, 2)) > 1.01
    assert 0.4 < swollen.float().mean() < 0.6
    assert 8 < gain.max() <= 10.001
    assert gain.min() >= 0.999
    per_second = gain[..., 100:] / gain[..., :-100]
    assert per_second.max() < 4
    assert torch.equal(after.waveform[~swollen], noise.waveform[~swollen])


def pairs(batch: int = 400, height: float = 40.0) -> Windows:
    """A P of ten times the noise at 300, an S of ``height`` times at 700, with decaying codas."""
    made = windows(batch, 2048, labels=[(1, 700.0), (0, 300.0)])
    time = torch.arange(2048)
    curve = torch.ones(2048)
    for onset, size in ((300, 10.0), (700, height)):
        since = time - onset
        curve = curve + torch.where(since >= 0, size * torch.exp(-since / 150), 0.0)
    return made.but(waveform=made.waveform * curve + 1e4)


def test_an_s_is_up_to_four_times_stronger_or_weaker_than_it_was_and_p_stays() -> None:
    """Nothing before S less 0.1 s changes; the ratio is log-uniform; no step is made, though the offset is large."""
    before = pairs()
    after = augment.balance_phases(before, generator(), 1.0)
    assert torch.equal(after.waveform[..., :689], before.waveform[..., :689])
    gain = (second_power(after)[:, 700] / second_power(before)[:, 700]).sqrt()
    assert 3.3 < gain.max() < 4.05
    assert 0.24 < gain.min() < 0.31
    assert 0.9 < gain.median() < 1.1
    assert (after.waveform[..., 700] == before.waveform[..., 700]).all(), "the motion since the S is what is changed"
    added = (after.waveform - before.waveform).mean(-1).abs()
    assert added.max() < 200, "an offset of ten thousand does not come along"
    assert torch.equal(after.positions, before.positions)


def test_an_s_stays_readable_and_windows_without_a_pair_stay_as_they_are() -> None:
    """An S barely above the coda of P is not weakened below it; a lone P, or two of them, is left alone."""
    faint = pairs(height=3.0)
    after = augment.balance_phases(faint, generator(), 1.0)
    power = second_power(after)
    assert (power[:, 700] >= 0.9 * torch.minimum(2 * power[:, 590], second_power(faint)[:, 700])).all()
    lone = windows(50, labels=[(0, 100.0)])
    assert torch.equal(augment.balance_phases(lone, generator(), 1.0).waveform, lone.waveform)
    crowd = windows(50, labels=[(0, 100.0), (1, 400.0), (1, 300.0)])
    assert torch.equal(augment.balance_phases(crowd, generator(), 1.0).waveform, crowd.waveform)
