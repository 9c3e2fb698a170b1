"""Context vectors of held-out frames, laid out in a plane by t-SNE (van der Maaten and Hinton, 2008).

Shapes: B windows, T frames, F features, n chosen frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pretrain.objectives.objective import Objective
from pretrain.selfsupervised.data_held_out import LabelledBatch
from pretrain.selfsupervised.monitor import colours
from pretrain.selfsupervised.monitor.kinds import KINDS, frame_kinds
from pretrain.selfsupervised.monitor.validation import evaluating

MOST_FRAMES = 2000
LEAST_FRAMES = 12
"""Of fewer t-SNE makes no sense."""
NEIGHBOURS = 30.0


@dataclass(frozen=True)
class Contexts:
    """Chosen frames: ``vectors`` (n, F), their ``kinds`` (n,) as numbers of ``KINDS``, and their ``data_sets``."""

    vectors: NDArray[np.float32]
    kinds: NDArray[np.int64]
    data_sets: tuple[str, ...]


def gather_contexts(
    objective: Objective, batches: Sequence[LabelledBatch], most: int = MOST_FRAMES, seed: int = 0
) -> Contexts:
    """Contexts of whole, unmasked windows at no more than ``most`` frames, chosen alike from each data set and kind."""
    chosen = _choose(batches, objective.backbone.config.stride, most, seed)
    vectors, kinds, names = [np.zeros((0, objective.backbone.width), np.float32)], [], []
    with evaluating(objective):
        for labelled, (flat, shown) in zip(batches, chosen, strict=True):
            if not len(flat):
                continue
            context = objective.backbone(labelled.batch.waveform, labelled.batch.valid).flatten(0, 1)
            index = torch.from_numpy(flat).to(context.device)
            vectors.append(context[index].float().cpu().numpy())
            kinds += shown.tolist()
            names += [labelled.data_set] * len(flat)
    return Contexts(np.concatenate(vectors), np.array(kinds, np.int64), tuple(names))


def _choose(
    batches: Sequence[LabelledBatch], stride: int, most: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each batch, flat frame numbers (of B T) and their kinds, no more than a share for each data set and kind."""
    random = np.random.default_rng(seed)
    shown = [frame_kinds(labelled, stride).flatten().cpu().numpy() for labelled in batches]
    pools: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    for number, (labelled, kinds) in enumerate(zip(batches, shown, strict=True)):
        for kind in range(len(KINDS)):
            frames = np.flatnonzero(kinds == kind)
            if len(frames):
                places = np.stack([np.full_like(frames, number), frames], axis=1)
                pools.setdefault((labelled.data_set, kind), []).append(places)
    share = most // max(1, len(pools))
    picked = [np.zeros((0, 2), np.int64)]
    for key in sorted(pools):
        pool = np.concatenate(pools[key])
        picked.append(pool[random.permutation(len(pool))[:share]])
    places = np.concatenate(picked)
    by_batch = [np.sort(places[places[:, 0] == number, 1]) for number in range(len(batches))]
    return [(frames, kinds[frames]) for frames, kinds in zip(by_batch, shown, strict=True)]


def plane(vectors: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Vectors (n, F) to places (n, 2); the same ones give the same places on one machine."""
    from sklearn.manifold import TSNE

    spread = vectors.std(0)
    scaled = (vectors - vectors.mean(0)) / np.where(spread > 0, spread, 1.0)
    neighbours = min(NEIGHBOURS, (len(vectors) - 1) / 3)
    start = "pca" if vectors.shape[1] > 1 else "random"
    found = TSNE(perplexity=neighbours, init=start, random_state=seed).fit_transform(scaled)
    return np.asarray(found, np.float32)


def draw_contexts(contexts: Contexts, path: Path, title: str) -> Path | None:
    """Two panels of the same places, coloured by noise, P and S, and by data set; None where there are too few."""
    if len(contexts.vectors) < LEAST_FRAMES:
        return None
    places = plane(contexts.vectors)
    figure = colours.page(2.4, 1.6)
    figure.suptitle(f"{title}: t-SNE of {len(places)} context vectors")
    left, right = figure.subplots(1, 2)
    for kind, name in enumerate(KINDS):
        _dots(left, places[contexts.kinds == kind], name, colours.KIND_COLOURS[name], colours.KIND_MARKERS[name])
    names = np.array(contexts.data_sets)
    for number, name in enumerate(sorted(set(contexts.data_sets))):
        colour, marker = (of[number % len(of)] for of in (colours.CYCLE, colours.MARKERS))
        _dots(right, places[names == name], name, colour, marker)
    left.set_title("what the frame shows (P, S: first second after the onset)")
    right.set_title("data set")
    for panel in (left, right):
        panel.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        panel.legend(fontsize="x-small", markerscale=1.5)
    return colours.save(figure, path)


def _dots(panel: Any, places: NDArray[np.float32], name: str, colour: str, marker: str) -> None:
    if len(places):
        label = f"{name} ({len(places)})"
        panel.scatter(places[:, 0], places[:, 1], s=12, c=colour, marker=marker, alpha=0.6, linewidths=0, label=label)
