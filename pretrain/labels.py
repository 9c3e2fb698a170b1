"""Soft labels and the loss of a picker.

The target of a phase is a Gaussian around each onset (PhaseNet, Zhu & Beroza 2019); noise is what remains. The output
at sample t speaks of sample t - lookahead, so the target is shifted by the look-ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.bank import Windows

WIDTH_S = {"P": 0.08, "S": 0.10}
"""Standard deviation of the soft label, about the spread of careful analysts."""
ONSET_WEIGHT = 3.0
"""Samples near an onset weigh up to this much more: they are one in a thousand."""


def soft_labels(windows: Windows, sampling_rate_hz: float = 100.0) -> Tensor:
    """Targets (B, 3, W) of P, S and noise that sum to one at each sample."""
    samples = torch.arange(windows.waveform.shape[-1], device=windows.waveform.device)
    curves = []
    for phase, width_s in enumerate(WIDTH_S.values()):
        distance = (samples - windows.positions[..., None]) / (width_s * sampling_rate_hz)
        distance = torch.where((windows.phases == phase)[..., None], distance, torch.inf)
        curves.append(torch.exp(-0.5 * distance.abs().amin(1) ** 2))
    onsets = torch.stack(curves, 1)
    onsets = onsets / onsets.sum(1, keepdim=True).clamp(min=1.0)
    return torch.cat([onsets, (1 - onsets.sum(1, keepdim=True)).clamp(min=0.0)], 1)


def pick_loss(
    logits: Tensor, windows: Windows, lookahead_samples: int, phase_weights: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Cross-entropy with soft labels; logits (B, 3, W) are ``lookahead_samples`` late. Returns a scalar, float32.

    ``phase_weights`` multiply the weight of samples at an onset of P and of S.
    """
    target = soft_labels(windows)
    # Numbers, not a tensor of them: that would be a copy to the device, which waits for it, at every step.
    extra_p, extra_s = (ONSET_WEIGHT * factor - 1 for factor in phase_weights)
    weight = _trust(windows) * (1 + (extra_p * target[:, 0] + extra_s * target[:, 1]))
    log_probability = torch.log_softmax(logits.float(), 1)
    return _mean(-(_early(target, lookahead_samples) * log_probability[..., lookahead_samples:]).sum(1), weight)


def second_look_loss(logits: Tensor, windows: Windows, lookahead_samples: int, weight_s: float = 1.0) -> Tensor:
    """Binary cross-entropy of S at the second look; logits (B, 1, W) are ``lookahead_samples`` late in all."""
    target = soft_labels(windows)[:, 1]
    weight = _trust(windows) * (1 + (ONSET_WEIGHT * weight_s - 1) * target)
    late = logits[:, 0, lookahead_samples:].float()
    wanted = _early(target, lookahead_samples)
    return _mean(F.binary_cross_entropy_with_logits(late, wanted, reduction="none"), weight)


def _trust(windows: Windows) -> Tensor:
    """A sample counts only where at least one component has data, (B, W)."""
    return windows.trust * windows.valid.any(1)


def _early(values: Tensor, lookahead_samples: int) -> Tensor:
    """Those of the samples that the window is long enough to hear of."""
    return values[..., : values.shape[-1] - lookahead_samples]


def _mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Losses (B, N) of the first N samples, by weight (B, W)."""
    weight = weight[..., : losses.shape[-1]]
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)
