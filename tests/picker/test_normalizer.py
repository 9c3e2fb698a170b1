"""The causal running normalisation: any unit, any offset, any gap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from networks import CHUNK, everywhere, motion
from torch import Tensor
from torch.overrides import TorchFunctionMode

from picker.model.normalizer import HIGHPASS_S, MEAN_S, SCALE_S, RunningNormalizer
from picker.offset import first_valid, remove_offset

BROAD, SHARP, FLAGS = slice(0, 3), slice(3, 6), slice(6, 9)


def features(x: Tensor, valid: Tensor | None = None, chunks: int | None = None) -> Tensor:
    """Features (B, 9, T) from a fresh state, ``chunks`` chunks a call."""
    valid = everywhere(x) if valid is None else valid
    layer = RunningNormalizer(CHUNK)
    state, out = layer.initial_state(len(x), x), []
    step = (chunks or x.shape[-1] // CHUNK) * CHUNK
    for at in range(0, x.shape[-1], step):
        here = slice(at, at + step)
        y, state = layer(x[..., here].masked_fill(~valid[..., here], 0), valid[..., here], state)
        out.append(y)
    return torch.cat(out, dim=-1)


def by_hand(x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The module's description for (3, T), sample by sample in float64."""
    mean, high, scale = (math.exp(-1 / (tau * 100)) for tau in (MEAN_S, HIGHPASS_S, SCALE_S))
    sums, out = np.zeros((8, 3)), np.zeros((9, x.shape[1]))
    for t in range(x.shape[1]):
        flag, value = valid[:, t].astype(float), np.where(valid[:, t], x[:, t], 0)
        sums[0:2] = mean * sums[0:2] + [flag, value]
        level = sums[1] / np.maximum(sums[0], 1e-20)
        broad = flag * (value - level)
        sums[2:4] = high * sums[2:4] + [flag, broad]
        sharp = flag * (broad - sums[3] / np.maximum(sums[2], 1e-20))
        sums[4] = high * sums[4] + sharp
        sharp = flag * (sharp - sums[4] / np.maximum(sums[2], 1e-20))
        sums[5:8] = scale * sums[5:8] + [flag, np.sqrt(np.abs(broad)), np.sqrt(np.abs(sharp))]
        shared = (sums[6].sum() / max(sums[5].sum(), 1e-20)) ** 2
        own = (sums[7] / np.maximum(sums[5], 1e-20)) ** 2
        floor = 1e-6 * np.abs(level)
        z = [broad / max(shared, floor.max(), 1e-20), sharp / np.maximum(np.maximum(own, floor), 1e-20)]
        out[:6, t] = np.concatenate([np.sign(part) * np.log1p(np.abs(part)) for part in z])
        out[6:, t] = flag
    return out


def test_triangular_products_are_the_recursion() -> None:
    """The loop-free form equals the recursion sample by sample, gaps included, in float64."""
    x, valid = motion(1, 16).double(), torch.ones(1, 3, 1024, dtype=torch.bool)
    valid[0, :, 200:333] = False
    valid[0, 1, 600:601] = False
    expected = by_hand(x[0].numpy(), valid[0].numpy())
    np.testing.assert_allclose(features(x, valid)[0].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunks", [1, 7])
def test_chunked_equals_whole(chunks: int) -> None:
    """Float64 to 1e-11, float32 to 1e-4 over five minutes."""
    x = motion(2, 469)
    assert (features(x.double(), chunks=chunks) - features(x.double())).abs().max() < 1e-11
    assert (features(x, chunks=chunks) - features(x)).abs().max() < 1e-4


def test_24_bit_offsets_need_the_offset_removed_first() -> None:
    """8e6 counts under a noise of 50: the same features through picker.offset, and others without it."""
    counts = (50 * motion(1, 300, seed=1).double() / 3).round().to(torch.int64).numpy()
    sitting = (counts + 8_000_000).astype(np.int32)
    assert sitting.max() < 2**23
    valid = np.ones(counts.shape, np.bool_)
    plain, lifted = (torch.from_numpy(remove_offset(c, first_valid(c, valid))) for c in (counts, sitting))
    expected = features(plain)
    assert (features(lifted) - expected).abs().max() < 1e-3
    naive = features(torch.from_numpy(sitting.astype(np.float32)))
    assert (naive - expected)[..., 200:].abs().max() > 0.1


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-3, 1e3, 1e6])
def test_any_unit_gives_the_same_features(scale: float) -> None:
    """Metres per second, nanometres, counts: to the rounding of the scaled samples."""
    x = motion(1, 100)
    assert (features(x * scale) - features(x)).abs().max() < 1e-4


def test_the_first_seconds_are_usable() -> None:
    """Running means are bias-corrected: the features of stationary noise are from the start as large as later."""
    x = torch.randn(8, 3, 94 * CHUNK, generator=torch.Generator().manual_seed(0)) + 1000
    y = features(x)
    later = y[:, :6, 3000:].std()
    assert 0.7 < y[:, :6, 30:130].std() / later < 1.4
    assert y[:, :6, :30].abs().max() < 4
    assert y[:, :6, 0].abs().max() == 0


def test_gaps_do_not_pull_the_mean() -> None:
    """After half a minute of gap the features are what they were; a mean fed with zeros would be far off."""
    x = torch.randn(1, 3, 94 * CHUNK, generator=torch.Generator().manual_seed(0)) + 1000
    valid = everywhere(x)
    valid[..., 2000:5000] = False
    y = features(x, valid)
    assert (y[:, :6, 2000:5000] == 0).all()
    assert torch.equal(y[:, FLAGS], valid.to(y.dtype))
    around = (y[:, BROAD, 1900:2000].abs().mean(), y[:, BROAD, 5000:5100].abs().mean())
    assert 0.5 < around[1] / around[0] < 2
    zero_filled = features(x.masked_fill(~valid, 0))[:, BROAD, 5000:5100].abs().mean()
    assert zero_filled > 2.5 * around[0]


def test_a_gap_longer_than_every_memory_is_a_new_start() -> None:
    """After twenty minutes nothing is left of what was before, and nothing is divided by zero."""
    x = torch.randn(1, 3, 1900 * CHUNK, generator=torch.Generator().manual_seed(0))
    valid = everywhere(x)
    valid[..., CHUNK : 1890 * CHUNK] = False
    y = features(x, valid)
    fresh = features(x[..., 1890 * CHUNK :])
    assert y.isfinite().all()
    assert (y[..., 1890 * CHUNK :] - fresh).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.0, 1.0, -(2.0**23), 1e-9])
def test_constant_traces_give_zeros(value: float) -> None:
    """A dead channel, whatever it sits at, has no motion once its offset is removed."""
    raw = np.full((1, 3, 100 * CHUNK), value)
    x = torch.from_numpy(remove_offset(raw, first_valid(raw, np.ones(raw.shape, np.bool_))))
    assert (features(x)[:, :6] == 0).all()


def test_a_dead_component_stays_zero_beside_live_ones() -> None:
    """Its own features are exactly zero and the others keep theirs in the sharp band."""
    x = motion(1, 100)
    dead = x.clone()
    dead[:, 2] = 0
    y, alive = features(dead), features(x)
    assert (y[:, [2, 5]] == 0).all()
    assert torch.equal(y[:, 3:5], alive[:, 3:5])


def test_saturated_rails() -> None:
    """Slamming from rail to rail stays finite and bounded; stuck at a rail, the motion dies away within minutes."""
    rail = 2.0**23
    slammed = features(torch.sign(motion(1, 300)) * rail)
    assert slammed.isfinite().all()
    assert slammed[..., 1000:].abs().max() < 12
    stuck = 1000 * motion(1, 300)
    stuck[..., 6400:] = rail - 1
    y = features(stuck)
    assert y[:, BROAD, 6400:6410].abs().max() > 5
    assert y[:, :6, 15_000:].abs().max() < 0.3


class Tf32(TorchFunctionMode):
    """Operands of products rounded to 11 bits, as a GPU takes them in TF32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ in ("__matmul__", "matmul"):
            wide = [operand * (2.0**13 + 1) for operand in args]
            args = tuple(w - (w - operand) for w, operand in zip(wide, args, strict=True))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_tf32_leaves_a_step_of_one_chunk_alone(offset: float) -> None:
    """A GPU that serves keeps some 21 bits of the operands of the normaliser's products, not 11.

    Whole records are for training, whose products are in float32: there this mode shows what the split spares.
    """
    x = motion(1, 64) + offset
    exact = features(x, chunks=1)
    with Tf32():
        served, plain = features(x, chunks=1), features(x)
    guard = 8 * CHUNK
    assert (plain - exact)[:, SHARP, guard:].abs().max() > 50 * (served - exact)[:, SHARP, guard:].abs().max()
    assert (served - exact)[..., guard:].abs().max() < 5e-3, "as much as whole records and chunks differ in float32"
