"""The mLSTM cell against the reference cells of ``mlstm_kernels``, and its forms against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mlstm_kernels.torch.parallel.native_siging import mlstm_siging_parallel__native_autograd
from mlstm_kernels.torch.parallel.native_stablef import mlstm_parallel__native_stablef_autograd
from mlstm_kernels.torch.recurrent.native_sequence import mlstm_recurrent_sequence__native_fw
from torch import Tensor

from picker.model.block import MLSTMBlock
from picker.model.cell import (
    CELLS,
    CellState,
    ExponentialState,
    SigmoidState,
    exponential_cell,
    initial_cell_state,
    sigmoid_cell,
)
from picker.model.config import Gate, LevelConfig, ModelConfig

B, H, K, V = 2, 3, 16, 32
GATES: tuple[Gate, ...] = ("sigmoid", "exponential")
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(tokens: int, seed: int = 0, spread: float = 3.0) -> Inputs:
    """q, k, v, i, f in float64, gates spread from nearly closed to nearly open."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, H, tokens, size, generator=generator).double() for size in (K, K, V))
    i, f = (spread * torch.randn(B, H, tokens, generator=generator).double() + shift for shift in (-1, 2))
    return q, k, v, i, f


def some_state(gate: Gate) -> CellState:
    """A state in the middle of a record."""
    *_, state = CELLS[gate](*inputs(8, seed=7), initial_cell_state(gate, B, H, K, V, torch.zeros(1).double()), 8)
    return state


def in_pieces(gate: Gate, data: Inputs, state: CellState, piece: int, chunk: int) -> tuple[Tensor, CellState]:
    """Outputs and last state where ``piece`` tokens go in at a time."""
    out = []
    for start in range(0, data[0].shape[2], piece):
        h, state = CELLS[gate](*(t[:, :, start : start + piece] for t in data), state, chunk)
        out.append(h)
    return torch.cat(out, dim=2), state


def fresh(gate: Gate, like: Tensor) -> CellState:
    return initial_cell_state(gate, like.shape[0], like.shape[1], K, V, like)


@pytest.mark.parametrize("chunk", [1, 8, 48])
def test_sigmoid_gate_is_the_reference(chunk: int) -> None:
    """Equal, gradients too, to the reference without its normaliser, which it applies unless told otherwise."""
    ours, theirs = ([t.requires_grad_() for t in inputs(48)] for _ in range(2))
    h, _ = sigmoid_cell(*ours, fresh("sigmoid", ours[0]), chunk)
    expected = mlstm_siging_parallel__native_autograd(*theirs, normalize=False)
    torch.testing.assert_close(h, expected, rtol=1e-9, atol=1e-11)
    (h**2).sum().backward()
    (expected**2).sum().backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-8, atol=1e-10)
    assert (mlstm_siging_parallel__native_autograd(*theirs) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("chunk", [1, 8, 48])
def test_exponential_gate_is_the_reference(chunk: int) -> None:
    """Equal, gradients too; the reference's safety margin of the denominator is set to zero.

    The reference starts from no maximum, ours from zero: the output does not depend on it.
    """
    ours, theirs = ([t.requires_grad_() for t in inputs(48)] for _ in range(2))
    h, _ = exponential_cell(*ours, fresh("exponential", ours[0]), chunk)
    expected = mlstm_parallel__native_stablef_autograd(*theirs, eps=0.0)
    torch.testing.assert_close(h, expected, rtol=1e-8, atol=1e-9)
    (h**2).sum().backward()
    (expected**2).sum().backward()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunk", [1, 8, 24])
def test_exponential_gate_continues_a_state_as_the_reference_does(chunk: int) -> None:
    """From a state in the middle of a record: outputs, memory, normaliser and maximum."""
    state, data = some_state("exponential"), inputs(24, seed=1)
    assert isinstance(state, ExponentialState)
    h, after = exponential_cell(*data, state, chunk)
    expected, (memory, normalizer, maximum) = mlstm_recurrent_sequence__native_fw(
        *data,
        c_initial=state.memory,
        n_initial=state.normalizer,
        m_initial=state.maximum[..., None],
        return_last_states=True,
        eps=0.0,
        dtype_state=torch.float64,
    )
    torch.testing.assert_close(h, expected, rtol=1e-8, atol=1e-9)
    for mine, reference in zip(after, (memory, normalizer, maximum[..., 0]), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-11)


def test_sigmoid_gate_continues_a_state_as_its_equation_does() -> None:
    """C = f C + i k v^T, h = C^T q / sqrt(K), written out token by token from a state in the middle of a record."""
    state, (q, k, v, i, f) = some_state("sigmoid"), inputs(24, seed=1)
    assert isinstance(state, SigmoidState)
    memory, expected = state.memory, []
    for t in range(24):
        written = torch.sigmoid(i[..., t, None, None]) * k[:, :, t, :, None] * v[:, :, t, None, :]
        memory = torch.sigmoid(f[..., t, None, None]) * memory + written
        expected.append((q[:, :, t, None] @ memory)[:, :, 0] / K**0.5)
    h, after = sigmoid_cell(q, k, v, i, f, state, 8)
    torch.testing.assert_close(h, torch.stack(expected, dim=2), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(after.memory, memory, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("piece", "chunk"), [(1, 1), (4, 4), (16, 4), (48, 16), (96, 1)])
def test_every_form_is_the_parallel_form(gate: Gate, piece: int, chunk: int) -> None:
    """Token by token, chunk by chunk and chunkwise over the whole, from a state in the middle of a record."""
    data, state = inputs(96, seed=2), some_state(gate)
    h, after = in_pieces(gate, data, state, piece, chunk)
    expected, last = CELLS[gate](*data, state, 96)
    torch.testing.assert_close(h, expected, rtol=1e-9, atol=1e-10)
    for mine, reference in zip(after, last, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gate", GATES)
def test_gradients_through_the_block(gate: Gate) -> None:
    """Gradients through gates, chunks, carried state, per-head norm and feed-forward against finite differences."""
    torch.manual_seed(0)
    level = LevelConfig(width=6, heads=2, down_blocks=1, up_blocks=0)
    config = ModelConfig(
        name="t", levels=(level,), encoder_features=4, head_features=4, gate=gate, key_size=16, value_size=16
    )
    block = MLSTMBlock(config, level, chunk_tokens=2).double()
    torch.nn.init.normal_(block.project.weight, std=0.5)
    state = block.initial_state(1, torch.zeros(1).double())
    state = type(state)(*(0.1 * torch.randn_like(t) for t in state))
    x = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    leaves = [t.detach().requires_grad_() for t in state]

    def run(x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        y, after = block(x, type(state)(*leaves))
        return (y, *after)

    assert torch.autograd.gradcheck(run, (x, *leaves))
    weights = [block.project.weight, block.project.bias]

    def of_weights(weight: Tensor, bias: Tensor) -> Any:
        parameters = {"project.weight": weight, "project.bias": bias}
        return torch.func.functional_call(block, parameters, (x.detach(), state))[0]

    assert torch.autograd.gradcheck(of_weights, weights, fast_mode=True)


@pytest.mark.parametrize("gate", GATES)
def test_a_long_stream_does_not_drift(gate: Gate) -> None:
    """6,000 tokens, four minutes at 25 Hz, in float32, chunk by chunk: within 1e-3 of float64, state included."""
    data = inputs(6000, seed=3, spread=1.0)
    data = (*data[:4], data[4] + 3)  # long memories
    exact, state = in_pieces(gate, data, fresh(gate, data[0]), 16, 16)
    single: Any = tuple(t.float() for t in data)
    found, carried = in_pieces(gate, single, fresh(gate, single[0]), 16, 16)
    assert all(t.dtype == torch.float32 for t in carried)
    for mine, reference in zip((found, *carried), (exact, *state), strict=True):
        assert (mine - reference).abs().max() < 1e-3 * reference.abs().max()
    assert (found - exact)[:, :, -500:].abs().max() < 1e-3 * exact[:, :, -500:].abs().max()


def test_the_whole_is_as_precise_as_the_stream() -> None:
    """Differences of log decays summed over a whole record keep what comes late in it, in float32 too.

    1,024 tokens of strong forgetting sum to about -20,000, where float32 resolves only 2e-3; long memories follow.
    """
    q, k, v, i, f = inputs(2048, seed=4, spread=1.0)
    f[:, :, :1024] -= 22
    f[:, :, 1024:] += 2
    data = (q, k, v, i, f)
    exact, _ = sigmoid_cell(*data, SigmoidState(q.new_zeros(B, H, K, V)), 16)
    single = [t.float() for t in data]
    found, _ = sigmoid_cell(*single, SigmoidState(single[0].new_zeros(B, H, K, V)), 16)
    assert (found - exact)[:, :, 1024:].abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("gate", GATES)
def test_ten_quiet_minutes_with_gates_at_their_limits(gate: Gate) -> None:
    """15,000 tokens of almost nothing, gates wide open or shut: all finite, and what follows is as in float64."""
    limits = torch.tensor([-200.0, -30.0, 30.0, 200.0])
    i, f = (t.reshape(-1, 1, 1) for t in torch.meshgrid(limits, limits, indexing="ij"))
    torch.manual_seed(5)
    events = [torch.randn(16, 1, 64, size) for size in (K, K, V)]

    def soak(dtype: torch.dtype) -> tuple[Tensor, CellState]:
        state = initial_cell_state(gate, 16, 1, K, V, torch.zeros(1, dtype=dtype))
        gates = [t.expand(16, 1, 64).to(dtype) for t in (i, f)]
        quiet = [1e-6 * t.to(dtype) for t in events]
        for _ in range(15_000 // 64):
            h, state = CELLS[gate](*quiet, *gates, state, 64)
            assert h.isfinite().all()
            assert all(t.isfinite().all() for t in state)
        ordinary = [torch.full((16, 1, 64), value, dtype=dtype) for value in (-2.0, 4.0)]
        return CELLS[gate](*(t.to(dtype) for t in events), *ordinary, state, 64)

    with torch.no_grad():
        (found, carried), (exact, _) = soak(torch.float32), soak(torch.float64)
    assert all(t.isfinite().all() for t in carried)
    assert (found - exact).abs().max() < 1e-3 * exact.abs().max()


def test_a_closed_exponential_gate_has_gradients() -> None:
    """exp(-m) overflows float32 below m = -88: the output is zero and the gradients must not be NaN."""
    q, k, v, _, _ = (t.float() for t in inputs(16))
    i, f = (torch.full((B, H, 16), value, requires_grad=True) for value in (-120.0, -50.0))
    h, _ = exponential_cell(q, k, v, i, f, fresh("exponential", q), 16)
    h.sum().backward()
    assert h.abs().max() < 1e-30
    assert i.grad is not None
    assert f.grad is not None
    assert i.grad.isfinite().all()
    assert f.grad.isfinite().all()
