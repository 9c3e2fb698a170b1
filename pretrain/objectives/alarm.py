"""Alarms for a collapsed codebook, which otherwise reads as success: the loss is then exactly zero."""

from __future__ import annotations

from collections.abc import Mapping

LEAST_PERPLEXITY = 50.0
"""Of all groups together (640 at most); training should reach 320 to 512."""
LEAST_LOSS = 1e-6
LEAST_NEGATIVES = 1.0


def collapse_alarms(metrics: Mapping[str, float]) -> list[str]:
    """What is wrong with the metrics of a step, each with what to do about it; empty if nothing is."""
    found = []
    perplexity = metrics.get("hard_perplexity")
    if perplexity is not None and perplexity < LEAST_PERPLEXITY:
        found.append(
            f"hard perplexity is {perplexity:.1f} (below {LEAST_PERPLEXITY:.0f}), the codebook has collapsed: raise "
            "diversity_weight (0.1 to 0.5), lower quantizer_rate, or draw codes anew with revive_every"
        )
    loss = metrics.get("loss")
    negatives = metrics.get("valid_negatives")
    if loss is not None and negatives is not None and abs(loss) <= LEAST_LOSS:
        found.append(f"the contrastive loss is {loss:.2g}: there is nothing to tell apart, and nothing is learnt")
    if negatives is not None and negatives < LEAST_NEGATIVES:
        found.append(
            f"{negatives:.2f} valid negatives a frame: all others have the code of the positive, or are not there"
        )
    return found
