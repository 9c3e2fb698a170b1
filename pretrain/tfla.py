"""The TFLA Triton kernels of ``mlstm_kernels`` (arXiv 2503.14376) as differentiable operators, from an empty memory.

They are operators of torch's library, so a compiled graph holds them whole. Each operator gives h and the last state
(without gradient). Four things differ from calling the package's own autograd functions:

- gates stay float32 beside q, k, v in bfloat16, and so do the normaliser and the maximum that backward needs;
- the sigmoid gate has no normaliser (the package applies one by default);
- tokens need not be a multiple of 128, and a batch that CUDA's grid cannot hold goes through in pieces;
- blocks and warps are those for which Triton emits no ``wgmma`` (see ``BLOCK``).

The exponential gate's kernel takes its normaliser max(|n^T q|, exp(-m)) for a constant in backward. That gradient is
along h, and the layer norm of each head, which follows, lets none through: right for the block, not for the bare cell.

Shapes as in ``picker.model.cell``; q, k, v of one dtype (float32, float16 or bfloat16), i and f float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LONGEST_CHUNK = 128
SHORTEST_CHUNK = 16
"""Rows of a tensor core's tile: the kernels take no fewer tokens a chunk."""
BLOCK, WARPS, STATE_WARPS = 32, 4, 2
"""Tokens a block, warps of a block, and warps of the kernels that carry the memory from chunk to chunk.

With the package's own choice, blocks of 64 rows by 4 warps, Triton 3.6 multiplies by Hopper's ``wgmma``, whose operands
from registers the assembler of CUDA 12.8 breaks: an illegal memory access or wrong gradients (triton-lang/triton#11781
and #11366, fla-org/flash-linear-attention#988). 32 rows, or 2 warps, are too few for it and become ``mma.sync``.
"""
GRID, INDEX = 2**16 - 1, 2**31 - 1
"""Largest third axis of a CUDA grid, and largest offset in the kernels' 32-bit arithmetic."""

Rows = Callable[..., Sequence[Tensor]]


def kernel_chunk(tokens: int) -> int | None:
    """Tokens a chunk: the largest power of two up to 128 that divides ``tokens``; None where that is below 16."""
    chunk = min(tokens & -tokens, LONGEST_CHUNK)
    return chunk if chunk >= SHORTEST_CHUNK else None


def _sizes(tokens: int) -> dict[str, int]:
    chunk = kernel_chunk(tokens)
    if chunk is None:
        raise ValueError(f"{tokens} tokens are no multiple of {SHORTEST_CHUNK}, as the kernels need")
    block = min(chunk, BLOCK)
    return {
        "chunk_size_inter": chunk,
        "chunk_size_intra": chunk,
        "siz_b_L_parallel": block,
        "siz_b_L_loop": block,
        "num_warps_intra": WARPS,
        "num_warps_inter": STATE_WARPS,
    }


def pieces(batch: int, heads: int, tokens: int, size: int) -> int:
    """Into how many pieces a batch must go, with ``size`` values a token and head at most."""
    chunks = tokens // (kernel_chunk(tokens) or 1)
    most = max(1, min(GRID // (heads * chunks), INDEX // (heads * tokens * size)))
    return -(-batch // most)


def _by_rows(function: Rows, q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """``function`` over the rows of a batch, which are independent, in as many pieces as need be."""
    batch, heads, tokens, _ = v.shape
    count = pieces(batch, heads, tokens, max(q.shape[-1], v.shape[-1]))
    inputs = [t.contiguous() for t in (q, k, v, *others)]
    if count == 1:
        return tuple(function(*inputs))
    parts = [function(*piece) for piece in zip(*(t.chunk(count) for t in inputs), strict=True)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _sigmoid_rows(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Sequence[Tensor]:
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk_siging.fw import mlstm_siging_chunkwise_fw

    h, _, last, _ = mlstm_siging_chunkwise_fw(
        q, k, v, i, f, normalize=False, return_last_states=True, **_sizes(q.shape[2])
    )
    return h, last[0]


def _sigmoid_backward_rows(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, gradient: Tensor) -> Sequence[Tensor]:
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk_siging.bw import mlstm_siging_chunkwise_bw

    sizes = _sizes(q.shape[2])
    # Without the normaliser ``vecN_out`` is not read, but its strides are.
    found = mlstm_siging_chunkwise_bw(q, k, v, i, f, vecN_out=i, matDeltaH_out=gradient, normalize=False, **sizes)
    return tuple(found[:5])


def _exponential_rows(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Sequence[Tensor]:
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk.fw import mlstm_chunkwise_fw

    h, normalizer, maximum, last, _ = mlstm_chunkwise_fw(
        q, k, v, i, f, return_last_states=True, output_dtype=torch.float32, **_sizes(q.shape[2])
    )
    return h, normalizer, maximum, last[0], last[1], last[2][..., 0].clone()


def _exponential_backward_rows(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, normalizer: Tensor, maximum: Tensor, gradient: Tensor
) -> Sequence[Tensor]:
    from mlstm_kernels.torch.chunkwise.triton_xl_chunk.bw import mlstm_chunkwise_bw

    found = mlstm_chunkwise_bw(
        q, k, v, i, f, vecN_out=normalizer, vecM_out=maximum, matDeltaH_out=gradient, **_sizes(q.shape[2])
    )
    return tuple(found[:5])


_INPUTS = "(Tensor q, Tensor k, Tensor v, Tensor i, Tensor f"


def _operator(name: str, more: str, outputs: int, function: Rows) -> Any:
    """An operator of torch's library that runs ``function`` piece by piece."""

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        return _by_rows(function, *tensors)

    schema = f"{_INPUTS}{more}) -> ({', '.join(['Tensor'] * outputs)})"
    return torch.library.custom_op(f"onset::{name}", run, mutates_args=(), schema=schema)


def _memory(q: Tensor, v: Tensor) -> Tensor:
    return q.new_empty((*q.shape[:2], q.shape[-1], v.shape[-1]), dtype=torch.float32)


def _like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in tensors)


def _kept(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    """Everything that backward reads; of the outputs, the exponential gate's normaliser and maximum."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs, *(output[1:3] if len(output) > 2 else ()))


def _differentiated(backward: Any) -> Callable[..., Any]:
    def run(ctx: Any, gradient: Tensor | None, *_: Any) -> Any:
        if gradient is None:
            return (None,) * 5
        return backward(*ctx.saved_tensors, gradient)

    return run


_sigmoid = _operator("mlstm_sigmoid", "", 2, _sigmoid_rows)
_sigmoid_backward = _operator("mlstm_sigmoid_backward", ", Tensor gradient", 5, _sigmoid_backward_rows)
_exponential = _operator("mlstm_exponential", "", 6, _exponential_rows)
_exponential_backward = _operator(
    "mlstm_exponential_backward", ", Tensor n, Tensor m, Tensor gradient", 5, _exponential_backward_rows
)
_sigmoid.register_fake(lambda q, k, v, i, f: (*_like(v), _memory(q, v)))
_sigmoid_backward.register_fake(lambda *tensors: _like(*tensors[:5]))
_exponential.register_fake(
    lambda q, k, v, i, f: (*_like(v, i, i), _memory(q, v), i.new_empty((*q.shape[:2], q.shape[-1])), i[..., 0].clone())
)
_exponential_backward.register_fake(lambda *tensors: _like(*tensors[:5]))
_sigmoid.register_autograd(_differentiated(_sigmoid_backward), setup_context=_kept)
_exponential.register_autograd(_differentiated(_exponential_backward), setup_context=_kept)


def _compact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Copied ahead of the operator: what it keeps for backward is then no view of the whole projection."""
    return tuple(t.contiguous() for t in tensors)


def sigmoid_kernel(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """h (B, H, T, V) in the dtype of v and the last memory (B, H, K, V) float32, without gradient."""
    h, memory = _sigmoid(*_compact(q, k, v, i, f))
    return h, memory.detach()


def exponential_kernel(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """h (B, H, T, V) in the dtype of v and the last memory, normaliser and maximum, float32, without gradient."""
    h, _, _, *last = _exponential(*_compact(q, k, v, i, f))
    memory, normalizer, maximum = (t.detach() for t in last)
    return h, (memory, normalizer, maximum)
