"""A pretrained backbone made ready to be given away: weights in fewer bits, and what that costs."""

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
from pretrain.objectives.backbone_file import BACKBONE, load_backbone, restored, save_backbone, stored

WINDOWS, WINDOW_S = 4, 20.48
DTYPES = {8: torch.int8, 16: torch.float16, 32: torch.float32}
MOST_DIFFERENCE = {8: 0.05, 16: 0.01, 32: 0.0}
"""Of the contexts in so many bits from those in 32, relative: beyond it they are not harmless.

A start for fine-tuning bears more than what is served: the dropout of its first step moves contexts far more.
"""


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


def release(run: Path, out: Path, bits: int = 16) -> Released:
    """Write the backbone of ``run`` to ``out/<preset>.safetensors``, with so many ``bits`` a weight (see DTYPES).

    Raises ConfigError where the run has no backbone, or so few bits would change what it computes.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: no such folder; name the folder of a run of `pretrain run`")
    backbone, provenance = load_backbone(run / BACKBONE)
    name = backbone.config.name
    path = out / f"{name}.safetensors"
    dtype = DTYPES[bits]
    difference = _difference(backbone, _rounded(backbone, dtype))
    if not difference <= MOST_DIFFERENCE[bits]:
        raise ConfigError(
            f"{run / BACKBONE}: in {bits} bits its contexts would differ by {difference:.2g} (at most "
            f"{MOST_DIFFERENCE[bits]:g} is harmless); use --bits {name}={2 * bits}"
        )
    save_backbone(path, backbone, provenance, dtype)
    data = path.read_bytes()
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    return Released(name, path, hashlib.sha256(data).hexdigest(), len(data), parameters, difference, provenance)


def _rounded(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """The same network with the weights that a file of ``dtype`` gives back."""
    other = Backbone(backbone.config).eval()
    other.load_state_dict(restored(stored(backbone.state_dict(), dtype)))
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
