"""The picker: samples in, probabilities out, state in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from picker.calibration import PhaseCalibration
from picker.model.after_p import AfterP, AfterPState
from picker.model.causal import Delay, TailState
from picker.model.config import ModelConfig
from picker.model.encoder import EncoderState, FeatureEncoder
from picker.model.head import HeadState, PickHead
from picker.model.matched import REACH_SAMPLES, MatchedFilter
from picker.model.normalizer import NormalizerState, RunningNormalizer
from picker.model.state import clear, describe
from picker.model.unet import UNetState, XLSTMUNet
from picker.spec import PickerSpec


class PickerState(NamedTuple):
    """What a station carries from chunk to chunk; ``matched`` and ``after_p`` are empty without a second look."""

    normalizer: NormalizerState
    encoder: EncoderState
    delay: TailState
    unet: UNetState
    head: HeadState
    matched: TailState
    after_p: AfterPState


class Picker(nn.Module):
    """Logits and probabilities of P, S and noise at 100 Hz, ``lookahead_samples`` late; S later where it is looked at
    twice, by ``second_look_samples`` in logits and by ``later_samples`` in probabilities.

    Causality: a chunk of 64 samples is one step; an output depends on everything up to the end of its own chunk.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.levels[0].width
        self.normalizer = RunningNormalizer(config.chunk_samples)
        self.encoder = FeatureEncoder(config)
        self.delay = Delay(width, config.lookahead_samples // config.stride)
        self.late = nn.Linear(width, width)
        self.unet = XLSTMUNet(config)
        self.head = PickHead(config)
        self.matched = MatchedFilter() if config.second_look_samples else None
        self.after_p = AfterP(self.later_samples) if config.second_look_samples else None

    @property
    def later_samples(self) -> int:
        """Samples by which the probability of S is later than that of P: the second look and the filter behind it."""
        return 0 if self.matched is None else self.config.second_look_samples + REACH_SAMPLES

    def initial_state(self, batch: int, like: Tensor | None = None) -> PickerState:
        """A fresh state (all zeros) of the dtype and on the device of ``like`` or of the parameters."""
        like = next(self.parameters()) if like is None else like
        return PickerState(
            normalizer=self.normalizer.initial_state(batch, like),
            encoder=self.encoder.initial_state(batch, like),
            delay=self.delay.initial_state(batch, like),
            unet=self.unet.initial_state(batch, like),
            head=self.head.initial_state(batch, like),
            **self._second_states(batch, like),
        )

    def _second_states(self, batch: int, like: Tensor) -> dict[str, Any]:
        if self.matched is None or self.after_p is None:
            nothing = TailState(like.new_zeros(batch, 0, 0))
            return {"matched": nothing, "after_p": AfterPState(nothing.tail, nothing)}
        return {
            "matched": self.matched.initial_state(batch, like),
            "after_p": self.after_p.initial_state(batch, like),
        }

    def forward(
        self, chunk: Tensor, valid: Tensor, reset: Tensor | None = None, state: PickerState | None = None
    ) -> tuple[Tensor, Tensor | None, PickerState]:
        """Logits (B, 3, T), those of S at the second look (B, 1, T; None without one), and the next state.

        chunk (B, C, T) samples with the offset removed, T a multiple of 64; valid (B, C, T) bool; reset (B,) bool
        clears a row's state before the chunk. A sample that is not finite (or absurdly large) counts as not valid and
        never reaches the recurrence.
        """
        state = self.initial_state(chunk.shape[0], chunk) if state is None else state
        if reset is not None:
            state = clear(state, reset)
        features, normalizer = self.normalizer(chunk, valid, state.normalizer)
        tokens, encoder = self.encoder(features, state.encoder)
        late, delay = self.delay(tokens.transpose(1, 2), state.delay)
        tokens, unet = self.unet(tokens, state.unet, self.late(late.transpose(1, 2)))
        logits, later, head = self.head(tokens, features, state.head)
        return logits, later, PickerState(normalizer, encoder, delay, unet, head, state.matched, state.after_p)

    def probabilities(
        self, chunk: Tensor, valid: Tensor, reset: Tensor | None = None, state: PickerState | None = None
    ) -> tuple[Tensor, PickerState]:
        """Probabilities (B, 3, T) and the next state; S is that of the second look where there is one, filtered and
        weighed by how lately there was a P."""
        logits, later, after = self(chunk, valid, reset, state)
        first = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        if later is None or self.matched is None or self.after_p is None:
            return first, after
        second, matched = self.matched(torch.sigmoid(later.to(first.dtype)), after.matched)
        second, after_p = self.after_p(first[:, :1], second, after.after_p)
        after = after._replace(matched=matched, after_p=after_p)
        return torch.cat([first[:, :1], second, first[:, 2:]], dim=1), after


def specification(
    model: Picker,
    *,
    name: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    calibration: Mapping[str, PhaseCalibration] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> PickerSpec:
    """The specification of the model's bundle; by default the configuration's name and PickerSpec's thresholds."""
    config = model.config
    given: dict[str, Any] = {} if thresholds is None else {"thresholds": dict(thresholds)}
    if model.later_samples:
        given["second_look_samples"] = {"S": model.later_samples}
    return PickerSpec(
        name=name or config.name,
        lookahead_samples=config.lookahead_samples,
        chunk_samples=config.chunk_samples,
        state=describe(model.initial_state(1)),
        calibration=dict(calibration or {}),
        provenance=dict(provenance or {}),
        **given,
    )
