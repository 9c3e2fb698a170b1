"""Training curves of a run from its journal: loss, accuracy, perplexities, gradient norm, rates and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.selfsupervised.monitor import colours
from pretrain.selfsupervised.monitor.alarms import FULL_CODES
from pretrain.selfsupervised.monitor.journal import TRAIN, VALIDATION, Entry, series

TARGET = (0.5, 0.8)
"""Share of the codes that hard perplexity should reach."""
SMOOTHED = 15
"""Entries that the bold line is the running median of."""
SCORES = {"accuracy": "contrastive accuracy (share of frames)", "explained": "share of the loss of zeros explained"}


def draw_curves(entries: Sequence[Entry], path: Path, title: str, codes: int = FULL_CODES) -> Path:
    """The page as a PNG; a panel for whose figure the log has nothing says so."""
    figure = colours.page(3, 2)
    figure.suptitle(title)
    panels = figure.subplots(2, 3).flat
    score = next((name for name in SCORES if series(entries, TRAIN, name)[0]), "accuracy")
    _both(panels[0], entries, "loss", "loss (nats a frame)" if score == "accuracy" else "loss (a value)")
    _both(panels[1], entries, score, SCORES[score])
    _perplexities(panels[2], entries, codes)
    _norms(panels[3], entries)
    _rates(panels[4], entries)
    _speed(panels[5], entries)
    for panel in panels:
        panel.set_xlabel("optimizer step")
    return colours.save(figure, path)


def running_median(values: Sequence[float], width: int = SMOOTHED) -> list[float]:
    """The median of ``width`` values around each place, fewer at the ends; NaN left out (NaN where all are)."""
    half, found = width // 2, []
    for place in range(len(values)):
        window = [v for v in values[max(0, place - half) : place + half + 1] if math.isfinite(v)]
        found.append(float(np.median(window)) if window else math.nan)
    return found


def _both(panel: Any, entries: Sequence[Entry], name: str, label: str) -> None:
    """Training, all of a validation, and each of its data sets."""
    _line(panel, series(entries, TRAIN, name), "training", colours.SKY)
    last: dict[str, Any] = next((entry for entry in reversed(entries) if entry.get("kind") == VALIDATION), {})
    sets = [key.removesuffix(f"/{name}") for key in last if key.endswith(f"/{name}")]
    for number, data_set in enumerate(sorted(sets, key=lambda found: (found != "all", found))):
        every = data_set == "all"
        look = {"color": colours.BLACK, "linewidth": 1.8} if every else _look(number)
        steps, values = series(entries, VALIDATION, f"{data_set}/{name}")
        label_of = "validation" if every else data_set
        panel.plot(steps, values, label=label_of, markersize=4, **({"marker": "o"} | look))
    _finish(panel, label)


def _look(number: int) -> dict[str, Any]:
    colour, marker = colours.CYCLE[number % len(colours.CYCLE)], colours.MARKERS[number % len(colours.MARKERS)]
    return {"color": colour, "marker": marker, "linewidth": 0.9, "alpha": 0.8}


def _line(panel: Any, found: tuple[list[int], list[float]], label: str, colour: str) -> None:
    """Every entry thin, and their running median bold."""
    steps, values = found
    if steps:
        panel.plot(steps, values, color=colour, linewidth=0.6, alpha=0.45)
        panel.plot(steps, running_median(values), color=colour, linewidth=1.8, label=label)


def _perplexities(panel: Any, entries: Sequence[Entry], codes: int) -> None:
    _line(panel, series(entries, TRAIN, "soft_perplexity"), "soft, training", colours.ORANGE)
    _line(panel, series(entries, TRAIN, "hard_perplexity"), "hard, training", colours.SKY)
    steps, values = series(entries, VALIDATION, "all/hard_perplexity")
    if steps:
        panel.plot(steps, values, color=colours.BLACK, marker="o", markersize=4, label="hard, validation")
    if panel.lines:
        low, high = (share * codes for share in TARGET)
        panel.axhspan(low, high, color=colours.GREEN, alpha=0.12, label=f"target {low:.0f} to {high:.0f}")
        panel.set_ylim(0, codes)
    _finish(panel, f"perplexity (of {codes} codes)")


def _norms(panel: Any, entries: Sequence[Entry]) -> None:
    steps, most = series(entries, TRAIN, "gradient_norm_most")
    if steps:
        panel.plot(steps, most, color=colours.VERMILION, linewidth=0.6, alpha=0.6, label="largest of an entry")
    _line(panel, series(entries, TRAIN, "gradient_norm"), "mean of an entry", colours.SKY)
    if any(value > 0 for line in panel.lines for value in line.get_ydata()):
        panel.set_yscale("log")
    _finish(panel, "gradient norm before clipping")


def _rates(panel: Any, entries: Sequence[Entry]) -> None:
    names = sorted({key for entry in entries for key in entry if key.startswith("rate/")})
    for number, name in enumerate(names):
        steps, values = series(entries, TRAIN, name)
        style = ("-", "--", "-.", ":")[number % 4]
        panel.plot(
            steps, values, style, color=colours.CYCLE[number % len(colours.CYCLE)], label=name.removeprefix("rate/")
        )
    _finish(panel, "learning rate")


def _speed(panel: Any, entries: Sequence[Entry]) -> None:
    _line(panel, series(entries, TRAIN, "windows_per_s"), "windows", colours.GREEN)
    if panel.lines:
        panel.set_ylim(bottom=0)
    _finish(panel, "windows per second")


def _finish(panel: Any, label: str) -> None:
    panel.set_ylabel(label)
    panel.grid(alpha=0.25)
    if panel.lines:
        panel.legend(fontsize="x-small")
    else:
        panel.text(0.5, 0.5, "not in the log", transform=panel.transAxes, ha="center")
