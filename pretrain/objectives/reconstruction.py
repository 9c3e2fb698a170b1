"""Reconstruction of masked spans."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from picker.model.config import ModelConfig
from pretrain.objectives.delay import DELAYS, allowed_delays, draw_delay
from pretrain.objectives.masking import MaskSettings, span_mask
from pretrain.objectives.objective import Batch, Objective, Outcome, Progress, register
from pretrain.objectives.signal import SignalHead, signal_metrics, signal_of, signal_outcome


class ReconstructionSettings(BaseModel):
    """What is masked, and when it is asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask: MaskSettings = MaskSettings()
    delays: tuple[int, ...] = Field(default=DELAYS, min_length=1, description="tokens from a frame to its prediction")


@register("reconstruction")
class Reconstruction(Objective):
    """The normalised signal of masked frames, read L frames later.

    Spans are masked in the normalised samples, as if they were gaps, and not in the tokens: the tokens after a span
    overlap its last samples, and would give them away.
    """

    Settings = ReconstructionSettings

    def __init__(self, config: ModelConfig, settings: ReconstructionSettings) -> None:
        super().__init__(config)
        self.settings, self.stride = settings, config.stride
        self.delays = allowed_delays(settings.delays, config)
        self.head = SignalHead(self.backbone.width, config.stride)

    def predict(self, features: Tensor, mask: Tensor) -> Tensor:
        """The signal (B, T, A) read at each frame from features (B, 9, N) without the masked (B, T) frames."""
        hidden = mask.repeat_interleave(self.stride, dim=1)[:, None]
        predicted: Tensor = self.head(self.backbone.context(self.backbone.tokens(features.masked_fill(hidden, 0.0))))
        return predicted

    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """``count`` is the number of masked values whose prediction lies inside the window."""
        features = self.backbone.features(batch.waveform, batch.valid)
        mask = span_mask(self.backbone.frames(features), self.settings.mask, generator)
        delay = draw_delay(self.delays, generator, features)
        signal, counted = signal_of(features, self.stride)
        place = torch.arange(mask.shape[1], device=mask.device) + delay
        counted = counted & (mask & (place < mask.shape[1]))[..., None]
        predicted = self.predict(features, mask)[:, place.clamp(max=mask.shape[1] - 1)]
        return signal_outcome(predicted, signal, counted)

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss a value and what is explained of it."""
        return signal_metrics(statistics)
