"""The xLSTM U-Net: mLSTM blocks at 25, 6.25 and 1.5625 tokens/s with skip connections.

Down- and up-sampling are aligned with the chunk: ``pooling`` tokens become one, and one becomes ``pooling`` again, so
a chunk of 64 samples is 16, 4 and 1 tokens and nothing crosses the border of a chunk but the state.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from picker.model.block import MLSTMBlock
from picker.model.cell import CellState
from picker.model.config import ModelConfig


class UNetState(NamedTuple):
    """Cell states in the order the blocks run: down each level, then up again."""

    blocks: tuple[CellState, ...]


class Pool(nn.Module):
    """(B, T, F) to (B, T / pooling, G): a learned weighted mean a feature, then a linear map."""

    def __init__(self, inputs: int, outputs: int, pooling: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((pooling, inputs), 1 / pooling))
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """T must be a multiple of the pooling."""
        pooling = self.weight.shape[0]
        pooled: Tensor = self.linear((x.unflatten(1, (-1, pooling)) * self.weight).sum(2))
        return pooled


class Unpool(nn.Module):
    """(B, T, G) to (B, T * pooling, F): a linear map, then a learned weight for each place in the group."""

    def __init__(self, inputs: int, outputs: int, pooling: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.weight = nn.Parameter(torch.ones(pooling, outputs) + 0.1 * torch.randn(pooling, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The inverse shape of Pool."""
        spread: Tensor = self.linear(x)[:, :, None] * self.weight
        return spread.flatten(1, 2)


class XLSTMUNet(nn.Module):
    """Tokens (B, T, F) of the finest level to tokens of the same shape."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.pools, self.unpools = nn.ModuleList(), nn.ModuleList()
        for depth, level in enumerate(config.levels):
            tokens = config.chunk_samples // (config.stride * config.pooling**depth)
            self.down.append(nn.ModuleList(MLSTMBlock(config, level, tokens) for _ in range(level.down_blocks)))
            self.up.append(nn.ModuleList(MLSTMBlock(config, level, tokens) for _ in range(level.up_blocks)))
        for fine, coarse in zip(config.levels, config.levels[1:], strict=False):
            self.pools.append(Pool(fine.width, coarse.width, config.pooling))
            self.unpools.append(Unpool(coarse.width, fine.width, config.pooling))

    def blocks(self) -> list[MLSTMBlock]:
        """Every block in running order."""
        stages = [*_blocks(self.down), *reversed(_blocks(self.up))]
        return [block for stage in stages for block in stage]

    def initial_state(self, batch: int, like: Tensor) -> UNetState:
        """Empty memories."""
        return UNetState(tuple(block.initial_state(batch, like) for block in self.blocks()))

    def forward(self, x: Tensor, state: UNetState, late: Tensor | None = None) -> tuple[Tensor, UNetState]:
        """``late`` (B, T, F), if given, joins the finest level on the way up (delayed tokens, see the pick head)."""
        before, after = iter(state.blocks), []
        skips: list[Tensor] = []
        for depth, stage in enumerate(_blocks(self.down)):
            if depth:
                x = self.pools[depth - 1](x)
            for block in stage:
                x, cell = block(x, next(before))
                after.append(cell)
            skips.append(x)
        for depth, stage in reversed(list(enumerate(_blocks(self.up)))):
            if depth < len(self.up) - 1:
                x = self.unpools[depth](x) + skips[depth]
            if depth == 0 and late is not None:
                x = x + late
            for block in stage:
                x, cell = block(x, next(before))
                after.append(cell)
        return x, UNetState(tuple(after))


def _blocks(stages: nn.ModuleList) -> list[list[MLSTMBlock]]:
    """The blocks of each depth, finest first."""
    return [[cast(MLSTMBlock, block) for block in cast(nn.ModuleList, stage)] for stage in stages]
