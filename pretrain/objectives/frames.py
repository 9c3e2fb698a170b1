"""Chosen frames of each row, packed to the front, so that work is done on them alone and shapes stay static."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """Frame numbers (B, M) and which of them are ``present`` (B, M); the present ones of a row come first."""

    index: Tensor
    present: Tensor


def pack(chosen: Tensor, most: int) -> Frames:
    """The first ``most`` chosen (B, T) frames of each row in order of time; what is left over is not present."""
    index = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return Frames(index, chosen.gather(1, index))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Frames ``index`` (B, M) of ``x`` (B, T, F): (B, M, F)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
