"""One residual block of the backbone: mLSTM, then a feed-forward layer, each behind a layer norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.cell import CELLS, Cell, CellState, initial_cell_state
from picker.model.config import LevelConfig, ModelConfig

FORGET_BIAS = (3.0, 6.0)
"""Forget-gate biases are spread over the heads: memories from about 20 to 400 tokens at the start of training."""
INPUT_BIAS = -2.0
FADING_SAMPLES = 6000
"""However open a forget gate, a memory fades by e in a minute: windows of training are no longer, so what an older one
does was never learnt, and after hours of stream it is mostly that."""
NORM_EPSILON = 1e-5


class MLSTMBlock(nn.Module):
    """Tokens (B, T, F) to (B, T, F). ``cell`` may be replaced by a faster kernel of the same function.

    A kernel that only starts afresh wants ``shared_zeros``: empty memories that it can tell from carried ones.
    """

    def __init__(self, config: ModelConfig, level: LevelConfig, chunk_tokens: int, cell: Cell | None = None) -> None:
        super().__init__()
        self.gate, self.heads, self.keys, self.values = config.gate, level.heads, config.key_size, config.value_size
        self.chunk_tokens = chunk_tokens
        self.fading = config.chunk_samples / chunk_tokens / FADING_SAMPLES
        self.cell, self.shared_zeros = cell or CELLS[config.gate], False
        inner, hidden = self.heads * self.values, int(config.feedforward_factor * level.width)
        self.sizes = [self.heads * self.keys] * 2 + [inner] * 2 + [self.heads] * 2
        self.norm = nn.LayerNorm(level.width)
        self.project = nn.Linear(level.width, sum(self.sizes))
        self.out = nn.Linear(inner, level.width)
        self.feedforward_norm = nn.LayerNorm(level.width)
        self.feedforward_in = nn.Linear(level.width, hidden)
        self.feedforward_out = nn.Linear(hidden, level.width)
        self.dropout = nn.Dropout(config.dropout)
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Gate biases as the xLSTM papers set them; gate weights start at zero."""
        gates = 2 * self.heads
        self.project.weight[-gates:].zero_()
        self.project.bias[-gates : -self.heads].fill_(INPUT_BIAS)
        self.project.bias[-self.heads :].copy_(torch.linspace(*FORGET_BIAS, self.heads))

    def initial_state(self, batch: int, like: Tensor) -> CellState:
        """The empty memory."""
        return initial_cell_state(self.gate, batch, self.heads, self.keys, self.values, like, self.shared_zeros)

    def forward(self, x: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """x (B, T, F); the state is float32 in and out whatever autocast says."""
        q, k, v, o, i, f = self.project(self.norm(x)).split(self.sizes, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            precise = torch.promote_types(q.dtype, torch.float32)
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
            i, f = (t.to(precise).transpose(1, 2) for t in (i, f))
            h, state = self.cell(q, k, v, i, self.faded(f), state, self._chunk(x.shape[1]))
            h = F.layer_norm(h.to(precise), (self.values,), eps=NORM_EPSILON).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(torch.sigmoid(o) * h.to(o.dtype)))
        hidden = F.gelu(self.feedforward_in(self.feedforward_norm(x)), approximate="tanh")
        return x + self.dropout(self.feedforward_out(hidden)), state

    def faded(self, f: Tensor) -> Tensor:
        """The gate whose log sigmoid is that of ``f`` less the fading of a token: any cell or kernel takes it."""
        highest = -math.log(math.expm1(self.fading))
        return highest + F.logsigmoid(f - (highest + self.fading))

    def _chunk(self, tokens: int) -> int:
        """Tokens a chunk of the cell: those of a model chunk when serving, 64 where a longer input allows it."""
        return 64 if tokens % 64 == 0 else self.chunk_tokens
