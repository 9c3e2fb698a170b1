"""Contrastive prediction of quantized masked frames (wav2vec 2.0, arXiv 2006.11477) under a causal backbone.

tokens -> spans replaced by an embedding -> dropout -> backbone -> projection, compared with the code vectors of the
unmasked tokens. The prediction for frame t is read at t + L (``delay.py``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from picker.model.config import ModelConfig
from pretrain.objectives import ranks
from pretrain.objectives.delay import DELAYS, allowed_delays, draw_delay
from pretrain.objectives.diversity import codebook_metrics, diversity
from pretrain.objectives.frames import pack, take
from pretrain.objectives.gradient import scale_gradient
from pretrain.objectives.infonce import infonce
from pretrain.objectives.masking import MaskSettings, most_masked, span_mask
from pretrain.objectives.negatives import STRATEGIES, NegativeSettings, Targets
from pretrain.objectives.objective import (
    Batch,
    Objective,
    Outcome,
    ParameterGroup,
    Progress,
    register,
    split_groups,
)
from pretrain.objectives.quantizer import Quantized, Quantizer, QuantizerSettings
from pretrain.objectives.similarity import SIMILARITIES, SimilarityName
from pretrain.objectives.temperature import Temperature, TemperatureSettings


class ContrastiveSettings(BaseModel):
    """Everything that shapes the objective; the defaults are those of Config 2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask: MaskSettings = MaskSettings()
    quantizer: QuantizerSettings = QuantizerSettings()
    negatives: NegativeSettings = NegativeSettings()
    temperature: TemperatureSettings = TemperatureSettings()
    similarity: SimilarityName = "cosine"
    projection: int = Field(default=256, ge=1, description="size in which predictions and targets are compared")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of the masked tokens, before the backbone")
    delays: tuple[int, ...] = Field(default=DELAYS, min_length=1, description="tokens from a frame to its prediction")
    diversity_weight: float = Field(default=0.1, ge=0, description="too low: few codes used; too high: no structure")
    diversity_until: float = Field(default=1.0, gt=0, le=1, description="share of the codes beyond which none is asked")
    penalty_weight: float = Field(default=1.0, ge=0, description="of the mean square of the tokens")
    encoder_gradient: float = Field(default=0.1, gt=0, le=1, description="factor of the encoder's gradient")
    quantizer_rate: float = Field(default=0.5, gt=0, description="its share of the peak learning rate")
    revive_every: int = Field(default=0, ge=0, description="steps after which dead codes are drawn anew; 0 is never")


@register("contrastive")
class Contrastive(Objective):
    """The default objective. The mask embedding, projections and the quantizer are thrown away after training."""

    Settings = ContrastiveSettings

    def __init__(self, config: ModelConfig, settings: ContrastiveSettings) -> None:
        super().__init__(config)
        self.settings, width = settings, self.backbone.width
        self.delays = allowed_delays(settings.delays, config)
        self.mask_embedding = nn.Parameter(0.1 * torch.randn(width))
        self.dropout = nn.Dropout(settings.dropout)
        self.token_norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.quantizer = Quantizer(width, settings.quantizer)
        self.project_target = nn.Linear(settings.quantizer.size, settings.projection)
        self.project_context = nn.Linear(width, settings.projection)
        similarity = SIMILARITIES[settings.similarity]
        self.negatives = STRATEGIES[settings.negatives.kind](settings.negatives, settings.projection, similarity)
        self.temperature = Temperature(settings.temperature)

    def forward(self, batch: Batch, progress: Progress, generator: torch.Generator) -> Outcome:
        """``count`` is the number of masked frames whose prediction lies inside the window."""
        settings = self.settings
        features = self.backbone.features(batch.waveform, batch.valid)
        tokens = scale_gradient(self.backbone.tokens(features), settings.encoder_gradient)
        mask = span_mask(self.backbone.frames(features), settings.mask, generator)
        delay = draw_delay(self.delays, generator, tokens)
        last = mask.shape[1] - 1 - delay
        inside = torch.arange(mask.shape[1], device=mask.device) <= last
        packed = pack(mask & inside, most_masked(mask.shape[1], settings.mask))
        index, present = packed.index, packed.present
        masked = torch.where(mask[..., None], self.mask_embedding.to(tokens.dtype), tokens)
        context = take(self.backbone.context(self.dropout(masked)), (index + delay).clamp(max=mask.shape[1] - 1))
        target = take(tokens, index)
        gumbel = settings.quantizer.temperature(progress.step, progress.share)
        normed = self.token_norm(target)
        # Off around the calls too, not only inside: compiled code would else run their backward in bfloat16.
        with torch.autocast(tokens.device.type, enabled=False):
            quantized = self.quantizer(normed, present, gumbel, generator)
            predictions = self.project_context(self.context_norm(ranks.precise(context)))
            targets = Targets(self.project_target(quantized.vectors), quantized.codes, present)
            temperature = self.temperature(progress.share)
            contrast = infonce(self.negatives(predictions, targets, generator), temperature, present)
            square = (ranks.precise(target).square().mean(-1) * present).sum()
            spread = diversity(quantized.soft, contrast.count, self.training, settings.diversity_until)
        settled = {
            "feature_square": square.detach(),
            "delay": delay[0] * contrast.count,
            "temperature": contrast.count * _number(temperature),
            "gumbel_temperature": gumbel * contrast.count,
            "diversity": spread.value * contrast.count,
        }
        extras = {"diversity": settings.diversity_weight * spread.total, "penalty": settings.penalty_weight * square}
        statistics = contrast.statistics() | settled | _codes(quantized)
        return Outcome(contrast.loss_sum, contrast.count, extras, statistics)

    def metrics(self, statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Means a frame, the feature scale (root mean square of the tokens), and what the codebook is used for.

        ``loss`` is the contrastive loss alone, ``mutual_information`` the bound log(n + 1) - loss in nats.
        """
        count = statistics["count"].clamp(min=1)
        same = ("valid_negatives", "delay", "temperature", "gumbel_temperature", "diversity")
        return {
            "loss": statistics["loss_sum"] / count,
            "accuracy": statistics["correct"] / count,
            "mutual_information": statistics["bound"] / count,
            "feature_scale": (statistics["feature_square"] / count).sqrt(),
            "frames": statistics["count"],
            **{name: statistics[name] / count for name in same},
            **codebook_metrics(statistics["soft"], statistics["hard"], statistics["count"]),
        }

    def codes(self, batch: Batch) -> Tensor:
        """The likeliest code of each group for every frame, (B, T, G)."""
        tokens = self.backbone.tokens(self.backbone.features(batch.waveform, batch.valid))
        return self.quantizer.codes(self.token_norm(tokens))

    def parameter_groups(self) -> list[ParameterGroup]:
        """The quantizer has a rate of its own, and its codebook does not decay: a code vector has no reason to be 0."""
        codebook = self.quantizer.codebook
        apart = set(self.quantizer.parameters())
        rate = self.settings.quantizer_rate
        return [
            *split_groups("backbone", (p for p in self.parameters() if p not in apart)),
            *split_groups("quantizer", (p for p in self.quantizer.parameters() if p is not codebook), rate),
            ParameterGroup("codebook", [codebook], rate, False),
        ]

    def after_step(self, progress: Progress) -> dict[str, Tensor]:
        """Bounds the temperature, fills the bank, and revives dead codes when it is time."""
        self.temperature.bound()
        self.negatives.after_step()
        every = self.settings.revive_every
        if every and progress.step and progress.step % every == 0:
            return {"revived_codes": self.quantizer.revive(progress.step).sum()}
        return {}


def _number(temperature: Tensor | float) -> Tensor | float:
    # A plain number stays one: as a tensor it would have to be copied to the device, for which the host waits.
    return temperature.detach() if isinstance(temperature, Tensor) else temperature


def _codes(quantized: Quantized) -> dict[str, Tensor]:
    return {"soft": quantized.soft.detach(), "hard": quantized.hard}
