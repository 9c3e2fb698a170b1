"""How alike a prediction and a target are. Larger is more alike; all in float32 or wider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

SimilarityName = Literal["cosine", "dot", "euclidean"]
Similarity = Callable[[Tensor, Tensor], Tensor]
"""(..., M, D) and (..., S, D) to (..., M, S), by one batched product."""


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Of the angle alone, -1 to 1."""
    return F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).transpose(-1, -2)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The plain inner product, unbounded."""
    return x @ y.transpose(-1, -2)


def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Minus the squared distance, without the differences (M, S, D)."""
    return 2 * dot(x, y) - x.square().sum(-1)[..., :, None] - y.square().sum(-1)[..., None, :]


SIMILARITIES: dict[str, Similarity] = {"cosine": cosine, "dot": dot, "euclidean": euclidean}


def paired(similarity: Similarity, x: Tensor, y: Tensor) -> Tensor:
    """Of each vector of ``x`` (..., D) with its own of ``y`` (..., D): (...)."""
    return similarity(x[..., None, :], y[..., None, :])[..., 0, 0]
