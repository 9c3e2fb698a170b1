"""Prediction of the normalised signal itself, frame by frame: what two of the objectives share."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.objectives import ranks
from pretrain.objectives.backbone import known
from pretrain.objectives.objective import Outcome

BANDS = 6
"""Broad and sharp Z, N, E of the running normaliser; its other three features are the valid flags."""


class SignalHead(nn.Module):
    """Context (B, T, F) to the signal of a frame, (B, T, 6 * stride): bands, then samples."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, BANDS * stride)

    def forward(self, context: Tensor) -> Tensor:
        """As the class says."""
        signal: Tensor = self.linear(self.norm(context))
        return signal


def by_frame(x: Tensor, stride: int) -> Tensor:
    """(B, A, N) to (B, N / stride, A * stride)."""
    frames: Tensor = x.unflatten(-1, (-1, stride)).transpose(1, 2).flatten(2)
    return frames


def signal_of(features: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The signal of each frame (B, T, 6 * stride) and which of its values are data, from features (B, 9, N)."""
    flags = known(features)
    return by_frame(features[:, :BANDS], stride), by_frame(flags.repeat(1, 2, 1), stride)


def signal_outcome(predicted: Tensor, signal: Tensor, counted: Tensor) -> Outcome:
    """Huber loss summed over the values ``counted`` (B, T, A), and the same of predicting nothing but zeros."""
    flags = counted.to(signal.dtype)
    loss = (F.smooth_l1_loss(ranks.precise(predicted), signal, reduction="none") * flags).sum()
    zeros = (F.smooth_l1_loss(signal.new_zeros(()).expand_as(signal), signal, reduction="none") * flags).sum()
    statistics = {"loss_sum": loss.detach(), "zeros": zeros, "count": flags.sum()}
    return Outcome(loss, flags.sum(), statistics=statistics)


def signal_metrics(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loss a value, and the share ``explained`` of the loss that zeros would have."""
    loss, count = statistics["loss_sum"], statistics["count"]
    explained = 1 - loss / statistics["zeros"].clamp(min=1e-12)
    return {"loss": loss / count.clamp(min=1), "explained": explained, "values": count}
