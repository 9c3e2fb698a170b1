"""The codebook on a page: medoid windows of the most used codes, what they are used in, and which go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import COMPONENTS, RATE_HZ
from pretrain.selfsupervised.monitor import colours
from pretrain.selfsupervised.monitor.kinds import KINDS
from pretrain.selfsupervised.monitor.survey import HALF_SAMPLES, Medoid, Survey

COLUMNS = 6
HEATED = 40
"""Codes of each axis of a heat map, the most used ones."""
COMPONENT_COLOURS = (colours.BLACK, colours.BLUE, colours.ORANGE)


def draw_codebook(found: Survey, path: Path, title: str, most: int) -> Path:
    """Write the page as a PNG."""
    from matplotlib.figure import Figure

    groups = len(found.used)
    rows = max(1, sum(-(-len(found.ranked(group, most)) // COLUMNS) for group in range(groups)))
    figure: Any = Figure(figsize=(15, 2.2 * rows + 3.2 + 4.4), layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[2.2 * rows, 3.2, 4.4])
    what = "windows nearest to the mean of their code (bold: the nearest; each by its own maximum)"
    top.suptitle(f"{title}, {found.frames:,} held-out frames: {what}")
    panels = top.subplots(rows, COLUMNS, squeeze=False)
    place = 0
    for group in range(groups):
        for code in found.ranked(group, most):
            _windows(panels.flat[place], found, group, code)
            place += 1
        place = -(-place // COLUMNS) * COLUMNS
    for panel in panels.flat:
        panel.set_visible(panel.has_data())
    for group, panel in enumerate(middle.subplots(1, groups, squeeze=False).flat):
        _kinds(panel, found, group, most)
    maps = bottom.subplots(1, groups + int(found.together is not None), squeeze=False).flat
    for group in range(groups):
        order = found.ranked(group, HEATED)
        _heat(maps[group], found.followed[group][np.ix_(order, order)], bottom)
        maps[group].set(
            xlabel="code of the next frame, by rank", ylabel="code, by rank", title=f"group {group} along time"
        )
    if found.together is not None:
        first, second = found.ranked(0, HEATED), found.ranked(1, HEATED)
        _heat(maps[groups], found.together[np.ix_(first, second)], bottom)
        shared = f"groups together: {found.shared_nats():.2f} nats shared"
        maps[groups].set(xlabel="code of group 1, by rank", ylabel="code of group 0, by rank", title=shared)
    return colours.save(figure, path)


def _windows(panel: Any, found: Survey, group: int, code: int) -> None:
    medoids = found.medoids.get((group, code), [])
    time = (np.arange(2 * HALF_SAMPLES) - HALF_SAMPLES) / RATE_HZ
    for number, medoid in reversed(list(enumerate(medoids))):
        for component, colour in enumerate(COMPONENT_COLOURS):
            look = {"linewidth": 1.1, "alpha": 1.0} if number == 0 else {"linewidth": 0.5, "alpha": 0.4}
            label = COMPONENTS[component] if number == 0 else None
            panel.plot(time, _scaled(medoid)[component] - 2.2 * component, color=colour, label=label, **look)
    if not medoids:
        return
    panel.axvspan(-0.02, 0.02, color=colours.VERMILION, alpha=0.35, linewidth=0)
    share = found.used[group, code] / max(found.frames, 1)
    panel.set_title(f"group {group} code {code}: {share:.1%}", fontsize="small")
    panel.set_yticks([])
    panel.tick_params(labelsize="x-small")
    panel.set_xlabel("time from the frame (s)", fontsize="x-small")
    if code == found.ranked(group, 1)[0]:
        panel.legend(fontsize="xx-small", loc="upper left", handlelength=1)


def _scaled(medoid: Medoid) -> NDArray[np.float32]:
    centred = medoid.waveform - medoid.waveform.mean(1, keepdims=True)
    return np.asarray(centred / max(float(np.abs(centred).max()), 1e-30), np.float32)


def _kinds(panel: Any, found: Survey, group: int, most: int) -> None:
    """Shares of use in noise, P and S, on top of each other."""
    codes = found.ranked(group, most)
    below = np.zeros(len(codes))
    hatches = ("", "//", "..")
    for kind, hatch in zip(KINDS, hatches, strict=True):
        shares = np.nan_to_num([found.balanced(group, code)[kind] for code in codes])
        look = {"color": colours.KIND_COLOURS[kind], "hatch": hatch, "edgecolor": "white"}
        panel.bar([str(code) for code in codes], shares, bottom=below, label=kind, **look)
        below = below + shares
    panel.set(xlabel="code, the most used first", ylabel="share of its use", ylim=(0, 1))
    panel.set_title(f"group {group}: used in noise, P, S (as if equally frequent)", fontsize="medium")
    panel.tick_params(axis="x", labelsize="x-small", rotation=60)
    if codes:
        panel.legend(fontsize="x-small", loc="upper right")


def _heat(panel: Any, counts: NDArray[np.int64], figure: Any) -> None:
    """Counts (rows, columns) as shares of their row, on a logarithmic scale."""
    if not counts.size:
        return
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = panel.imshow(np.log10(np.maximum(shares, 1e-3)), cmap=colours.HEAT, vmin=-3, vmax=0, aspect="auto")
    figure.colorbar(image, ax=panel, label="log10 of the share of the row")
