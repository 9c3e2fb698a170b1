"""The pictures of a validation, below ``figures/`` of the run: codebook usage, context vectors and training curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.objectives.objective import Objective
from pretrain.selfsupervised.data_held_out import LabelledBatch
from pretrain.selfsupervised.monitor import colours
from pretrain.selfsupervised.monitor.contexts import draw_contexts, gather_contexts
from pretrain.selfsupervised.monitor.curves import draw_curves
from pretrain.selfsupervised.monitor.journal import FILE, read_journal
from pretrain.selfsupervised.monitor.validation import ALL, Statistics

FOLDER = "figures"
Counts = NDArray[np.float64]


def draw(
    folder: Path, objective: Objective, batches: Sequence[LabelledBatch], sums: Statistics, step: int
) -> dict[str, Path]:
    """Draw what can be drawn, by name; ``sums`` are those of ``validation.judged``. Takes seconds, of t-SNE mostly."""
    found: dict[str, Path] = {}
    title, figures = f"{folder.name}, step {step}", folder / FOLDER
    everything = sums.get(ALL, {})
    codes = 0
    if "hard" in everything:
        hard = everything["hard"].cpu().numpy()
        codes = hard.size
        found["codebook"] = draw_usage(hard, float(everything["count"]), figures / "codebook.png", title)
    contexts = draw_contexts(gather_contexts(objective, batches), figures / "contexts.png", title)
    if contexts is not None:
        found["contexts"] = contexts
    if (folder / FILE).is_file():
        more = {"codes": codes} if codes else {}
        found["curves"] = draw_curves(read_journal(folder), figures / "curves.png", title, **more)
    return found


def draw_usage(hard: Counts, frames: float, path: Path, title: str) -> Path:
    """How often each code is the likeliest, most used first, for each group of ``hard`` (G, V) over ``frames``."""
    figure = colours.page(min(len(hard), 3) * 1.2, -(-len(hard) // 3))
    dead = int((hard == 0).sum())
    figure.suptitle(
        f"{title}: codebook usage over {frames:,.0f} held-out masked frames, {dead} of {hard.size} codes dead"
    )
    panels = figure.subplots(-(-len(hard) // 3), min(len(hard), 3), squeeze=False).flat
    for group, counts in enumerate(hard):
        _usage(panels[group], counts / max(frames, 1.0), group)
    return colours.save(figure, path)


def _usage(panel: Any, shares: Counts, group: int) -> None:
    ranked = np.sort(shares)[::-1]
    alive = int((ranked > 0).sum())
    panel.bar(np.arange(1, alive + 1), 100 * ranked[:alive], width=1.0, color=colours.BLUE, label=f"{alive} used")
    panel.axhline(100 / len(shares), color=colours.BLACK, linestyle="--", linewidth=0.9, label="all alike")
    if alive < len(shares):
        label = f"{len(shares) - alive} dead"
        panel.axvspan(alive + 0.5, len(shares) + 0.5, color=colours.VERMILION, alpha=0.2, label=label)
    panel.set_yscale("log")
    panel.set(xlabel="code, by rank of its usage", ylabel="share of frames (%)", xlim=(0.5, len(shares) + 0.5))
    panel.set_title(f"group {group}: hard perplexity {perplexity_of(shares):.0f} of {len(shares)}")
    panel.legend(fontsize="x-small")


def perplexity_of(shares: Counts) -> float:
    """exp of the entropy of shares (V,) that add up to one."""
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum()))
