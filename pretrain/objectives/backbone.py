"""The picker less its head: what is pretrained is what streams.

Modules have the names that they have in ``picker.model.picker.Picker``, so weights go over by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from picker.errors import ConfigError
from picker.model.causal import Delay
from picker.model.config import ModelConfig
from picker.model.encoder import FeatureEncoder
from picker.model.normalizer import RunningNormalizer
from picker.model.picker import Picker
from picker.model.unet import XLSTMUNet


class Backbone(nn.Module):
    """Waveforms to normalised features, to tokens, to context; each from a fresh state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.levels[0].width
        self.normalizer = RunningNormalizer(config.chunk_samples)
        self.encoder = FeatureEncoder(config)
        self.delay = Delay(width, config.lookahead_samples // config.stride)
        self.late = nn.Linear(width, width)
        self.unet = XLSTMUNet(config)

    @property
    def width(self) -> int:
        """Features of a token and of its context."""
        return self.config.levels[0].width

    @property
    def horizon(self) -> int:
        """Tokens that see each other through the pooling: the context of t knows up to the end of its group of these.

        A prediction that must not have seen its target lies at least this far ahead.
        """
        return int(self.config.pooling ** (len(self.config.levels) - 1))

    def features(self, waveform: Tensor, valid: Tensor) -> Tensor:
        """Samples (B, 3, N) to normalised features (B, 9, N). N must be a multiple of the chunk."""
        if waveform.shape[-1] % self.config.chunk_samples:
            raise ValueError(
                f"windows have {waveform.shape[-1]} samples; that must be a multiple of {self.config.chunk_samples}"
            )
        state = self.normalizer.initial_state(len(waveform), waveform)
        features: Tensor = self.normalizer(waveform, valid, state)[0]
        return features

    def tokens(self, features: Tensor) -> Tensor:
        """Normalised features (B, 9, N) to tokens (B, T, F)."""
        tokens: Tensor = self.encoder(features, self.encoder.initial_state(len(features), features))[0]
        return tokens

    def context(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, F), masked or not, to context (B, T, F)."""
        # State is float32 whatever autocast made of the tokens.
        like = tokens.new_empty(0, dtype=torch.promote_types(tokens.dtype, torch.float32))
        late, _ = self.delay(tokens.transpose(1, 2), self.delay.initial_state(len(tokens), tokens))
        state = self.unet.initial_state(len(tokens), like)
        context: Tensor = self.unet(tokens, state, self.late(late.transpose(1, 2)))[0]
        return context

    def frames(self, features: Tensor) -> Tensor:
        """Frames (B, T) all of whose samples have data in some component."""
        flags: Tensor = known(features).any(1).unflatten(-1, (-1, self.config.stride)).all(-1)
        return flags

    def forward(self, waveform: Tensor, valid: Tensor) -> Tensor:
        """Context (B, T, F) of whole, unmasked waveforms."""
        return self.context(self.tokens(self.features(waveform, valid)))


def known(features: Tensor) -> Tensor:
    """The valid flags (B, 3, N) among normalised features (B, 9, N): which samples the network takes as data."""
    return features[:, 6:] > 0


def transfer(backbone: Backbone, picker: Picker) -> None:
    """Pretrained weights into a picker, whose head stays as it is; raises ConfigError where they do not fit."""
    try:
        missing, unexpected = picker.load_state_dict(backbone.state_dict(), strict=False)
        wrong = ", ".join([name for name in missing if not name.startswith("head.")] + unexpected)
    except RuntimeError as error:
        wrong = str(error)
    if wrong:
        raise ConfigError(
            f"pretrained {backbone.config.name!r} does not fit the picker {picker.config.name!r}: {wrong}; "
            "use the preset, gate and pooling that it was pretrained with"
        )
