"""What an evaluation says, as tables on the terminal and one page of figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from pretrain.evaluate import Evaluation
from pretrain.evaluate_continuous import StationResult
from pretrain.metric import PHASES, TOLERANCES_S, PhaseScore, as_dict, by_source

_COLOURS = {"P": "tab:red", "S": "tab:blue"}


def score_table(evaluation: Evaluation) -> Table:
    """Recall, precision and F1 at each tolerance, and residuals, by source and phase, at the thresholds in use."""
    thresholds = ", ".join(f"{phase} {evaluation.thresholds[phase]:g}" for phase in PHASES)
    table = _table(f"Streamed picks at thresholds {thresholds}", "source")
    table.add_column("")
    by_tolerance = (f"{tolerance_s} s: recall\nprecision F1" for tolerance_s in TOLERANCES_S)
    _figures(table, "labels", *by_tolerance, "residual, s\nmean ± std", "false /\nnoise h")
    groups = by_source(evaluation.references)
    for source, references in [("all", evaluation.references), *(groups.items() if len(groups) > 1 else ())]:
        for number, (phase, of_phase) in enumerate(evaluation.scores(references).items()):
            table.add_row("" if number else source, phase, *_score_cells(of_phase), end_section=number > 0)
    return table


def _table(title: str, *names: str) -> Table:
    """A table whose columns of names are folded where the terminal is narrow, never its figures."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False
    )
    for name in names:
        table.add_column(name, overflow="fold", min_width=10)
    return table


def _figures(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def _score_cells(of_phase: PhaseScore) -> list[str]:
    tallies = [of_phase.tallies[tolerance_s] for tolerance_s in TOLERANCES_S]
    cells = [str(tallies[0].labels)]
    for tally in tallies:
        cells.append(" ".join(map(_ratio, (tally.recall, tally.precision, tally.f1))) if tally.labels else "–")
    residuals = of_phase.residuals_s
    cells.append(f"{residuals.mean():+.3f} ± {residuals.std():.3f}" if len(residuals) else "–")
    return [*cells, f"{of_phase.false_per_noise_hour:.1f}" if of_phase.noise_hours else "–"]


def _ratio(value: float) -> str:
    return "  –  " if np.isnan(value) else f"{value:.3f}"


def sweep_table(evaluation: Evaluation) -> Table:
    """F1 at both tolerances, and false picks an hour of noise, against the threshold."""
    table = _table("Threshold sweep")
    _figures(table, "threshold")
    for phase in PHASES:
        _figures(table, *(f"{phase} F1\n{t} s" for t in TOLERANCES_S), f"{phase} false\n/ noise h")
    for threshold, scores in sorted(evaluation.sweep.items()):
        cells = [f"{threshold:.2f}"]
        for phase in PHASES:
            cells += [_ratio(scores[phase].tallies[tolerance_s].f1) for tolerance_s in TOLERANCES_S]
            cells.append(f"{scores[phase].false_per_noise_hour:.1f}" if scores[phase].noise_hours else "–")
        table.add_row(*cells)
    return table


def continuous_table(results: Sequence[StationResult]) -> Table:
    """Picks an hour by station, of these the ones that no other machine has, and consensus picks that were found."""
    table = _table("Continuous data against the picks of other machines", "station")
    _figures(table, "hours")
    for phase in PHASES:
        _figures(table, f"{phase} / h\n(alone)", f"{phase} of\nconsensus")
    for result in results:
        table.add_row(f"{result.name} {result.start:%Y-%m-%d}", f"{result.hours:.2f}", *_continuous_cells([result]))
    table.add_section()
    table.add_row("all", f"{sum(result.hours for result in results):.2f}", *_continuous_cells(results))
    return table


def _continuous_cells(results: Sequence[StationResult]) -> list[str]:
    hours = sum(result.hours for result in results)
    cells = []
    for phase in PHASES:
        picks, alone, consensus, found = (
            sum(getattr(result, what)[phase] for result in results) for what in ("picks", "alone", "consensus", "found")
        )
        cells.append(f"{picks / hours:.1f} ({alone / hours:.1f})" if hours else "–")
        cells.append(f"{found}/{consensus}")
    return cells


def to_json(evaluation: Evaluation, bundle: str) -> str:
    """Every figure of an evaluation: by source, and by threshold."""
    figures: dict[str, Any] = {"bundle": bundle, "thresholds": dict(evaluation.thresholds)}
    figures["all"] = as_dict(evaluation.scores())
    groups = by_source(evaluation.references)
    figures["by_source"] = {source: as_dict(evaluation.scores(references)) for source, references in groups.items()}
    figures["sweep"] = {f"{threshold:.2f}": as_dict(scores) for threshold, scores in sorted(evaluation.sweep.items())}
    # A ratio of nothing is NaN in Python and null in JSON.
    return json.dumps(_plain(figures), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def plot(evaluation: Evaluation, title: str, path: str | Path) -> None:
    """One page: residuals of P and S, and recall, precision and F1 against the threshold of each phase."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2)
    scores = evaluation.scores()
    for column, phase in enumerate(PHASES):
        _plot_residuals(axes[0, column], phase, scores[phase])
        _plot_sweep(axes[1, column], phase, evaluation)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _plot_residuals(axis: Any, phase: str, of_phase: PhaseScore) -> None:
    residuals, tally = of_phase.residuals_s, of_phase.tallies[TOLERANCES_S[-1]]
    axis.hist(residuals, bins=np.linspace(-0.5, 0.5, 51), color=_COLOURS[phase])
    axis.axvline(0, color="black", linewidth=0.8)
    spread = f", mean {residuals.mean():+.3f} s, std {residuals.std():.3f} s" if len(residuals) else ""
    axis.set(title=f"{phase}: {tally.hits} of {tally.labels} labels hit{spread}")
    axis.set(xlabel="residual (pick minus label), s", ylabel="picks")


def _plot_sweep(axis: Any, phase: str, evaluation: Evaluation) -> None:
    grid = sorted(evaluation.sweep)
    for tolerance_s, style in zip(TOLERANCES_S, ("--", "-"), strict=True):
        tallies = [evaluation.sweep[threshold][phase].tallies[tolerance_s] for threshold in grid]
        for what, colour in (("recall", "tab:orange"), ("precision", "tab:green"), ("f1", "black")):
            values = [getattr(tally, what) for tally in tallies]
            axis.plot(grid, values, style, color=colour, label=f"{what} at {tolerance_s} s")
    axis.axvline(evaluation.thresholds[phase], color="grey", linewidth=0.8)
    axis.set(xlabel=f"{phase} threshold", ylabel="share", ylim=(0, 1.02), xlim=(grid[0], grid[-1]))
    axis.legend(fontsize="small", ncols=2)
