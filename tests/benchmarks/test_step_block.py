"""The block around the kernel: with the kernel's work done by the plain cell it is the network, reset and state too."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from picker.model.block import NORM_EPSILON
from picker.model.cell import SigmoidState, sigmoid_cell
from picker.model.config import preset
from picker.model.picker import Picker


def plain(projected: Tensor, gates: Tensor, state: Any, heads: int) -> tuple[Tensor, Tensor]:
    """What the Triton kernel does, by the plain cell."""
    keys, values = state.memory.shape[2:]
    parts = projected.split([heads * keys] * 2 + [heads * values] * 2, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in parts[:3])
    i, f = (t.transpose(1, 2) for t in gates.chunk(2, dim=-1))
    memory = state.memory.masked_fill(state.reset.bool().view(-1, 1, 1, 1), 0.0)
    h, after = sigmoid_cell(q, k, v, i, f, SigmoidState(memory), projected.shape[1])
    h = F.layer_norm(h, (values,), eps=NORM_EPSILON).transpose(1, 2).flatten(2)
    return torch.sigmoid(parts[3]) * h, after.memory


@torch.no_grad()
def test_the_kernel_in_every_block_is_the_network() -> None:
    """Its state can be taken from the network, and goes through several steps and resets like the network's own."""
    from step_contenders import Buffers, KernelGraph, TorchGraph

    torch.manual_seed(0)
    model = Picker(preset("small")).eval()
    for block in model.unet.blocks():
        block.project.weight[-2 * block.heads :].normal_(std=0.2)
    changed = copy.deepcopy(model)
    graphs = [TorchGraph(model, autocast=False), KernelGraph(changed, plain, torch.float32)]
    assert {type(block).__name__ for block in changed.unet.blocks()} == {"KernelBlock"}
    buffers = Buffers.of(changed, 3, torch.device("cpu"))
    states = [buffers.state[0], buffers.state[1]]
    for k, reset in enumerate(([False] * 3, [False] * 3, [True, False, True], [False] * 3)):
        buffers.feed(k)
        found = []
        for side, graph in enumerate(graphs):
            probabilities, *states[side] = graph(*buffers.given[:2], torch.tensor(reset), *states[side])
            found.append(probabilities)
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=0)
    for mine, theirs in zip(states[1], states[0], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
