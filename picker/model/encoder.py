"""The convolutional feature encoder: two causal convolutions of stride 2, 100 Hz to 25 tokens/s.

It feeds the backbone here and the quantizer in pretraining (wav2vec 2.0, arXiv 2006.11477).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.causal import CausalConv1d, TailState
from picker.model.config import ModelConfig
from picker.model.normalizer import FEATURES


class EncoderState(NamedTuple):
    """Tails of the two convolutions."""

    first: TailState
    second: TailState


class FeatureEncoder(nn.Module):
    """Normalised features (B, 9, T) to tokens (B, T / 4, F) of the finest level's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.first = CausalConv1d(FEATURES, config.encoder_features, kernel=8, stride=2)
        self.second = CausalConv1d(config.encoder_features, config.levels[0].width, kernel=6, stride=2)

    def initial_state(self, batch: int, like: Tensor) -> EncoderState:
        """Silence before the first sample."""
        return EncoderState(self.first.initial_state(batch, like), self.second.initial_state(batch, like))

    def forward(self, x: Tensor, state: EncoderState) -> tuple[Tensor, EncoderState]:
        """T must be a multiple of 4."""
        x, first = self.first(x, state.first)
        x, second = self.second(F.gelu(x, approximate="tanh"), state.second)
        return x.transpose(1, 2), EncoderState(first, second)
