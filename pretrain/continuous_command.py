"""``pretrain evaluate-continuous``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from picker.errors import ConfigError
from pretrain.data.build import CONSENSUS, MACHINE
from pretrain.data.continuous import miniseed_files, read_miniseed, read_picks
from pretrain.evaluate_continuous import FAR_S, StationResult, evaluate_continuous, pooled
from pretrain.metric import PHASES
from pretrain.report import add_figures, plain_table
from pretrain.terminal import add_bundle_argument, add_threshold_arguments, new_console, opened, streaming, write_json

DESCRIPTION = """\
Stream continuous miniSEED from a fresh state and count, by station, picks an hour, those further than 2 s from any pick
of the same phase of another machine (in brackets; false, as far as machines can tell), and the consensus picks that
were found within 0.5 s. Rates an hour of one station have exact Poisson intervals (95 %)."""
EXAMPLES = """\
examples:
  pretrain evaluate-continuous models/small data/continuous --split dev
  pretrain evaluate-continuous models/small data/continuous --split train --held"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_bundle_argument(parser)
    parser.add_argument("data", type=Path, metavar="FOLDER", help=f"miniSEED below it, {MACHINE} and {CONSENSUS} in it")
    parser.add_argument("--split", help="only files below FOLDER/SPLIT")
    parser.add_argument(
        "--held", action="store_true", help="count only in the blocks of time that `pretrain pack` holds out"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write every figure")
    add_threshold_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate, print and write; returns the exit status."""
    bundle, stepper, thresholds = opened(options)
    records = [record for file in miniseed_files(options.data, options.split) for record in read_miniseed(file)]
    machine, consensus = (read_picks(options.data / name) for name in (MACHINE, CONSENSUS))
    console = new_console()
    with streaming(console, sum(record.waveform.shape[1] for record in records)) as tick:
        results = evaluate_continuous(stepper, records, machine, consensus, thresholds, tick, options.held)
    results = [result for result in results if result.hours > 0]
    if not results:
        raise ConfigError(f"{options.data}: no held-out data in {len(records)} records; leave --held away")
    figures = {
        "bundle": bundle.label,
        "thresholds": thresholds,
        "held_only": options.held,
        "all": pooled(results),
        "by_instrument": {name: pooled(some) for name, some in _grouped(results, lambda one: one.instrument).items()},
        "by_station": {
            name: pooled(some)
            for name, some in _grouped(results, lambda one: f"{one.name} {one.start:%Y-%m-%d}").items()
        },
    }
    console.print(
        f"{bundle.label} at thresholds {', '.join(f'{p} {t:g}' for p, t in thresholds.items())}", highlight=False
    )
    console.print(continuous_table(figures))
    console.print(_words(figures["all"]), highlight=False)
    write_json(options.json, figures)
    return 0


def _grouped(results: Sequence[StationResult], key: Any) -> dict[str, list[StationResult]]:
    groups: dict[str, list[StationResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return dict(sorted(groups.items()))


def continuous_table(figures: Mapping[str, Any]) -> Table:
    """Picks an hour by station, of these the ones that no other machine has, and consensus picks that were found."""
    table = plain_table("Continuous data against the picks of other machines", "station")
    add_figures(table, "hours")
    for phase in PHASES:
        add_figures(table, f"{phase} / h\n(alone)", f"{phase} of\nconsensus")
    for key in ("by_station", "by_instrument"):
        for name, one in figures[key].items():
            table.add_row(name, *_cells(one))
        table.add_section()
    table.add_row("all", *_cells(figures["all"]))
    return table


def _cells(one: Mapping[str, Any]) -> list[str]:
    cells = [f"{one['hours']:.2f}"]
    for phase in PHASES:
        counts = one[phase]
        cells.append(f"{counts['picks'] / one['hours']:.1f} ({counts['alone'] / one['hours']:.1f})")
        cells.append(f"{counts['found']}/{counts['consensus']}")
    return cells


def _words(all_of_it: Mapping[str, Any]) -> str:
    def said(rate: Mapping[str, Any]) -> str:
        low, high = rate["within"]
        return f"{rate['value']:.2f} ({low:.2f} to {high:.2f})"

    hours = all_of_it["hours"]
    by_phase = ", ".join(f"{phase} {said(all_of_it[phase]['false_per_hour'])}" for phase in PHASES)
    of_any = sum(all_of_it[phase]["alone_of_any"] for phase in PHASES) / hours
    return (
        f"further than {FAR_S:g} s from any machine pick of their phase, an hour of one station: "
        f"{said(all_of_it['false_per_hour'])}; {by_phase}; of either phase: {of_any:.2f}"
    )
