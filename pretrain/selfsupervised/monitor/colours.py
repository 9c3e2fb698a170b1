"""Colours of all figures of a run: those of Okabe and Ito, which the colour-blind can tell apart, and markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#999999"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK, YELLOW)
MARKERS = "osv^DPX*"
"""With the colours, data sets by number; both come round again at different times of their own."""
KIND_COLOURS = {"noise": GREY, "P": VERMILION, "S": BLUE}
KIND_MARKERS = {"noise": ".", "P": "^", "S": "s"}
HEAT = "cividis"


def page(columns: float, rows: float) -> Any:
    """An empty figure of so many panels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")


def save(figure: Any, path: Path) -> Path:
    """Write a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    figure.savefig(beside, dpi=130, format="png")
    beside.replace(path)
    return path
