"""The mLSTM cell: matrix memory with a forget and an input gate a head, in chunkwise form with a carried state.

    C_t = f_t C_{t-1} + i_t k_t v_t^T          h_t = C_t^T q_t / sqrt(d_k)

Sigmoid gate (mLSTMsig, arXiv 2503.14376): i = sigmoid(i~), f = sigmoid(f~), no normaliser and no maximum state: every
factor is at most one, so nothing overflows. Exponential gate (xLSTM, arXiv 2405.04517): i = exp(i~), f = sigmoid(f~),
stabilised by a running maximum m and normalised by n_t = f_t n_{t-1} + i_t k_t:
h_t = C_t^T q_t / max(|n_t^T q_t|, exp(-m_t)).

Log decays are summed by a triangular product (no CumSum), and all of it is as wide as the gates: float32 at least.

Shapes: q, k (B, H, T, K), v (B, H, T, V), i, f (B, H, T) before their gate functions; T a multiple of ``chunk``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class SigmoidState(NamedTuple):
    """Memory C (B, H, K, V)."""

    memory: Tensor


class ExponentialState(NamedTuple):
    """Memory C (B, H, K, V), normaliser n (B, H, K) and running maximum m (B, H)."""

    memory: Tensor
    normalizer: Tensor
    maximum: Tensor


LOWEST_MAXIMUM = -80.0
"""Below this exp(-m) would overflow float32: the output would still be zero, but its gradient NaN."""

CellState = SigmoidState | ExponentialState
Cell = Callable[..., tuple[Tensor, CellState]]
"""(q, k, v, i, f, state, chunk) -> h (B, H, T, V), next state: what a block takes as its kernel.

Gates and state are float32 at least; q, k, v as the projection made them, narrower under autocast. A cell promotes them
itself: a kernel is fast because it need not.
"""


def _lower(length: int, like: Tensor) -> Tensor:
    return torch.ones(length, length, device=like.device, dtype=like.dtype).tril()


def sigmoid_cell(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: SigmoidState, chunk: int
) -> tuple[Tensor, SigmoidState]:
    """Sigmoid-gate mLSTM, all chunks at once: inside a chunk as masked attention, over chunks as a decayed sum.

    One chunk is the serving form; ``chunk = T`` is the parallel form.
    """
    q, k, v = (t.to(i.dtype) for t in (q, k, v))
    q, count = q * q.shape[-1] ** -0.5, q.shape[2] // chunk
    if count == 1:  # serving: no axis of chunks, and so no reshaping in the step graph
        h, written, total = _within_chunk(q, k, v, i, f)
        rise = torch.exp(total)[..., None]
        return h + (q * rise) @ state.memory, SigmoidState(rise[..., -1:, :] * state.memory + written)
    q, k, v, i, f = (t.unflatten(2, (count, chunk)) for t in (q, k, v, i, f))
    h, written, total = _within_chunk(q, k, v, i, f)
    before, memory = _over_chunks(written, total[..., -1], state.memory)
    h = h + (q * torch.exp(total)[..., None]) @ before
    return h.flatten(2, 3), SigmoidState(memory)


def _within_chunk(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a chunk (..., T) reads of itself (..., T, V), what it writes (..., K, V), and its log decays (..., T)."""
    lower = _lower(q.shape[-2], q)
    total = F.logsigmoid(f) @ lower.T  # from the start of the chunk to t, inclusive
    exponent = total[..., :, None] - total[..., None, :]
    decay = torch.exp(exponent.masked_fill(lower == 0, -torch.inf)) * torch.sigmoid(i)[..., None, :]
    keys = k.transpose(-1, -2)
    return (q @ keys * decay) @ v, (keys * decay[..., -1:, :]) @ v, total


def _over_chunks(written: Tensor, log_kept: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Memory before each chunk (B, H, N, K, V) and after the last, from what each chunk writes and keeps."""
    count = written.shape[2]
    # Differences of sums over a whole record: in float32 they would lose what a short memory is made of.
    total = F.pad(log_kept.double() @ _lower(count, log_kept.double()).T, (1, 0))  # (B, H, N + 1)
    exponent = (total[..., :, None] - total[..., None, :]).to(written.dtype)
    weights = torch.exp(exponent.masked_fill(_lower(count + 1, written) == 0, -torch.inf))
    sources = torch.cat([memory[:, :, None], written], dim=2)
    everything = (weights @ sources.flatten(-2)).unflatten(-1, written.shape[-2:])
    return everything[:, :, :-1], everything[:, :, -1]


def exponential_cell(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: ExponentialState, chunk: int
) -> tuple[Tensor, ExponentialState]:
    """Exponential-gate mLSTM, chunk after chunk."""
    q, k, v = (t.to(i.dtype) for t in (q, k, v))
    outputs = []
    for start in range(0, q.shape[2], chunk):
        piece = slice(start, start + chunk)
        h, state = _exponential_chunk(
            q[:, :, piece], k[:, :, piece], v[:, :, piece], i[:, :, piece], f[:, :, piece], state
        )
        outputs.append(h)
    return (torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]), state


def _exponential_chunk(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: ExponentialState
) -> tuple[Tensor, ExponentialState]:
    q = q * q.shape[-1] ** -0.5
    lower = _lower(q.shape[2], q)
    total = F.logsigmoid(f) @ lower.T
    exponent = (total[..., :, None] - total[..., None, :] + i[..., None, :]).masked_fill(lower == 0, -torch.inf)
    inherited = total + state.maximum[..., None]
    maximum = torch.maximum(exponent.amax(-1), inherited)
    scores = q @ k.transpose(-1, -2) * torch.exp(exponent - maximum[..., None])
    carried = q * torch.exp(inherited - maximum)[..., None]
    numerator = scores @ v + carried @ state.memory
    denominator = scores.sum(-1) + (carried @ state.normalizer[..., None])[..., 0]
    floor = torch.exp(-maximum.clamp(min=LOWEST_MAXIMUM))
    h = numerator / torch.maximum(denominator.abs(), floor)[..., None]
    last = maximum[..., -1]
    kept = torch.exp(inherited[..., -1] - last)
    written = k * torch.exp(exponent[..., -1, :] - last[..., None])[..., None]
    return h, ExponentialState(
        kept[..., None, None] * state.memory + written.transpose(-1, -2) @ v,
        kept[..., None] * state.normalizer + written.sum(2),
        last,
    )


def initial_cell_state(
    gate: str, batch: int, heads: int, keys: int, values: int, like: Tensor, shared: bool = False
) -> CellState:
    """The empty memory: all zeros for both gates. ``shared``: one zero seen everywhere, which ``untouched`` knows."""

    def zeros(*shape: int) -> Tensor:
        return like.new_zeros(()).expand(shape) if shared else like.new_zeros(shape)

    memory = zeros(batch, heads, keys, values)
    if gate == "sigmoid":
        return SigmoidState(memory)
    return ExponentialState(memory, zeros(batch, heads, keys), zeros(batch, heads))


def untouched(state: CellState) -> bool:
    """Whether the memory is still the shared zero of ``initial_cell_state``: nothing that was ever written is.

    Read off the strides, so nothing waits for the device. (An axis of size one may have any stride.)
    """
    memory = state.memory
    return all(size == 1 or stride == 0 for size, stride in zip(memory.shape, memory.stride(), strict=True))


CELLS: dict[str, Cell] = {"sigmoid": sigmoid_cell, "exponential": exponential_cell}
