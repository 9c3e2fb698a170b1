"""How much of the codebook is used: perplexity, dead codes, and the loss that asks for more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.objectives import ranks


def perplexity(probabilities: Tensor) -> Tensor:
    """exp of the entropy of each group's probabilities (G, V): (G,), between one and V."""
    floor = torch.finfo(probabilities.dtype).tiny
    return torch.exp(-(probabilities * probabilities.clamp(min=floor).log()).sum(-1))


class Diversity(NamedTuple):
    """The formula's ``value``, and the loss as a ``total`` to be added to a sum over frames."""

    value: Tensor
    total: Tensor


def diversity(soft: Tensor, count: Tensor, across_ranks: bool, until: float = 1.0) -> Diversity:
    """(G V - sum over groups of exp H(mean softmax)) / (G V), from the sum ``soft`` (G, V) over ``count`` frames.

    The loss asks for no more than the share ``until`` of the codes: beyond that perplexity it is zero.

    The mean is of the probabilities without noise, and of all ranks' frames. ``total`` is the value times the number
    of frames, so that its weight against a sum over frames does not depend on the batch; its gradient is that of this
    rank's frames, so that the sum over ranks is the gradient of the loss of the global batch.
    """
    everyone = ranks.summed(torch.cat([soft.detach().flatten(), count[None]])) if across_ranks else None
    frames = count.detach() if everyone is None else everyone[-1]
    mean = soft if everyone is None else soft + (everyone[:-1].view_as(soft) - soft.detach())
    value = 1 - perplexity(mean / frames.clamp(min=1)).sum() / soft.numel()
    asked = (value - (1 - until)).clamp(min=0)
    total = (asked - asked.detach()) * frames + asked.detach() * count
    return Diversity(value.detach(), total)


def codebook_metrics(soft: Tensor, hard: Tensor, count: Tensor) -> dict[str, Tensor]:
    """Soft and hard perplexity of each group and in all, and dead codes, from sums (G, V) over ``count`` frames.

    Both are always given: the soft one is of the mean probabilities, the hard one of the likeliest codes, and they
    cannot be compared with each other. In all means summed over groups: at most G V (640). A dead code is the
    likeliest of no frame.
    """
    frames = count.clamp(min=1)
    found: dict[str, Tensor] = {}
    for name, sums in (("soft", soft), ("hard", hard)):
        each = perplexity(sums / frames)
        found |= {f"{name}_perplexity_{group}": value for group, value in enumerate(each)}
        found[f"{name}_perplexity"] = each.sum()
    dead = (hard == 0).sum(-1)
    return found | {f"dead_codes_{group}": value for group, value in enumerate(dead)} | {"dead_codes": dead.sum()}
