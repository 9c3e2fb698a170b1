"""Augmentation: what each step may change and what it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from training_data import bank, generator, quakes, trace, windows

from pretrain import augment
from pretrain.bank import UNSEEN, Windows

Step = Callable[[Windows, torch.Generator], Windows]
NOISE = windows(seed=9)


def together(made: Windows) -> Windows:
    """All components valid where every one is: for a step that swaps them."""
    valid = made.valid.all(1, keepdim=True).expand(-1, 3, -1)
    return made.but(waveform=made.waveform * valid, valid=valid)


STEPS: dict[str, Step] = {
    "superpose": lambda w, g: augment.superpose(w, windows(len(w.waveform), labels=[(1, 99.0)], seed=9), g, 1.0),
    "add_noise": lambda w, g: augment.add_noise(w, windows(len(w.waveform), seed=9), g, 1.0),
    "rotate": lambda w, g: augment.rotate(w, g, 1.0),
    "change_instrument": lambda w, g: augment.change_instrument(w, g, 1.0),
    "scale": augment.scale,
    "drop_components": lambda w, g: augment.drop_components(w, g, 1.0),
    "start_late": lambda w, g: augment.start_late(w, g, 1.0),
    "cut_gaps": lambda w, g: augment.cut_gaps(w, g, 1.0),
    "add_glitches": lambda w, g: augment.add_glitches(w, g, 1.0),
    "step_gain": lambda w, g: augment.step_gain(w, g, 1.0),
    "clip": lambda w, g: augment.clip(w, g, 1.0),
    "miswire": lambda w, g: augment.miswire(together(w), g, 1.0),
    "color": lambda w, g: augment.color(w, g, 1.0, 1.0),
    "swell": lambda w, g: augment.swell(w, g, 1.0),
    "balance_phases": lambda w, g: augment.balance_phases(w, g, 1.0),
}


def ragged(batch: int = 32, samples: int = 512) -> Windows:
    """Windows with a gap, a missing component, a dead one, and nothing valid at all, in turn."""
    made = windows(batch, samples, labels=[(0, 200.0), (1, 300.0)])
    valid = made.valid.clone()
    valid[0::5, :, 100:150] = False
    valid[1::5, 2] = False
    valid[2::5] = False
    waveform = (made.waveform + 1000) * valid
    waveform[3::5, 1] = 0
    return made.but(waveform=waveform, valid=valid)


def added(before: Windows, after: Windows) -> torch.Tensor:
    """What a step added to the waveform."""
    return after.waveform - before.waveform


@pytest.mark.parametrize("name", STEPS)
def test_every_step_keeps_shapes_and_leaves_finite_values_and_zeros_where_nothing_is_valid(name: str) -> None:
    """Gaps, missing and dead components and windows without any valid sample included; no gap is ever filled."""
    before = ragged()
    after = STEPS[name](before, generator())
    assert after.waveform.shape == before.waveform.shape == after.valid.shape
    assert after.waveform.dtype == torch.float32
    assert after.trust.shape == before.trust.shape
    assert after.positions.shape == after.phases.shape
    assert after.waveform.isfinite().all()
    assert not after.waveform[~after.valid].any()
    assert not (after.valid & ~before.valid).any()


@pytest.mark.parametrize("name", sorted(STEPS.keys() - {"scale", "rotate"}))
def test_a_share_of_none_changes_nothing(name: str) -> None:
    """Rows that were not chosen come out to the last bit."""
    before = ragged()
    step = getattr(augment, name)
    other = [windows(32, seed=9)] if name in ("superpose", "add_noise") else []
    shares = [0.0, 0.0] if name == "color" else [0.0]
    after = step(before, *other, generator(), *shares)
    assert torch.equal(after.waveform, before.waveform)
    assert torch.equal(after.valid, before.valid)
    assert torch.equal(after.trust, before.trust)


def test_a_change_of_instrument_moves_nothing_before_an_impulse() -> None:
    """Not by differentiation nor by integration, not even a millionth part: float32 transforms would."""
    quiet = windows(64, 2048)
    waveform = torch.zeros_like(quiet.waveform)
    waveform[..., 1000] = 1e9
    after = augment.change_instrument(quiet.but(waveform=waveform), generator(), 1.0).waveform
    assert after[..., :1000].abs().max() < 1e-4
    changed = after[:, 0, 1001:1004]
    derived = changed[:, 0] < 0
    assert 10 < derived.sum() < 54
    assert torch.equal(after[derived][:, :, 1000:1002], torch.tensor([1e9, -1e9]).expand(int(derived.sum()), 3, 2))
    assert (changed[~derived] > 0.85e9).all(), "the integral stays up after the impulse"


def test_an_integral_forgets_and_does_not_ramp_on_an_offset_or_at_a_gap() -> None:
    """Quiet that lies off zero gives zero; after a gap in it too."""
    offset = windows(64, 1024)
    valid = offset.valid.clone()
    valid[..., 400:500] = False
    after = augment.change_instrument(
        offset.but(waveform=torch.full((64, 3, 1024), 7e6) * valid, valid=valid), generator(), 1.0
    )
    assert after.waveform.abs().max() < 1e-3
    waveform = torch.zeros(64, 3, 1024)
    waveform[..., 100] = 1
    after = augment.change_instrument(offset.but(waveform=waveform), generator(), 1.0)
    integrated = after.waveform[after.waveform[:, 0, 101] > 0]
    left = integrated[:, 0, 400]
    assert ((left > 0.9 * 2.718 ** -(300 / 30)) & (left < 1.1 * 2.718 ** -(300 / 300))).all()


def loud(made: Windows, onset: int, length: int = 150) -> Windows:
    """The same windows with a burst of a hundred times the noise from ``onset`` on."""
    time = torch.arange(made.waveform.shape[-1])
    burst = (time >= onset) & (time < onset + length)
    return made.but(waveform=made.waveform * torch.where(burst, 100.0, 1.0))


def test_superposed_events_bring_their_labels_and_the_lesser_trust() -> None:
    """Both sets of labels hold where rows were chosen; elsewhere the other's are not seen and trust stays."""
    one = loud(windows(400, labels=[(0, 50.0)]), 50)
    other = loud(windows(400, labels=[(1, 300.0)], seed=1), 300)
    one, other = one.but(trust=torch.full((400, 512), 0.8)), other.but(trust=torch.full((400, 512), 0.5))
    after = augment.superpose(one, other, generator(), 0.25)
    rows = added(one, after).abs().amax((1, 2)) > 0
    assert 0.15 < rows.float().mean() < 0.35
    assert after.phases.tolist() == [[0, 1]] * 400
    assert (after.positions[:, 0] == 50).all()
    assert (after.positions[rows, 1] == 300).all()
    assert (after.positions[~rows, 1] == UNSEEN).all()
    assert (after.trust[rows] == 0.5).all()
    assert torch.equal(after.trust[~rows], one.trust[~rows])


def test_an_arrival_that_another_event_drowns_is_neither_learnt_nor_denied() -> None:
    """Two arrivals at one time: the weaker label goes, and so does the trust within a second of it."""
    one = loud(windows(400, labels=[(0, 200.0)]), 200)
    other = loud(windows(400, labels=[(1, 220.0)], seed=1), 220)
    after = augment.superpose(one, other, generator(), 1.0)
    ours, theirs = after.positions[:, 0] == 200, after.positions[:, 1] == 220
    assert 0.3 < ours.float().mean() < 0.7
    assert 0.3 < theirs.float().mean() < 0.7
    assert not (ours & theirs).any(), "of two at one time at most one can be read"
    assert (after.trust[~ours][:, 101:300] == 0).all()
    assert (after.trust[ours & ~theirs][:, 330:] == 1).all()


def test_an_arrival_below_the_added_noise_is_forgotten() -> None:
    """A weak second event in a record keeps its label only while the noise leaves it readable."""
    event = loud(loud(windows(300, labels=[(0, 50.0), (0, 300.0)]), 50), 300, 0)
    after = augment.add_noise(event, windows(300, seed=1), generator(), 1.0)
    assert (after.positions[:, 0] == 50).float().mean() > 0.85
    assert (after.positions[:, 1] == 300).float().mean() < 0.1


def test_a_late_start_lies_anywhere_before_the_first_arrival_and_never_after_it() -> None:
    """From the first valid sample to a second before the arrival, uniformly; without one, anywhere."""
    made = windows(600, labels=[(1, 450.0), (0, 400.0)])
    valid = made.valid.clone()
    valid[..., :100] = False
    made = made.but(waveform=made.waveform * valid, valid=valid)
    after = augment.start_late(made, generator(), 1.0)
    begin = after.valid[:, 0].int().argmax(1)
    assert begin.min() < 105
    assert 290 < begin.max() <= 300
    assert abs(begin.float().mean() - 200) < 12
    assert torch.equal(augment.start_late(made, generator(), 0.0).valid, made.valid)
    alone = augment.start_late(windows(600), generator(), 1.0).valid[:, 0].int().argmax(1)
    assert alone.max() > 390


def test_superposed_events_are_up_to_ten_times_weaker_or_stronger_whatever_their_units() -> None:
    """The ratio is that of the second after each arrival."""
    one, other = windows(500, labels=[(0, 100.0)]), windows(500, labels=[(1, 300.0)], seed=1)
    other = other.but(waveform=other.waveform * 1e-9)
    after = augment.superpose(one, other, generator(), 1.0)
    brought = other.but(waveform=added(one, after))
    ratio = (augment.arrival_power(brought) / augment.arrival_power(one)).sqrt()
    assert 0.099 < ratio.min() < 0.15
    assert 7 < ratio.max() < 10.1


def test_added_noise_reaches_its_range_of_ratios() -> None:
    """Arrival over noise from 1.5 to 30, log-uniform; what is added is the noise and nothing else."""
    event, noise = windows(500, labels=[(0, 100.0)]), windows(500, seed=1)
    strong = event.waveform * 100
    event = event.but(waveform=torch.where(torch.arange(512) >= 100, strong, event.waveform))
    brought = noise.but(waveform=added(event, augment.add_noise(event, noise, generator(), 1.0)))
    ratio = (augment.arrival_power(event) / augment.power(brought)).sqrt()
    assert 1.49 < ratio.min() < 1.7
    assert 26 < ratio.max() < 30.1
    assert 5.5 < ratio.median() < 8.2
    correlation = torch.nn.functional.cosine_similarity(brought.waveform.flatten(1), noise.waveform.flatten(1))
    assert correlation.min() > 0.999


def test_the_power_of_an_arrival_does_not_see_offsets_nor_the_edges_of_gaps() -> None:
    """A gap in the second after the label, in data that lie far off zero, counts for nothing."""
    event = windows(4, labels=[(0, 100.0)])
    valid = event.valid.clone()
    valid[..., 120:150] = False
    shifted = event.but(waveform=(event.waveform + 1e4) * valid, valid=valid)
    torch.testing.assert_close(augment.arrival_power(shifted), augment.arrival_power(event), rtol=0.3, atol=0.0)


def test_a_turn_keeps_the_horizontal_energy_and_the_vertical() -> None:
    """Z comes out as it is or upside down; N and E turn together; label and validity stay."""
    before = windows(200)
    after = augment.rotate(before, generator(), 1.0)
    sign = (after.waveform[:, 0] / before.waveform[:, 0]).mean(1).round()
    assert torch.equal(after.waveform[:, 0], before.waveform[:, 0] * sign[:, None])
    assert 0.35 < (sign > 0).float().mean() < 0.65
    torch.testing.assert_close(after.waveform[:, 1:].square().sum(1), before.waveform[:, 1:].square().sum(1))
    cosine = torch.nn.functional.cosine_similarity(after.waveform[:, 1], before.waveform[:, 1])
    assert cosine.min() < -0.9
    assert cosine.max() > 0.9


def test_horizontals_that_are_not_valid_together_are_not_turned() -> None:
    """One missing, or a gap in one of them: a turn would make one jump or leak what is not there."""
    before = windows(60)
    valid = before.valid.clone()
    valid[:20, 1], valid[20:40, 2], valid[40:, 2, 100:200] = False, False, False
    before = before.but(waveform=before.waveform * valid, valid=valid)
    after = augment.rotate(before, generator(), 1.0)
    assert torch.equal(after.waveform.abs(), before.waveform.abs())
    gap = before.valid.clone()
    gap[:, 1:, 100:200] = False
    turned = augment.rotate(before.but(waveform=windows(60).waveform * gap, valid=gap), generator(), 1.0)
    assert not torch.equal(turned.waveform.abs(), (windows(60).waveform * gap).abs())


def test_components_are_dropped_in_the_stated_shares() -> None:
    """Of a share of 0.5: half single verticals, 30 % one missing, 20 % one dead (valid, but constant)."""
    before = windows(4000, 64)
    after = augment.drop_components(before, generator(), 0.5)
    left = after.valid.all(-1)
    dead = left & ~after.waveform.any(-1)
    vertical = left[:, 0] & ~left[:, 1] & ~left[:, 2]
    shares = [vertical, left.sum(1) == 2, dead.any(1), left.all(1) & ~dead.any(1)]
    for rows, share in zip(shares, (0.25, 0.15, 0.10, 0.5), strict=True):
        assert abs(rows.float().mean() - share) < 0.03
    for component in range(3):
        assert abs((~left[left.sum(1) == 2])[:, component].float().mean() - 1 / 3) < 0.08
        assert abs(dead[dead.any(1)][:, component].float().mean() - 1 / 3) < 0.08


def test_gaps_are_cut_in_the_stated_share_and_length() -> None:
    """Half of them in all components, half in one; at most two seconds, one stretch a window."""
    before = windows(2000, 1024)
    after = augment.cut_gaps(before, generator(), 0.6)
    gaps = ~after.valid
    length = gaps.any(1).sum(1)
    hit = length > 0
    assert 0.5 < hit.float().mean() < 0.61
    assert 150 < length.max() <= 200
    assert (gaps.int().diff(dim=-1) == 1).sum(-1).max() == 1
    affected = gaps.any(-1).sum(1)[hit]
    assert set(affected.tolist()) == {1, 3}
    assert abs((affected == 3).float().mean() - 0.5) < 0.06
    assert torch.equal(after.waveform[after.valid], before.waveform[after.valid])


def test_gains_stay_within_their_range() -> None:
    """A thousand times less to a thousand times more for the station, half to double for each component."""
    before = windows(3000, 4)
    gain = (augment.scale(before, generator()).waveform / before.waveform).mean(-1)
    assert gain.min() > 0.5e-3
    assert gain.max() < 2e3
    assert gain.log10().std() > 1.5
    between = gain[:, 0] / gain[:, 1]
    assert 0.24 < between.min() < 0.35
    assert 2.9 < between.max() < 4.1


def test_a_glitch_is_a_spike_or_a_step_in_one_component() -> None:
    """One to a thousand times the usual difference; nothing before it changes."""
    before = windows(400, 512)
    more = added(before, augment.add_glitches(before, generator(), 1.0)).abs()
    touched = more.amax(-1) > 0.5
    assert touched.sum(1).max() == 1
    lengths = (more > 0.5).sum((1, 2))
    assert (lengths == 1).any()
    assert (lengths > 50).any()
    assert more.max() < 1000 * 3
    assert more.max() > 300


def test_augmenting_is_reproducible_and_sound_as_a_whole() -> None:
    """The same seed gives the same batch to the last bit; finite, and zero where nothing is valid."""
    of = bank(*quakes(), trace(2000), trace(300, name="short"))
    one, same, other = (augment.augment(of, 32, 512, generator(seed)) for seed in (5, 5, 6))
    for field in fields(Windows):
        assert torch.equal(getattr(one, field.name), getattr(same, field.name)), field.name
    assert not torch.equal(one.waveform, other.waveform)
    assert one.waveform.shape == (32, 3, 512)
    assert one.waveform.isfinite().all()
    assert not one.waveform[~one.valid].any()
    assert one.positions.shape == (32, 6)


def test_what_augmentation_was_stays_within_reach() -> None:
    """``PLAIN`` leaves the later steps out, so that each can be judged by itself; a share out of range is refused."""
    of = bank(*quakes(), trace(2000))
    plain = augment.augment(of, 16, 512, generator(), augment.PLAIN)
    assert plain.positions.shape == (16, 4), "no third event"
    assert plain.waveform.isfinite().all()
    one = replace(augment.PLAIN, clip_share=1.0)
    assert not torch.equal(augment.augment(of, 16, 512, generator(), one).waveform, plain.waveform)
    with pytest.raises(ValueError, match=r"clip_share is 1\.5; it is a probability"):
        augment.AugmentSettings(clip_share=1.5)
    with pytest.raises(ValueError, match="stretch is nan"):
        augment.AugmentSettings(stretch=float("nan"))


def test_a_bank_without_noise_records_is_augmented_all_the_same() -> None:
    """A catalogue without noise records leaves out one step, and does not stop the run."""
    assert augment.augment(bank(*quakes()), 8, 512, generator()).waveform.isfinite().all()
