"""An evaluation as one page: residuals, reliability, latency, F1 by source and by signal-to-noise ratio, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.evaluate import Evaluation
from pretrain.metric import PHASES, TOLERANCES_S

COLOURS = {"P": "tab:red", "S": "tab:blue"}
_LAST = f"{TOLERANCES_S[-1]}s"


def plot(evaluation: Evaluation, figures: Mapping[str, Any], title: str, path: str | Path) -> None:
    """Write the page; ``figures`` are those of ``pretrain.summary``."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(14, 12), layout="constrained")
    page.suptitle(title)
    axes = page.subplots(3, 3)
    scores = evaluation.scores()
    for axis, phase in zip(axes[0], PHASES, strict=False):
        _residuals(axis, phase, scores[phase].residuals_s, figures["all"][phase])
    _reliability(axes[0, 2], figures["calibration"])
    for axis, phase in zip(axes[1], PHASES, strict=False):
        _sweep(axis, phase, evaluation)
    _latency(axes[1, 2], figures["latency_s"])
    for axis, (key, words) in zip(
        axes[2], (("by_source", "source"), ("by_snr", "signal to noise"), ("by_s_minus_p", "S minus P")), strict=True
    ):
        _f1(axis, figures[key], words)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    page.savefig(path, dpi=120)


def _residuals(axis: Any, phase: str, residuals: Any, of_phase: Mapping[str, Any]) -> None:
    tally = of_phase[_LAST]
    axis.hist(residuals, bins=np.linspace(-0.5, 0.5, 51), color=COLOURS[phase])
    axis.axvline(0, color="black", linewidth=0.8)
    spread = f", mean {residuals.mean():+.3f} s, std {residuals.std():.3f} s" if len(residuals) else ""
    axis.set(title=f"{phase}: {len(residuals)} of {tally['n']} labels hit{spread}")
    axis.set(xlabel="residual (pick minus label), s", ylabel="picks")


def _reliability(axis: Any, calibration: Mapping[str, Any]) -> None:
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for phase in PHASES:
        if bins := calibration[phase].get("bins"):
            mean, share, _ = zip(*bins, strict=True)
            error = calibration[phase]["expected_calibration_error"]
            axis.plot(mean, share, "o-", color=COLOURS[phase], label=f"{phase}, error {error:.3f}")
    axis.set(title="Reliability, bins of equally many picks", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set(xlabel="stated probability", ylabel="share of right picks")
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize="small")


def _latency(axis: Any, latency: Mapping[str, Any]) -> None:
    for phase in PHASES:
        for message, style in (("first", "-"), ("confirmed", "--")):
            if quantiles := latency[phase].get(f"{message}_quantiles"):
                words = f"{phase} {message}, median {latency[phase]['median'][message]:.2f} s"
                shares = np.linspace(0, 1, len(quantiles))
                axis.plot(quantiles, shares, style, color=COLOURS[phase], label=words)
    axis.set(title="Latency, onset to message", xlabel="s of data", ylabel="share of picks", ylim=(0, 1))
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize="small")


def _f1(axis: Any, strata: Mapping[str, Any], words: str) -> None:
    names = [name for name, of in strata.items() if any(of.get(phase, {}).get(_LAST, {}).get("n") for phase in PHASES)]
    for number, phase in enumerate(PHASES):
        for place, name in enumerate(names):
            tally = strata[name].get(phase, {}).get(_LAST, {})
            if not tally.get("n"):
                continue
            at = place + 0.36 * (number - 0.5)
            axis.barh(at, tally["f1"], height=0.34, color=COLOURS[phase], label=phase if place == 0 else None)
            low, high = tally["f1_within"]
            if low is not None:
                axis.plot([low, high], [at, at], color="black", linewidth=1.0)
            axis.text(0.01, at, str(tally["n"]), va="center", fontsize="x-small", color="white")
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.invert_yaxis()
    axis.set(title=f"F1 at {TOLERANCES_S[-1]} s by {words}", xlim=(0, 1.02))


def _sweep(axis: Any, phase: str, evaluation: Evaluation) -> None:
    grid = sorted(evaluation.sweep)
    for tolerance_s, style in zip(TOLERANCES_S, ("--", "-"), strict=True):
        tallies = [evaluation.sweep[threshold][phase].tallies[tolerance_s] for threshold in grid]
        for what, colour in (("recall", "tab:orange"), ("precision", "tab:green"), ("f1", "black")):
            values = [getattr(tally, what) for tally in tallies]
            axis.plot(grid, values, style, color=colour, label=f"{what} at {tolerance_s} s")
    axis.axvline(evaluation.thresholds[phase], color="grey", linewidth=0.8)
    axis.set(title=f"{phase}: threshold", xlabel="threshold", ylabel="share", ylim=(0, 1.02), xlim=(grid[0], grid[-1]))
    axis.legend(fontsize="x-small", ncols=2)
