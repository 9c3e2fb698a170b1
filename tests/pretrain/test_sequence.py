"""Sequences for training with a carried state: consecutive windows of one station, without seams that tell."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from training_data import bank, generator, quake, trace, windows

from pretrain import augment
from pretrain.bank import UNSEEN, Bank, Windows
from pretrain.power import quiet, second_power
from pretrain.sequence import FADE, bedded, in_turn, joined

STILL = replace(
    augment.PLAIN, superpose_share=0.0, instrument_share=0.0, noise_share=0.0, rotate_share=0.0, glitch_share=0.0,
    drop_share=0.0, late_share=0.0, gap_share=0.0, stretch=1.0,
)  # fmt: skip


def test_the_quiet_level_does_not_see_an_earthquake_nor_gaps() -> None:
    """A burst over half of the window and a gap over a quarter leave it within a tenth; nothing valid gives zero."""
    made = windows(50, 4096)
    plain = quiet(made)
    loud = made.waveform.clone()
    loud[..., 1000:3000] *= 500
    valid = made.valid.clone()
    valid[..., 3072:] = False
    torch.testing.assert_close(quiet(made.but(waveform=loud * valid, valid=valid)), plain, rtol=0.15, atol=0)
    assert not quiet(made.but(valid=torch.zeros_like(valid))).any()


def test_a_record_lies_on_noise_of_its_own_level_and_passes_into_it_slowly() -> None:
    """Beyond its ends, and in a gap, there is noise; a missing component stays missing; its middle is untouched."""
    pieces = windows(64, 4096, labels=[(0, 2000.0)])
    valid = pieces.valid.clone()
    valid[..., :1000], valid[..., 3000:], valid[:, :, 2400:2500], valid[::2, 2] = False, False, False, False
    pieces = pieces.but(waveform=(1e3 * pieces.waveform + 5e5) * valid, valid=valid, trust=pieces.trust * valid.any(1))
    after = bedded(pieces, windows(64, 4096, seed=3))
    assert after.valid[1::2].all()
    assert after.valid[::2, :2].all()
    assert not after.valid[::2, 2].any()
    assert (after.trust == 1).all()
    middle = slice(1000 + FADE, 2400 - FADE)
    assert torch.equal(after.waveform[1::2, :, middle], pieces.waveform[1::2, :, middle])
    ratio = second_power(after)[1::2].sqrt() / 1e3
    assert (ratio[:, 100:-100] / ratio[:, 2000:2001]).log().abs().max() < 0.7, "as loud outside as inside"
    assert after.waveform[1::2].diff(dim=-1).abs().max() < 1e4, "and no step, though the record lies far off zero"


def test_pieces_follow_one_another_and_labels_stay_with_their_samples() -> None:
    """Apart from seams every sample is its piece's, brought to one level; labels in a seam are forgotten."""
    samples = 1024 + FADE
    pieces = windows(6, samples, labels=[(0, 600.0), (1, 50.0)])
    pieces = pieces.but(waveform=pieces.waveform * torch.tensor([1.0, 1e4, 1e-4, 1, 1, 1])[:, None, None])
    whole = joined(pieces, 3)
    assert whole.waveform.shape == (2, 3, 3 * 1024)
    assert whole.valid.all()
    unit = pieces.waveform / quiet(pieces)[:, None, None]
    for piece in range(3):
        mine = slice(piece * 1024, piece * 1024 + 1024 - FADE)
        torch.testing.assert_close(whole.waveform[0, :, mine], unit[piece][:, FADE:1024])
    assert whole.positions[0, 0::2].tolist() == [600 - FADE + 1024 * piece for piece in range(3)]
    assert (whole.positions[:, 1::2] < UNSEEN / 2).all(), "50 lies in the cross-fade"
    parts = in_turn(whole, 3)
    assert [part.positions[0, 0].item() for part in parts] == [600 - FADE] * 3
    assert torch.equal(torch.cat([part.waveform for part in parts], -1), whole.waveform)
    assert torch.equal(torch.cat([part.trust for part in parts], -1), whole.trust)
    with pytest.raises(ValueError, match="3072 samples are no 5 windows"):
        in_turn(whole, 5)


def test_a_seam_beside_a_gap_takes_the_side_that_is_there() -> None:
    """No half-faded waveform beside nothing."""
    pieces = windows(2, 512 + FADE)
    valid = pieces.valid.clone()
    valid[0, :, 400:] = False
    whole = joined(pieces.but(waveform=pieces.waveform * valid, valid=valid), 2)
    assert not whole.valid[..., 400 - FADE : 512 - FADE].any()
    unit = pieces.waveform[1] / quiet(pieces)[1]
    torch.testing.assert_close(whole.waveform[0, :, 512 - FADE + 1 :], unit[:, 1:])


def test_a_sequence_is_reproducible_and_sound_and_long_quiet_precedes_events() -> None:
    """As it is trained on: shapes, finite values, zero where not valid, labels on their pulses, quiet before them."""
    of = bank(*(quake(1000, 1500, 3000, name=f"q{k}") for k in range(4)), trace(12000, name="n"))
    one, same = (augment.augment_sequence(of, 8, 2048, 3, generator(5)) for _ in range(2))
    assert len(one) == 3
    for first, second in zip(one, same, strict=True):
        for field in fields(Windows):
            assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name
        assert first.waveform.shape == (8, 3, 2048)
        assert first.waveform.isfinite().all()
        assert not first.waveform[~first.valid].any()
    rows = augment.augment_sequence(of, 8, 2048, 3, generator(5), whole=True)
    assert len(rows) == 1
    assert torch.equal(rows[0].waveform, torch.cat([part.waveform for part in one], -1)), "the same, in one piece"
    assert torch.equal(rows[0].trust, torch.cat([part.trust for part in one], -1))
    starts = (k * 2048 for k in range(3))
    assert torch.equal(
        rows[0].positions, torch.cat([part.positions + s for part, s in zip(one, starts, strict=True)], 1)
    )
    still = augment.augment_sequence(of, 64, 2048, 3, generator(1), STILL)
    assert all(part.valid.all() for part in still)
    last = still[-1]
    power = second_power(last.but(waveform=last.waveform[:, :1] * torch.tensor([1.0, 0.0, 0.0])[:, None]))
    p = (last.phases == 0) & (last.positions >= 120) & (last.positions < 1900)
    rows, columns = p.nonzero(as_tuple=True)
    onset = last.positions[rows, columns].long()
    assert len(rows) > 20
    assert (power[rows, onset] > 3 * power[rows, onset - 110]).float().mean() > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_of_it_happens_on_the_device_of_the_bank() -> None:
    """Single windows and sequences, with every step chosen."""
    device = torch.device("cuda")
    of = Bank([quake(1000, 1500, 3000), trace(12000)], {"manual": 0.5, "noise": 0.5}, device)
    steps = [field.name for field in fields(augment.AugmentSettings) if field.name.endswith("_share")]
    every = augment.AugmentSettings(**dict.fromkeys(steps, 1.0))
    draws = torch.Generator(device=device).manual_seed(0)
    for part in [augment.augment(of, 8, 2048, draws, every), *augment.augment_sequence(of, 4, 2048, 3, draws, every)]:
        for field in fields(Windows):
            assert getattr(part, field.name).device.type == "cuda", field.name
        assert part.waveform.isfinite().all()


def test_without_noise_records_gaps_between_records_stay_gaps() -> None:
    """There is nothing to lay them on; the sequence is trained on all the same."""
    of = bank(quake(300, 500, 900), shares={"manual": 1.0})
    parts = augment.augment_sequence(of, 4, 2048, 2, generator(), STILL)
    assert not all(part.valid.all() for part in parts)
    assert all(part.waveform.isfinite().all() for part in parts)
