"""Operators of ONNX Runtime's own domain that the graph for a GPU is made of, as torch calls for the exporter.

They stand for several standard operators each, so that less goes through the device's memory. Called outside an export
they give zeros of the right shape; the graph is what they are for.

Shapes: B rows, T tokens, H heads, K, V key and value features of a head, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

DOMAIN = "com.microsoft"


def gated_memory(q: Tensor, k: Tensor, v: Tensor, memory: Tensor, log_decay: Tensor, heads: int) -> tuple[Tensor, ...]:
    """q, k (B, T, H K), v (B, T, H V), memory (B, H, K, V), log_decay (B, T, H): h (B, T, H V) and the next memory.

    C_t = exp(log_decay_t) C_{t-1} + k_t v_t^T and h_t = C_t^T q_t / sqrt(K): the recurrence of ``picker.model.cell``
    with the input gate already in k.
    """
    rule: dict[str, int | float | str | bool | Sequence[int] | Sequence[float] | Sequence[str] | Sequence[bool]] = {
        "q_num_heads": heads,
        "kv_num_heads": heads,
        "update_rule": "gated",
    }
    out, after = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::LinearAttention",
        (q, k, v, memory, log_decay),
        rule,
        dtypes=(v.dtype, memory.dtype),
        shapes=(v.shape, memory.shape),
        version=1,
    )
    return out, after


def skip_norm(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The layer norm of x + skip + added (F,), and that sum; all (B, T, F)."""
    normed, _, _, total = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::SkipLayerNormalization",
        (x, skip, weight, bias, added),
        {"epsilon": 1e-5},
        dtypes=(x.dtype, torch.float32, torch.float32, x.dtype),
        shapes=(x.shape, x.shape[:2], x.shape[:2], x.shape),
        version=1,
    )
    return normed, total


def biased_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """The tanh form of GELU of x + bias (F,)."""
    return torch.onnx.ops.symbolic(f"{DOMAIN}::FastGelu", (x, bias), dtype=x.dtype, shape=x.shape, version=1)


def sigmoid(x: Tensor) -> Tensor:
    """ONNX's own sigmoid: its small values have few digits, which is enough where no norm follows."""
    return torch.onnx.ops.symbolic("Sigmoid", (x,), dtype=x.dtype, shape=x.shape)


def softplus(x: Tensor) -> Tensor:
    """ONNX's own softplus."""
    return torch.onnx.ops.symbolic("Softplus", (x,), dtype=x.dtype, shape=x.shape)
