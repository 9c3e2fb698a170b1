"""Augmentation by faults of a station: gain steps, clipping, miswired components, S that a single vertical hides."""

from __future__ import annotations

import torch
from training_data import generator, windows

from pretrain import augment
from pretrain.bank import UNSEEN


def test_a_gain_step_multiplies_all_that_follows_it() -> None:
    """By 0.1 to 10, all components or a single one, from an instant that lies anywhere; labels stay."""
    before = windows(900, 256, labels=[(0, 100.0)])
    after = augment.step_gain(before, generator(), 1.0)
    gain = after.waveform / before.waveform
    changed = (gain - 1).abs() > 1e-5
    assert set(changed.any(-1).sum(1).tolist()) <= {0, 1, 3}
    assert abs((changed.any(-1).sum(1) == 1).float().mean() - 1 / 3) < 0.06
    assert not (changed[..., :-1] & ~changed[..., 1:]).any(), "once changed, for good"
    last = gain[..., -1].amax(1).log10(), gain[..., -1].amin(1).log10()
    assert 0.9 < last[0].max() <= 1.001
    assert -1.001 <= last[1].min() < -0.9
    starts = changed.any(1).float().argmax(1).float()
    assert starts.std() > 60
    assert torch.equal(after.positions, before.positions)
    assert torch.equal(after.trust, before.trust)


def test_clipping_saturates_what_is_loud_and_never_noise() -> None:
    """One rail a station, at a share of the peak; a window of plain noise comes out as it was."""
    burst = (torch.arange(512) >= 200) & (torch.arange(512) < 220)
    quiet = windows(400, labels=[(0, 200.0)])
    loud = quiet.but(waveform=quiet.waveform * torch.where(burst, 1000.0, 1.0))
    after = augment.clip(loud, generator(), 1.0)
    peak, rail = loud.waveform.abs().amax((1, 2)), after.waveform.abs().amax((1, 2))
    assert 0.019 < (rail / peak).min() < 0.03
    assert 0.6 < (rail / peak).max() <= 0.801
    clipped = loud.waveform.abs() > rail[:, None, None]
    assert torch.equal(after.waveform[~clipped], loud.waveform[~clipped])
    torch.testing.assert_close(
        after.waveform[clipped], (loud.waveform.sign() * rail[:, None, None])[clipped], rtol=1e-6, atol=0
    )
    assert torch.equal(after.positions, loud.positions)
    assert torch.equal(augment.clip(quiet, generator(), 1.0).waveform, quiet.waveform)


def test_components_are_miswired_in_the_stated_shares_and_take_their_validity_along() -> None:
    """60 % N with E, 10 % Z with one of them, 30 % one component upside down."""
    before = windows(3000, 32)
    valid = before.valid.clone()
    valid[:, 1, :8] = False
    before = before.but(waveform=before.waveform * valid, valid=valid)
    after = augment.miswire(before, generator(), 1.0)
    from_row = [
        torch.stack([(after.waveform[:, c] == before.waveform[:, k]).all(1) for k in range(3)], 1) for c in range(3)
    ]
    z, n, e = from_row
    shares = {
        "N and E": (z[:, 0] & n[:, 2] & e[:, 1], 0.6),
        "Z and N": (z[:, 1] & n[:, 0] & e[:, 2], 0.05),
        "Z and E": (z[:, 2] & e[:, 0] & n[:, 1], 0.05),
    }
    for name, (rows, share) in shares.items():
        assert abs(rows.float().mean() - share) < 0.03, name
    reverse = torch.stack([(after.waveform[:, c] == -before.waveform[:, c]).all(1) for c in range(3)], 1)
    assert set(reverse.sum(1).tolist()) == {0, 1}
    assert abs(reverse.any(1).float().mean() - 0.3) < 0.03
    assert torch.equal(after.valid.sum((1, 2)), before.valid.sum((1, 2)))
    assert not after.waveform[~after.valid].any()
    swapped = shares["N and E"][0]
    assert not after.valid[swapped, 2, :8].any()
    assert after.valid[swapped, 1].all()


def test_an_s_that_what_is_left_does_not_show_is_forgotten_and_one_that_it_shows_stays() -> None:
    """S on the horizontals alone: a single vertical forgets it; a window that lost nothing keeps it, as does P."""
    made = windows(1500, labels=[(0, 150.0), (1, 330.0)])
    waveform = made.waveform.clone()
    waveform[:, 1:, 330:] *= 30
    made = made.but(waveform=waveform)
    after = augment.drop_components(made, generator(), 0.5, readable=2.0)
    left = after.valid.all(-1) & after.waveform.any(-1)
    vertical, whole = left.tolist(), left.all(1)
    alone = torch.tensor([row == [True, False, False] for row in vertical])
    assert alone.sum() > 200
    assert (after.positions[alone, 1] == UNSEEN).all()
    assert not after.trust[alone][:, 231:430].any(), "neither the S nor its absence is learnt there"
    assert (after.positions[whole, 1] == 330).all()
    assert (after.positions[left[:, 1:].any(1), 1] == 330).all(), "one horizontal is enough"
    assert (after.positions[:, 0] == 150).all()
    kept = augment.drop_components(made, generator(), 0.5)
    assert torch.equal(kept.positions, made.positions)
