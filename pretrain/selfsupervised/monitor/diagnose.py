"""The command ``pretrain diagnose``: what the tuning guide advises about a run, with the numbers it is judged by."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pretrain.selfsupervised.monitor.advice import Figure, Finding, figures, findings
from pretrain.selfsupervised.monitor.curves import draw_curves
from pretrain.selfsupervised.monitor.evidence import Evidence, read_evidence
from pretrain.selfsupervised.monitor.journal import finite

DESCRIPTION = """\
Read the log and the settings of a pretraining run, and say what the tuning guide advises, with the numbers it judged
by. It may be asked while the run goes on. Exit status: 0, or 1 where a problem was found."""

EXAMPLES = """\
examples:
  pretrain diagnose runs/first --plot curves.png
  how it did in fine-tuning, against a picker trained without it:
    pretrain diagnose runs/first --tune-f1 0.71 --scratch-f1 0.70"""

STYLES = {"problem": "bold red", "warning": "yellow", "hint": "cyan"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments, description and examples of ``pretrain diagnose``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a pretraining run")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw the training curves")
    parser.add_argument("--tune-f1", type=float, metavar="F1", help="F1 of a picker fine-tuned from these weights")
    parser.add_argument("--scratch-f1", type=float, metavar="F1", help="F1 of the same picker trained without them")


def run(options: argparse.Namespace) -> int:
    """Run ``pretrain diagnose``; 1 where a problem was found. Raises ConfigError for a folder without a log."""
    evidence = read_evidence(options.run_folder, options.tune_f1, options.scratch_f1)
    found, table = findings(evidence), figures(evidence)
    if options.plot is not None:
        draw_curves(evidence.entries, options.plot, f"{options.run_folder.name}, step {evidence.steps}", evidence.codes)
    if options.json:
        print(json.dumps(as_dict(options.run_folder, evidence, found, table), indent=1, allow_nan=False))
    else:
        console = Console()
        _print(console if console.is_terminal else Console(width=max(console.width, 120)), evidence, found, table)
    return int(any(finding.severity == "problem" for finding in found))


def healthy(found: list[Finding]) -> bool:
    """Whether there is nothing but hints."""
    return all(finding.severity == "hint" for finding in found)


def as_dict(folder: Path, evidence: Evidence, found: list[Finding], table: list[Figure]) -> dict[str, Any]:
    """Everything that is printed."""
    return {
        "run": folder.name,
        "step": evidence.steps,
        "validations": evidence.validations,
        "healthy": healthy(found),
        "figures": [finite(asdict(figure)) for figure in table],
        "findings": [asdict(finding) | {"numbers": finite(finding.numbers)} for finding in found],
    }


def _print(console: Console, evidence: Evidence, found: list[Finding], table: list[Figure]) -> None:
    console.print(f"step {evidence.steps}, {evidence.validations} validations", highlight=False, soft_wrap=True)
    console.print(_summary(table))
    for finding in found:
        style = STYLES[finding.severity]
        console.print(f"[{style}]{finding.severity}[/] {escape(finding.what)}", highlight=False, soft_wrap=True)
        for line in finding.advice:
            console.print(f"  - {escape(line)}", highlight=False, soft_wrap=True)
    if healthy(found):
        good = [figure for figure in table if figure.good]
        console.print(
            f"healthy: {', '.join(map(_said, good)) or 'nothing speaks against it'}", highlight=False, soft_wrap=True
        )


def _said(figure: Figure) -> str:
    value = figure.training if figure.validation is None else figure.validation
    return f"{figure.name.replace('_', ' ')} {_number(value)} ({figure.healthy})"


def _summary(table: list[Figure]) -> Table:
    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    shown.add_column("")
    for heading in ("training", "validation"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("healthy")
    shown.add_column("")
    for figure in table:
        verdict = {True: "[green]ok[/]", False: "[red]no[/]", None: ""}[figure.good]
        name = figure.name.replace("_", " ")
        shown.add_row(name, _number(figure.training), _number(figure.validation), figure.healthy, verdict)
    return shown


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
