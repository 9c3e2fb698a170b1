"""The residual block: how long its memory lasts."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from picker.model.block import FADING_SAMPLES, MLSTMBlock
from picker.model.config import Gate, LevelConfig, ModelConfig

CHUNK_SAMPLES = 64


def block(gate: Gate, chunk_tokens: int) -> MLSTMBlock:
    """In float64, with random gate weights."""
    torch.manual_seed(5)
    level = LevelConfig(width=16, heads=2, down_blocks=1, up_blocks=0)
    config = ModelConfig(name="tiny", levels=(level,), encoder_features=8, head_features=8, gate=gate, key_size=16)
    made = MLSTMBlock(config, level, chunk_tokens).double()
    torch.nn.init.normal_(made.project.weight, std=0.3)
    return made


@pytest.mark.parametrize("chunk_tokens", [16, 4, 1])
def test_gate_loses_the_fading_of_a_token(chunk_tokens: int) -> None:
    """log sigmoid of the gate that the cell is given: that of the projection less the token's share of a minute."""
    seen = []
    made = block("sigmoid", chunk_tokens)
    plain = made.cell
    made.cell = lambda q, k, v, i, f, state, chunk: seen.append(f) or plain(q, k, v, i, f, state, chunk)  # type: ignore[func-returns-value]
    x = torch.randn(3, 2 * chunk_tokens, 16, dtype=torch.float64)
    made(x, made.initial_state(3, x))
    asked = made.project(made.norm(x))[..., -made.heads :].transpose(1, 2)
    loss = CHUNK_SAMPLES / chunk_tokens / FADING_SAMPLES
    torch.testing.assert_close(F.logsigmoid(seen[0]), F.logsigmoid(asked) - loss, rtol=1e-12, atol=1e-12)


def test_extreme_gates_stay_finite_and_learn() -> None:
    """Shut, the gate is as shut as before; wide open, it still has a gradient in float32."""
    made = block("sigmoid", 16)
    f = torch.tensor([-1e4, -50.0, 0.0, 8.0], requires_grad=True)
    faded = made.faded(f)
    assert faded[0].item() == pytest.approx(-1e4)
    faded.sum().backward()
    assert f.grad is not None
    assert (f.grad > 0.1).all()
    assert torch.isfinite(made.faded(torch.tensor([1e4, 1e30, -1e30]))).all()


@pytest.mark.parametrize("gate", ["sigmoid", "exponential"])
def test_after_ten_minutes_nothing_is_left(gate: Gate) -> None:
    """Two pasts, then the same ten minutes with the forget gate wide open: the memories are the same to exp(-10)."""
    made = block(gate, 4)
    with torch.no_grad():
        made.project.weight[-made.heads :] = 0
        made.project.bias[-made.heads :] = 30.0
        pasts = torch.randn(2, 64, 16, dtype=torch.float64)
        _, state = made(pasts, made.initial_state(2, pasts))
        apart = (state.memory[0] - state.memory[1]).abs().max()
        minutes = torch.randn(1, 10 * FADING_SAMPLES // 64 * 4, 16, dtype=torch.float64).expand(2, -1, -1)
        _, state = made(minutes, state)
    left = (state.memory[0] - state.memory[1]).abs().max()
    assert 0 < left / apart < 2 * math.exp(-10)
