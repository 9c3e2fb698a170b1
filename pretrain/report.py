"""What an evaluation says, as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from pretrain.evaluate import Evaluation
from pretrain.metric import PHASES, TOLERANCES_S, PhaseScore, by_source


def score_table(evaluation: Evaluation) -> Table:
    """Recall, precision and F1 at each tolerance, and residuals, by source and phase, at the thresholds in use."""
    thresholds = ", ".join(f"{phase} {evaluation.thresholds[phase]:g}" for phase in PHASES)
    table = plain_table(f"Streamed picks at thresholds {thresholds}", "source")
    table.add_column("")
    by_tolerance = (f"{tolerance_s} s: recall\nprecision F1" for tolerance_s in TOLERANCES_S)
    add_figures(table, "labels", *by_tolerance, "residual, s\nmean ± std", "false /\nnoise h")
    groups = by_source(evaluation.references)
    for source, references in [("all", evaluation.references), *(groups.items() if len(groups) > 1 else ())]:
        for number, (phase, of_phase) in enumerate(evaluation.scores(references).items()):
            table.add_row("" if number else source, phase, *_score_cells(of_phase), end_section=number > 0)
    return table


def plain_table(title: str, *names: str) -> Table:
    """A table whose columns of names are folded where the terminal is narrow, never its figures."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False
    )
    for name in names:
        table.add_column(name, overflow="fold", min_width=10)
    return table


def add_figures(table: Table, *headings: str) -> None:
    """Columns of figures."""
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
    table = plain_table("Threshold sweep")
    add_figures(table, "threshold")
    for phase in PHASES:
        add_figures(table, *(f"{phase} F1\n{t} s" for t in TOLERANCES_S), f"{phase} false\n/ noise h")
    for threshold, scores in sorted(evaluation.sweep.items()):
        cells = [f"{threshold:.2f}"]
        for phase in PHASES:
            cells += [_ratio(scores[phase].tallies[tolerance_s].f1) for tolerance_s in TOLERANCES_S]
            cells.append(f"{scores[phase].false_per_noise_hour:.1f}" if scores[phase].noise_hours else "–")
        table.add_row(*cells)
    return table


def detail_table(figures: Mapping[str, Any]) -> Table:
    """What the scores do not tell: intervals of F1, noise, latency, calibration, uncertainty."""
    table = plain_table("With 95 % intervals, by resampling events (of noise: Poisson)", "")
    add_figures(table, *PHASES)
    rows: dict[str, list[str]] = {}

    def add(name: str, value: Any, within: Any = None, digits: int = 3) -> None:
        around = "" if within is None or within[0] is None else f" ({_number(within[0])} to {_number(within[1])})"
        rows.setdefault(name, []).append("–" if value is None else f"{value:.{digits}f}{around}")

    for phase in PHASES:
        scores, latency, told = figures["all"][phase], figures["latency_s"][phase], figures["calibration"][phase]
        for tolerance_s in TOLERANCES_S:
            tally = scores[f"{tolerance_s}s"]
            add(f"F1 at {tolerance_s} s", tally["f1"] if tally["n"] else None, tally["within"]["f1"])
        residual = scores.get("residual_s", {})
        for name in ("mean", "mae", "std", "p05", "p50", "p95"):
            add(f"residual {name}, s", residual.get(name), residual.get(f"{name}_within"))
        noise = scores.get("false_per_noise_hour")
        add("false picks an hour of noise", noise, scores.get("false_per_noise_hour_within"), 1)
        for message in ("first", "confirmed", "between"):
            for share in ("median", "p95"):
                add(f"latency, {message}, {share}, s", latency[share][message], digits=2)
        add("expected calibration error", told.get("expected_calibration_error"), told.get("within"))
        add("  of a perfect picker, by chance", told.get("by_chance"))
        covered = told.get("coverage", {})
        add("residuals within the uncertainty", covered.get("share"), covered.get("within"))
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


STRATA = {
    "by_snr": "signal to noise",
    "by_s_minus_p": "S minus P",
    "by_instrument": "instrument",
}


def strata_table(figures: Mapping[str, Any]) -> Table:
    """F1 by signal-to-noise ratio, distance and instrument."""
    table = plain_table("F1 by kind of arrival", "", "kind")
    for phase in PHASES:
        add_figures(table, f"{phase}\nlabels", *(f"{phase} F1\n{tolerance_s} s" for tolerance_s in TOLERANCES_S))
    for key, title in STRATA.items():
        for number, (name, of_phase) in enumerate(figures[key].items()):
            cells: list[str] = []
            for phase in PHASES:
                tallies = [of_phase.get(phase, {}).get(f"{tolerance_s}s") for tolerance_s in TOLERANCES_S]
                cells.append(str(tallies[0]["n"]) if tallies[0] else "–")
                cells += [_number(tally["f1"]) if tally else "–" for tally in tallies]
            table.add_row("" if number else title, name, *cells)
        table.add_section()
    return table


def peers_table(figures: Mapping[str, Any]) -> Table:
    """F1 of others on the same records, and ours less theirs."""
    table = plain_table("F1 beside others (ours less theirs, 95 %)", "picker")
    for phase in PHASES:
        add_figures(table, *(f"{phase}, {tolerance_s} s" for tolerance_s in TOLERANCES_S))
    alone = False
    for name, peer in figures["peers"].items():
        cells = []
        for phase in PHASES:
            for tolerance_s in TOLERANCES_S:
                one = peer[phase][f"{tolerance_s}s"]
                around = " to ".join("–" if end is None else f"{end:+.3f}" for end in one["within"])
                cells.append(f"{one['f1']:.3f}\n{one['ours_less_theirs']:+.3f}\n({around})")
        alone = alone or not peer["paired"]
        table.add_row(name if peer["paired"] else f"{name} *", *cells)
    if alone:
        table.caption = "* its picks are not known, only its scores: the interval is that of our own F1 alone"
    return table
