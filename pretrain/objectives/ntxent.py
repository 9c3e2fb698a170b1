"""NT-Xent on two augmented views of each window (SimCLR, arXiv 2002.05709)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from picker.model.config import ModelConfig
from pretrain.objectives import ranks
from pretrain.objectives.infonce import Candidates, infonce
from pretrain.objectives.objective import Batch, Objective, Outcome, Progress, register
from pretrain.objectives.similarity import SIMILARITIES, SimilarityName
from pretrain.objectives.temperature import Temperature, TemperatureSettings
from pretrain.objectives.views import two_views


class NTXentSettings(BaseModel):
    """What the views are and how they are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    crop: float = Field(default=0.75, gt=0, le=1, description="share of the window that a view shows, in whole chunks")
    hidden: int = Field(default=256, ge=1, description="width of the projection's hidden layer")
    projection: int = Field(default=128, ge=1, description="size in which views are compared")
    temperature: TemperatureSettings = TemperatureSettings()
    similarity: SimilarityName = "cosine"


@register("ntxent")
class NTXent(Objective):
    """Which of the other views of the batch is of the same window? Negatives are those of the own rank."""

    Settings = NTXentSettings

    def __init__(self, config: ModelConfig, settings: NTXentSettings) -> None:
        super().__init__(config)
        self.settings, width = settings, self.backbone.width
        self.norm = nn.LayerNorm(width)
        self.project = nn.Sequential(
            nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, settings.projection)
        )
        self.temperature = Temperature(settings.temperature)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean context of the frames that have data, projected (B, D), and the rows (B,) that have any."""
        features = self.backbone.features(batch.waveform, batch.valid)
        frames = self.backbone.frames(features)
        context = ranks.precise(self.norm(self.backbone.context(self.backbone.tokens(features))))
        mean = (context * frames[..., None]).sum(1) / frames.sum(1, keepdim=True).clamp(min=1)
        return self.project(mean), frames.any(1)

    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """``count`` is the number of views whose other view has data too."""
        chunk, samples = self.backbone.config.chunk_samples, batch.waveform.shape[-1]
        views = two_views(batch, max(chunk, int(self.settings.crop * samples) // chunk * chunk), generator)
        embedded, present = self.embed(views)
        with torch.autocast(embedded.device.type, enabled=False):
            embedded = ranks.precise(embedded)
            candidates = compare(SIMILARITIES[self.settings.similarity](embedded, embedded), present)
            both = present & present.roll(len(batch.waveform))
            contrast = infonce(candidates, self.temperature(progress.share), both)
        return Outcome(contrast.loss_sum, contrast.count, statistics=contrast.statistics())

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means a view."""
        count = statistics["count"].clamp(min=1)
        names = {"loss": "loss_sum", "accuracy": "correct", "mutual_information": "bound"}
        means = {name: statistics[key] / count for name, key in names.items()}
        return means | {"valid_negatives": statistics["valid_negatives"] / count, "views": statistics["count"]}

    def after_step(self, progress: Progress) -> dict[str, Tensor]:
        """Bounds the temperature."""
        self.temperature.bound()
        return {}


def compare(matrix: Tensor, present: Tensor) -> Candidates:
    """Similarities (2 B, 2 B) of all views: the positive is the other view, negatives all others that are present."""
    rows = torch.arange(len(matrix), device=matrix.device)
    other = rows.roll(len(rows) // 2)
    kept = (rows != rows[:, None]) & (rows != other[:, None]) & present
    return Candidates(matrix.gather(1, other[:, None])[:, 0], matrix, kept)
