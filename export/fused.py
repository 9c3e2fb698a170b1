"""The step graph once more, for many stations on a GPU: the same function in fewer and wider operators.

On a GPU the step is bound by what goes through memory between operators, not by its products. So features lie last
throughout (no transposes), convolutions are products over windows, pooling is folded into the linear maps beside it,
bias, residual and norm go together, and a memory is read and written once. Products are in ``dtype`` as are the
activations between them; the normaliser, gates, decays, memories and the norm of what they yield are in float32.

One thing differs from ``model.onnx``: ``reset`` makes a memory zero by its decay, which a memory that is not finite
survives. Whoever drives the graph must never hand it one (see ``picker.slots``).

Shapes: B rows, T tokens, F features, H heads, K, V key and value features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from export import contrib
from export.graph import translate
from export.precision import PRECISIONS
from picker.errors import BundleError
from picker.model.block import NORM_EPSILON, MLSTMBlock
from picker.model.causal import CausalConv1d
from picker.model.cell import SigmoidState
from picker.model.normalizer import NormalizerState
from picker.model.picker import Picker
from picker.model.state import named
from picker.model.unet import Pool, Unpool

CLOSED = -1e4
"""Logarithm of a decay that keeps nothing."""
FUSED_PRECISIONS = ("fp16", "fp32")


class Product(nn.Module):
    """(..., in) times (in, out) in ``dtype``, without the bias, which goes into what follows."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().to(dtype).contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)

    @classmethod
    def of(cls, linear: nn.Linear, dtype: torch.dtype) -> Product:
        """A linear layer."""
        return cls(linear.weight.T, linear.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Without the bias."""
        return x @ self.weight


class Windows(nn.Module):
    """A causal convolution of (B, T, in) as a product over windows: (B, T / stride, out), and the next tail."""

    def __init__(self, layer: CausalConv1d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.conv.weight  # (out, in, kernel)
        self.kernel, self.stride, self.tail = weight.shape[2], layer.conv.stride[0], layer.tail
        bias = cast(Tensor, layer.conv.bias)
        self.product = Product(weight.permute(2, 1, 0).reshape(-1, weight.shape[0]), bias, dtype)

    def forward(self, x: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, in), tail (B, in, tail) as the state has it; the bias is left to what follows."""
        x = torch.cat([tail.transpose(1, 2).to(x.dtype), x], dim=1)
        groups, taps = x.shape[1] // self.stride, self.kernel // self.stride
        starts = torch.arange(groups - taps + 1, device=x.device)
        index = (starts[:, None] + torch.arange(taps, device=x.device)).flatten()
        windows = x.reshape(-1, groups, self.stride * x.shape[2]).index_select(1, index)
        y = self.product(windows.reshape(-1, len(starts), self.kernel * x.shape[2]))
        return y, x[:, x.shape[1] - self.tail :].transpose(1, 2).float()


class FusedBlock(nn.Module):
    """An mLSTM block: normed input and residual in, the normed input and residual of whoever is next out."""

    def __init__(self, block: MLSTMBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads, self.keys, self.values, self.dtype = block.heads, block.keys, block.values, dtype
        wide = sum(block.sizes[:4])
        weight, bias = block.project.weight, block.project.bias
        self.project = Product(weight[:wide].T, bias[:wide], dtype)
        self.gates = Product(weight[wide:].T, bias[wide:], torch.float32)
        self.sizes = block.sizes[:4]
        self.out, self.inner = Product.of(block.out, dtype), Product.of(block.feedforward_in, dtype)
        self.outer = Product.of(block.feedforward_out, dtype)
        self.norm, self.feedforward_norm = Norm(block.norm, dtype), Norm(block.feedforward_norm, dtype)

    def forward(self, normed: Tensor, x: Tensor, memory: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """normed, x (B, T, F), memory (B, H, K, V), kept (B, T, 1) added to the log decay.

        Returns what the feed-forward layer yields without its bias (``outer.bias``), the residual, the next memory.
        """
        q, k, v, o = (self.project(normed) + self.project.bias).split(self.sizes, dim=-1)
        i, f = (self.gates(normed.float()) + self.gates.bias).chunk(2, dim=-1)
        gated = k.float().unflatten(-1, (self.heads, self.keys)) * torch.sigmoid(i)[..., None]
        decay = kept - contrib.softplus(-f)
        h, memory = contrib.gated_memory(q.float(), gated.flatten(-2), v.float(), memory, decay, self.heads)
        h = torch.nn.functional.layer_norm(h.unflatten(-1, (self.heads, self.values)), (self.values,), eps=NORM_EPSILON)
        y = self.out(contrib.sigmoid(o) * h.flatten(-2).to(self.dtype))
        normed, x = self.feedforward_norm(y, x, self.out.bias)
        return self.outer(contrib.biased_gelu(self.inner(normed), self.inner.bias)), x, memory


class Norm(nn.Module):
    """A layer norm of a sum."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().to(dtype), requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor, skip: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The norm of x + skip + added, and that sum."""
        return contrib.skip_norm(x, skip, self.weight, self.bias, added)

    def alone(self, x: Tensor) -> Tensor:
        """The norm of x."""
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)


def pooled(pool: Pool, dtype: torch.dtype) -> Product:
    """(..., pooling F) to (..., G): the weighted mean and the linear map in one product."""
    weight = pool.weight[:, :, None] * pool.linear.weight.T  # (pooling, F, G)
    return Product(weight.flatten(0, 1), pool.linear.bias, dtype)


def unpooled(unpool: Unpool, dtype: torch.dtype) -> Product:
    """(..., G) to (..., pooling F): the linear map and the weight of each place in one product."""
    weight = unpool.linear.weight.T[:, None] * unpool.weight  # (G, pooling, F)
    return Product(weight.flatten(1), (unpool.linear.bias * unpool.weight).flatten(), dtype)


class FusedUNet(nn.Module):
    """Tokens (B, T, F) of the finest level to tokens of the same shape."""

    def __init__(self, model: Picker, dtype: torch.dtype) -> None:
        super().__init__()
        unet = model.unet
        self.pooling = model.config.pooling
        self.down, self.up = (
            nn.ModuleList(
                nn.ModuleList(FusedBlock(cast(MLSTMBlock, block), dtype) for block in cast(nn.ModuleList, stage))
                for stage in stages
            )
            for stages in (unet.down, unet.up)
        )
        self.pools = nn.ModuleList(pooled(cast(Pool, pool), dtype) for pool in unet.pools)
        self.unpools = nn.ModuleList(unpooled(cast(Unpool, unpool), dtype) for unpool in unet.unpools)

    def forward(self, x: Tensor, memories: list[Tensor], reset: Tensor, late: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``late`` (B, T, F) joins the finest level on the way up; ``reset`` (B,)."""
        before, after, skips = iter(memories), list[Tensor](), list[Tensor]()
        for depth, stage in enumerate(_stages(self.down)):
            if depth:
                pool = cast(Product, self.pools[depth - 1])
                x = pool(x.unflatten(1, (-1, self.pooling)).flatten(2)) + pool.bias
            x = _stage(stage, x, before, after, reset)
            skips.append(x)
        for depth, stage in reversed(list(enumerate(_stages(self.up)))):
            if depth < len(self.up) - 1:
                unpool = cast(Product, self.unpools[depth])
                spread = (unpool(x) + unpool.bias).unflatten(-1, (self.pooling, -1)).flatten(1, 2)
                x = spread + skips[depth]
            x = x + late if depth == 0 else x
            x = _stage(stage, x, before, after, reset)
        return x, after


def _stages(stages: nn.ModuleList) -> list[list[FusedBlock]]:
    """The blocks of each depth, finest first."""
    return [[cast(FusedBlock, block) for block in cast(nn.ModuleList, stage)] for stage in stages]


def _stage(blocks: list[FusedBlock], x: Tensor, before: Iterator[Tensor], after: list[Tensor], reset: Tensor) -> Tensor:
    """The blocks of one depth: each but the first is normed together with the sum before it."""
    if not blocks:
        return x
    first = torch.arange(x.shape[1], device=x.device) == 0
    kept = torch.where(reset[:, None] & first, CLOSED, 0.0).to(torch.float32)[..., None]
    normed, pending, added = blocks[0].norm.alone(x), None, None
    for block in blocks:
        if pending is not None:
            normed, x = block.norm(pending, x, cast(Tensor, added))
        pending, x, memory = block(normed, x, next(before), kept)
        added = block.outer.bias
        after.append(memory)
    return x + (cast(Tensor, pending) + cast(Tensor, added))


class FusedGraph(nn.Module):
    """A Picker of the sigmoid gate with flat state: (chunk, valid, reset, *state) to (probabilities, *next state)."""

    def __init__(self, model: Picker, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.dtype, self.config, self.normalizer = dtype, model.config, model.normalizer
        self.names = [name for name, _ in named(model.initial_state(1))]
        self.shapes = [tuple(t.shape[1:]) for _, t in named(model.initial_state(1))]
        self.first, self.second = Windows(model.encoder.first, dtype), Windows(model.encoder.second, dtype)
        self.fine, self.mix = Windows(model.head.fine, dtype), Windows(model.head.mix, dtype)
        self.late, self.expand = Product.of(model.late, dtype), Product.of(model.head.expand, dtype)
        logits = model.head.logits
        self.logits = Product(logits.weight[..., 0].T, cast(Tensor, logits.bias), torch.float32)
        self.norm, self.unet = Norm(model.head.norm, dtype), FusedUNet(model, dtype)

    def forward(self, chunk: Tensor, valid: Tensor, reset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See Picker.probabilities; shapes as PickerSpec says."""
        given = {
            name: tensor
            if name.startswith("unet.")
            else tensor.masked_fill(reset.view(-1, *[1] * (tensor.ndim - 1)), 0.0)
            for name, tensor in zip(self.names, state, strict=True)
        }
        features, normalizer = self.normalizer(chunk, valid, NormalizerState(given["normalizer.sums"]))
        lying = features.transpose(1, 2).to(self.dtype)
        after = {"normalizer.sums": normalizer.sums}
        x, after["encoder.first.tail"] = self.first(lying, given["encoder.first.tail"])
        x = contrib.biased_gelu(x, self.first.product.bias)
        x, after["encoder.second.tail"] = self.second(x, given["encoder.second.tail"])
        tokens = x + self.second.product.bias
        late, after["delay.tail"] = _delayed(tokens, given.get("delay.tail"))
        memories = [given[name] for name in self.names if name.startswith("unet.")]
        tokens, memories = self.unet(tokens, memories, reset, self.late(late) + self.late.bias)
        blocks = (name for name in self.names if name.startswith("unet."))
        after |= dict(zip(blocks, memories, strict=True))
        return (self._head(tokens, lying, given, after), *(after[name] for name in self.names))

    def _head(self, tokens: Tensor, lying: Tensor, given: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
        """Probabilities (B, phases, T); what the head remembers goes into ``after``."""
        context = (self.expand(self.norm.alone(tokens)) + self.expand.bias).unflatten(-1, (self.config.stride, -1))
        late, after["head.delay.tail"] = _delayed(lying, given.get("head.delay.tail"))
        onset, after["head.fine.tail"] = self.fine(late, given["head.fine.tail"])
        x = contrib.biased_gelu(context.flatten(1, 2) + onset, self.fine.product.bias)
        mixed, after["head.mix.tail"] = self.mix(x, given["head.mix.tail"])
        x = x + contrib.biased_gelu(mixed, self.mix.product.bias)
        return torch.softmax(self.logits(x.float()) + self.logits.bias, dim=-1).transpose(1, 2)

    def example(self, rows: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes with ``rows`` rows."""
        chunk = torch.zeros(rows, 3, self.config.chunk_samples)
        state = [torch.zeros(rows, *shape) for shape in self.shapes]
        return (chunk, torch.ones_like(chunk, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool), *state)


def _delayed(x: Tensor, tail: Tensor | None) -> tuple[Tensor, Tensor]:
    """x (B, T, F) later by the steps of ``tail`` (B, F, steps), and the next tail; as it is where there is none."""
    if tail is None:
        return x, x.new_zeros(0)
    steps, length = tail.shape[2], x.shape[1]
    before = tail.transpose(1, 2)
    if steps == length:
        return before.to(x.dtype), x.transpose(1, 2).float()
    x = torch.cat([before.to(x.dtype), x], dim=1)
    return x[:, :length], x[:, length:].transpose(1, 2).float()


def write_fused(model: Picker, path: Path, precision: str = "fp16") -> None:
    """Write the graph with a dynamic batch axis; raises BundleError for a network that has none.

    ``precision`` is that of products and activations; ONNX Runtime alone can open the file.
    """
    if not all(isinstance(cell, SigmoidState) for cell in model.initial_state(1).unet.blocks):
        raise BundleError(f"{path}: not written: the fused graph is there for the sigmoid gate only")
    if precision not in FUSED_PRECISIONS:
        raise BundleError(f"{path}: not written: the fused graph is in {' or '.join(FUSED_PRECISIONS)}")
    translate(FusedGraph(model, PRECISIONS[precision]), path)
