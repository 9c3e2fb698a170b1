"""Sizes of the network and the presets that figures are compared by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from picker.errors import ConfigError

Gate = Literal["sigmoid", "exponential"]
STRIDE = 4
"""Samples a token of the finest level: the encoder is two convolutions of stride 2."""


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One rate of the U-Net: width, heads, and mLSTM blocks before and after the coarser level."""

    width: int
    heads: int
    down_blocks: int
    up_blocks: int

    def __post_init__(self) -> None:
        if min(self.width, self.heads) < 1 or min(self.down_blocks, self.up_blocks) < 0:
            raise ConfigError(f"level {self}: width and heads must be at least 1, and blocks not negative")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The whole network. ``levels`` go from 25 tokens/s to the coarsest; each is ``pooling`` times slower.

    S is judged ``second_look_samples`` later than P, and filtered; 0 is at the same time (see ``picker.model.head``).
    """

    name: str
    levels: tuple[LevelConfig, ...]
    encoder_features: int
    head_features: int
    lookahead_samples: int = 64
    second_look_samples: int = 0
    chunk_samples: int = 64
    stride: int = STRIDE
    pooling: int = 4
    gate: Gate = "sigmoid"
    key_size: int = 32
    value_size: int = 64
    feedforward_factor: float = 2.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError(f"model {self.name!r}: levels is empty; give at least one")
        for key in ("encoder_features", "head_features", "chunk_samples", "pooling"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model {self.name!r}: {key} is {getattr(self, key)}; it must be at least 1")
        if self.stride != STRIDE:
            raise ConfigError(f"model {self.name!r}: stride is {self.stride}; the encoder has two convolutions of 2: 4")
        coarsest = self.stride * self.pooling ** (len(self.levels) - 1)
        if self.chunk_samples % coarsest:
            raise ConfigError(
                f"model {self.name!r}: a chunk of {self.chunk_samples} samples does not hold a whole number of tokens "
                f"of the coarsest level ({coarsest} samples each); use fewer levels or a smaller `pooling`"
            )
        if self.lookahead_samples < 0 or self.lookahead_samples % self.stride:
            raise ConfigError(
                f"model {self.name!r}: lookahead_samples is {self.lookahead_samples}; it must be a multiple of "
                f"{self.stride} and not negative"
            )
        if self.second_look_samples < 0 or self.second_look_samples % self.stride:
            raise ConfigError(
                f"model {self.name!r}: second_look_samples is {self.second_look_samples}; it must be a multiple of "
                f"{self.stride} and not negative"
            )
        if self.gate not in ("sigmoid", "exponential"):
            raise ConfigError(f"model {self.name!r}: gate is {self.gate!r}; use 'sigmoid' or 'exponential'")
        for key in ("key_size", "value_size"):
            size = getattr(self, key)
            if size < 16 or size & (size - 1):
                raise ConfigError(
                    f"model {self.name!r}: {key} is {size}; the Triton kernels need a power of two of at least 16"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and ``spec.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of ``to_dict``."""
        levels = tuple(LevelConfig(**level) for level in values["levels"])
        return cls(**{**values, "levels": levels})


PRESETS: dict[str, ModelConfig] = {
    "small": ModelConfig(
        name="small",
        levels=(
            LevelConfig(width=96, heads=2, down_blocks=1, up_blocks=1),
            LevelConfig(width=160, heads=3, down_blocks=1, up_blocks=1),
            LevelConfig(width=192, heads=3, down_blocks=1, up_blocks=1),
        ),
        encoder_features=64,
        head_features=32,
    ),
    "base": ModelConfig(
        name="base",
        levels=(
            LevelConfig(width=192, heads=4, down_blocks=1, up_blocks=2),
            LevelConfig(width=272, heads=4, down_blocks=1, up_blocks=2),
            LevelConfig(width=320, heads=5, down_blocks=1, up_blocks=1),
        ),
        encoder_features=256,
        head_features=48,
    ),
    "large": ModelConfig(
        name="large",
        levels=(
            LevelConfig(width=320, heads=6, down_blocks=1, up_blocks=2),
            LevelConfig(width=512, heads=8, down_blocks=2, up_blocks=2),
            LevelConfig(width=640, heads=10, down_blocks=2, up_blocks=1),
        ),
        encoder_features=256,
        head_features=64,
    ),
}
"""``small`` for a CPU, ``base`` for accuracy, ``large`` for pretraining studies."""


def preset(name: str) -> ModelConfig:
    """The preset of that name; raises ConfigError that lists the names."""
    if name not in PRESETS:
        raise ConfigError(f"model preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
