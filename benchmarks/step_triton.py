"""An experiment: everything an mLSTM block does between its two projections, in one Triton kernel.

A program takes one head of one station: it loads the memory once, reads and writes it in chunkwise form, norms what it
read, closes the output gate, and stores the memory once. Chunks of 1 and 4 tokens are padded to the 16 that the matrix
units want. The exported graph does the same by some fifteen operators.

Shapes: B rows, T tokens a chunk, H heads, K, V key and value features of a head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from step_block import ResetMemory
from torch import Tensor

from picker.model.block import NORM_EPSILON

LEAST_DOT = 16
"""Rows of the smallest product that the matrix units take."""


@triton.jit  # type: ignore[untyped-decorator]
def _step(  # type: ignore[no-untyped-def]
    projected,
    gates,
    reset,
    before,
    after,
    out,
    scale,
    epsilon,
    T: tl.constexpr,
    H: tl.constexpr,
    K: tl.constexpr,
    V: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One head of one station; projected (B, T, 2 H K + 2 H V) holds q, k, v, o, gates (B, T, 2 H) i, f."""
    program = tl.program_id(0).to(tl.int64)
    row, head = program // H, program % H
    t, k, v = tl.arange(0, ROWS), tl.arange(0, K), tl.arange(0, V)
    live = t < T
    wide = row * T + t
    line = projected + wide[:, None] * (2 * H * (K + V))
    there = live[:, None]
    q = tl.load(line + head * K + k[None, :], mask=there, other=0.0)
    key = tl.load(line + (H + head) * K + k[None, :], mask=there, other=0.0)
    value = tl.load(line + 2 * H * K + head * V + v[None, :], mask=there, other=0.0).to(tl.float32)
    o = tl.load(line + H * (2 * K + V) + head * V + v[None, :], mask=there, other=0.0).to(tl.float32)
    i = tl.load(gates + wide * (2 * H) + head, mask=live, other=0.0).to(tl.float32)
    f = tl.load(gates + wide * (2 * H) + H + head, mask=live, other=0.0).to(tl.float32)
    kept = tl.where(live, tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f))), 0.0)
    total = tl.cumsum(kept, 0)
    taken = tl.where(live, 1.0 / (1.0 + tl.exp(-i)), 0.0)
    last = tl.sum(kept, 0)
    decay = tl.exp(tl.minimum(total[:, None] - total[None, :], 0.0)) * taken[None, :]
    scores = tl.dot(q, tl.trans(key)) * scale
    scores = tl.where(t[:, None] >= t[None, :], scores * decay, 0.0)
    place = before + program * K * V + k[:, None] * V + v[None, :]
    memory = tl.load(place)
    memory = tl.where(tl.load(reset + row) != 0, 0.0, memory)
    risen = q.to(tl.float32) * (scale * tl.exp(total))[:, None]
    h = tl.dot(scores, value, input_precision="tf32x3") + tl.dot(risen, memory, input_precision="tf32x3")
    weighted = key.to(tl.float32) * (tl.exp(last - total) * taken)[:, None]
    memory = tl.exp(last) * memory + tl.dot(tl.trans(weighted), value, input_precision="tf32x3")
    tl.store(after + program * K * V + k[:, None] * V + v[None, :], memory)
    mean = tl.sum(h, 1) / V
    centred = h - mean[:, None]
    spread = tl.sum(centred * centred, 1) / V
    h = centred * (1.0 / tl.sqrt(spread + epsilon))[:, None] / (1.0 + tl.exp(-o))
    tl.store(out + wide[:, None] * (H * V) + head * V + v[None, :], h.to(out.dtype.element_ty), mask=there)


def fused_step(projected: Tensor, gates: Tensor, state: ResetMemory, heads: int) -> tuple[Tensor, Tensor]:
    """What goes into the output projection (B, T, H V), and the next memory; projected is in bf16, gates in fp32."""
    batch, tokens, _ = projected.shape
    _, _, keys, values = state.memory.shape
    out = projected.new_empty(batch, tokens, heads * values)
    after = torch.empty_like(state.memory)
    _step[(batch * heads,)](
        projected, gates, state.reset, state.memory, after, out, keys**-0.5, NORM_EPSILON,
        T=tokens, H=heads, K=keys, V=values, ROWS=max(LEAST_DOT, tokens), num_warps=2,
    )  # fmt: skip
    return out, after
