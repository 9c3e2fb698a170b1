"""What ``label_efficiency.py`` found: a table, a plot and one ``key: value`` a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

FIGURES = {"P_0.5s": "P, 0.5 s", "P_0.1s": "P, 0.1 s", "S_0.5s": "S, 0.5 s", "S_0.1s": "S, 0.1 s"}
COLOURS = ("tab:blue", "tab:orange")
FEW, MANY = 0.1, 0.5
"""The bar: pretrained at the first share of labels is at least as good as from scratch at the second."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """F1 of one training, by the keys of FIGURES."""

    start: str
    fraction: float
    seed: int
    f1: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Over both phases and both tolerances."""
        return mean(self.f1[key] for key in FIGURES)


def _of(found: Sequence[Found], start: str, fraction: float) -> list[Found]:
    return [one for one in found if one.start == start and one.fraction == fraction]


def _rows(found: Sequence[Found]) -> list[tuple[float, str]]:
    starts = list(dict.fromkeys(one.start for one in found))
    return sorted({(one.fraction, one.start) for one in found}, key=lambda row: (row[0], starts.index(row[1])))


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{mean(values):.3f}"


def bars(found: Sequence[Found], pretrained: str, scratch: str) -> dict[str, str]:
    """Mean F1 of the two cells that the bar compares, and their difference with its standard error."""
    few, many = _of(found, pretrained, FEW), _of(found, scratch, MANY)
    lines = {
        f"f1_{start.replace(' ', '_')}_{100 * share:.0f}_percent": _spread([one.mean for one in cell])
        for start, share, cell in ((pretrained, FEW, few), (scratch, MANY, many))
    }
    if not (few and many):
        return lines | {"pretrained_less_scratch": "not run"}
    difference = mean(one.mean for one in few) - mean(one.mean for one in many)
    if min(len(few), len(many)) < 2:
        return lines | {"pretrained_less_scratch": f"{difference:+.3f}"}
    error = sum(stdev([one.mean for one in part]) ** 2 / len(part) for part in (few, many)) ** 0.5
    return lines | {"pretrained_less_scratch": f"{difference:+.3f} ± {error:.3f}"}


def markdown(found: Sequence[Found], about: Sequence[str], wanted: int) -> str:
    """The results file: mean and standard deviation over the seeds of each cell."""
    lines = [
        "# What pretraining saves in labels",
        "",
        "F1 of the analysts' labels of the development records, streamed chunk by chunk through ONNX Runtime, at the "
        "thresholds that are best on the fold tune of the training data. Mean and standard deviation over seeds, which "
        "also draw the events that are learnt from.",
        "",
        *about,
        *([f"- {len(found)} of {wanted} trainings: the study is not whole"] if len(found) < wanted else []),
        "",
        "| share of labels | start | seeds | " + " | ".join(FIGURES.values()) + " | mean of the four |",
        "|---|---|---|" + "---|" * (len(FIGURES) + 1),
    ]
    for fraction, start in _rows(found):
        cell = _of(found, start, fraction)
        values = [_spread([one.f1[key] for one in cell]) for key in FIGURES]
        values.append(_spread([one.mean for one in cell]))
        lines.append(f"| {fraction:.0%} | {start} | {len(cell)} | " + " | ".join(values) + " |")
    return "\n".join([*lines, ""])


def plot(found: Sequence[Found], path: Path) -> None:
    """F1 against the share of labels: a panel for each figure, a line for each start, a dot for each seed."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 8), layout="constrained")
    starts = list(dict.fromkeys(one.start for one in found))
    for axis, (key, title) in zip(page.subplots(2, 2, sharex=True).flat, FIGURES.items(), strict=True):
        for start, colour in zip(starts, COLOURS, strict=False):
            fractions = sorted({one.fraction for one in found if one.start == start})
            middle = [mean(one.f1[key] for one in _of(found, start, fraction)) for fraction in fractions]
            axis.plot([100 * fraction for fraction in fractions], middle, color=colour, label=start)
            dots = [(100 * one.fraction, one.f1[key]) for one in found if one.start == start]
            axis.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4)
        axis.set(title=title, xscale="log", xlabel="share of labels, %", ylabel="F1")
        axis.legend(fontsize="small")
    page.savefig(path, dpi=120)
