"""Prediction of the next frame that the network has not seen (Config 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from picker.model.config import ModelConfig
from pretrain.objectives.objective import Batch, NoSettings, Objective, Outcome, Progress, register
from pretrain.objectives.signal import SignalHead, signal_metrics, signal_of, signal_outcome


@register("autoregressive")
class Autoregressive(Objective):
    """From the context of frame t, the normalised signal of frame t + ``horizon``.

    The next frame would not do: pooling shows a token the rest of its group, so t + 1 has mostly been seen. One whole
    group ahead (16 tokens with three levels and pooling by 4) no frame has.
    """

    def __init__(self, config: ModelConfig, settings: NoSettings) -> None:
        super().__init__(config)
        self.stride = config.stride
        self.head = SignalHead(self.backbone.width, config.stride)

    def predict(self, features: Tensor) -> Tensor:
        """Predictions (B, T - horizon, A) of the frames from ``horizon`` on, from features (B, 9, N)."""
        predicted: Tensor = self.head(self.backbone.context(self.backbone.tokens(features)))
        return predicted[:, : predicted.shape[1] - self.backbone.horizon]

    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """``count`` is the number of values predicted; draws nothing."""
        features = self.backbone.features(batch.waveform, batch.valid)
        signal, counted = signal_of(features, self.stride)
        ahead = self.backbone.horizon
        return signal_outcome(self.predict(features), signal[:, ahead:], counted[:, ahead:])

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss a value and what is explained of it."""
        return signal_metrics(statistics)
