"""A pretrained backbone made ready to be given away: 16-bit weights, and what that costs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ
from pretrain.objectives.backbone import Backbone
from pretrain.objectives.backbone_file import BACKBONE, load_backbone, save_backbone

WINDOWS, WINDOW_S = 4, 20.48
MOST_DIFFERENCE = 0.01
"""Of the contexts in 16 bits from those in 32, relative: beyond it 16 bits are not harmless."""


@dataclass(frozen=True)
class Released:
    """Weights on disk.

    ``difference`` is the root mean square by which the contexts of the file differ from those of the run, over that of
    the contexts themselves. ``provenance`` is what the run wrote beside its weights.
    """

    name: str
    path: Path
    digest: str
    size_bytes: int
    parameters: int
    difference: float
    provenance: dict[str, Any]


def release(run: Path, out: Path, whole: bool = False) -> Released:
    """Write the backbone of ``run`` to ``out/<preset>.safetensors``, in float16 or ``whole`` in float32.

    Raises ConfigError where the run has no backbone, or 16 bits would change what it computes.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: no such folder; name the folder of a run of `pretrain run`")
    backbone, provenance = load_backbone(run / BACKBONE)
    name = backbone.config.name
    path = out / f"{name}.safetensors"
    dtype = torch.float32 if whole else torch.float16
    difference = _difference(backbone, _rounded(backbone, dtype))
    if not difference <= MOST_DIFFERENCE:
        raise ConfigError(
            f"{run / BACKBONE}: in 16 bits its contexts would differ by {difference:.2g} (at most "
            f"{MOST_DIFFERENCE:g} is harmless); use --float32"
        )
    save_backbone(path, backbone, provenance, dtype)
    data = path.read_bytes()
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Released(name, path, hashlib.sha256(data).hexdigest(), len(data), parameters, difference, provenance)


def _rounded(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """The same network with the weights that a file of ``dtype`` gives back."""
    other = Backbone(backbone.config).eval()
    state = {
        name: value.to(dtype).to(value.dtype) if value.is_floating_point() else value
        for name, value in backbone.state_dict().items()
    }
    other.load_state_dict(state)
    return other


@torch.no_grad()
def _difference(backbone: Backbone, other: Backbone) -> float:
    """How far apart the contexts of two networks are on windows of noise with an onset in it."""
    waveform = _probe(backbone.config.chunk_samples)
    valid = torch.ones_like(waveform, dtype=torch.bool)
    expected, found = backbone(waveform, valid), other(waveform, valid)
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def _probe(chunk_samples: int) -> Tensor:
    """Windows (B, 3, N) of noise that grows a hundredfold half-way and dies away."""
    samples = int(WINDOW_S * RATE_HZ) // chunk_samples * chunk_samples
    noise = torch.randn(WINDOWS, 3, samples, generator=torch.Generator().manual_seed(0))
    since_s = (torch.arange(samples) - samples // 2) / RATE_HZ
    return noise * (1 + 99 * torch.exp(-since_s / 2) * (since_s >= 0))
