"""``pretrain calibrate``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from picker.errors import ConfigError
from pretrain.calibrate import FalseRates, calibrate, choose_thresholds, false_rates, held_stretches
from pretrain.data.build import MACHINE
from pretrain.data.continuous import miniseed_files, read_miniseed, read_picks
from pretrain.data.trace import TRAIN, TUNE, Trace
from pretrain.evaluate import Evaluation, evaluate, read_traces
from pretrain.metric import PHASES, TOLERANCES_S, score
from pretrain.terminal import add_bundle_argument, add_threads_argument, new_console, opened, streaming

MOST_FALSE = 2.0

DESCRIPTION = """\
Choose the thresholds of P and S and fit what a bundle states of its picks, on data that training has not seen: a
held-out fold of labelled events and, with --continuous, the ten-minute blocks that `pretrain pack` holds out of
continuous data. The threshold of a phase has the best mean F1 (0.1 and 0.5 s) of those that leave at most --most-false
picks an hour of one station without a counterpart within 2 s among the machine picks of that phase. Then a temperature
(with a bias if that suits held-out events better) is fitted to the probabilities of those picks, and a factor and a
floor to the widths of their peaks, so that 68 % of residuals lie within the uncertainty.
`python -m export build --calibration FILE` puts the result into the bundle."""
EXAMPLES = """\
example:
  pretrain calibrate models/small data/labelled --continuous data/continuous --out small.calibration.json
  python -m export build runs/small models/small --calibration small.calibration.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_bundle_argument(parser)
    add("data", type=Path, metavar="DATA", help="SeisBench folder, or a pack (.npz)")
    add("--out", type=Path, required=True, metavar="FILE", help="JSON to write")
    add("--fold", default=TUNE, help="held-out fold of DATA (tune)")
    add(
        "--rough",
        nargs="*",
        default=["manual_lowq"],
        metavar="STATUS",
        help="labels of these trace_p_status are used for the spread of residuals alone (manual_lowq)",
    )
    add("--continuous", type=Path, metavar="FOLDER", help=f"miniSEED below FOLDER/<split>, {MACHINE} in it")
    add("--split", default=TRAIN, help="split of --continuous (train)")
    add(
        "--most-false",
        type=float,
        default=MOST_FALSE,
        help=f"such picks an hour of each phase at one station ({MOST_FALSE:g})",
    )
    for phase in PHASES:
        add(f"--threshold-{phase.lower()}", type=float, help=f"of {phase}: do not choose, take this one")
    add_threads_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Choose, fit, print and write; returns the exit status."""
    bundle, stepper, _ = opened(options)
    # What the bundle states already would be fitted upon, and then be replaced.
    stepper.spec = replace(stepper.spec, calibration={})
    traces = read_traces(options.data, fold=options.fold)
    sure = [trace for trace in traces if trace.status not in options.rough]
    rough = [trace for trace in traces if trace.status in options.rough]
    if not sure:
        raise ConfigError(f"{options.data}: fold {options.fold} has no records but rough ones ({options.rough})")
    console = new_console()
    with streaming(console, sum(trace.samples for trace in traces)) as tick:
        evaluation = evaluate(stepper, sure, tick=tick)
        doubtful = evaluate(stepper, rough, tick=tick) if rough else None
    rates = None
    if options.continuous is not None:
        files = miniseed_files(options.continuous, options.split)
        stretches = [piece for file in files for piece in held_stretches(list(read_miniseed(file)))]
        with streaming(console, sum(piece.waveform.shape[1] for piece, _ in stretches)) as tick:
            rates = false_rates(stepper, stretches, read_picks(options.continuous / MACHINE), tick)
    chosen, within = choose_thresholds(evaluation, rates, options.most_false)
    given = {phase: getattr(options, f"threshold_{phase.lower()}") for phase in PHASES}
    thresholds = {phase: chosen[phase] if value is None else value for phase, value in given.items()}
    said = _said(options, evaluation, thresholds, rates, sure)
    sha256 = bundle.spec.provenance.get("checkpoint_sha256")
    result = calibrate(evaluation, thresholds, doubtful=doubtful, checkpoint_sha256=sha256, said=said)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(result.to_json(), encoding="utf-8")
    if not within:
        console.print(
            f"no threshold leaves at most {options.most_false:g} picks an hour to P, or to S: the fewest were taken",
            style="yellow",
        )
    for phase in PHASES:
        fit = result.fitted[phase]
        console.print(
            f"{phase}: threshold {thresholds[phase]:g}; {result.phases[phase]} "
            f"({fit['right']} right of {fit['picks']} picks, {fit['timed']} residuals)",
            highlight=False,
        )
    console.print(f"{options.out}: written for {bundle.label}", highlight=False)
    return 0


def _said(
    options: argparse.Namespace,
    evaluation: Evaluation,
    thresholds: dict[str, float],
    rates: FalseRates | None,
    sure: list[Trace],
) -> dict[str, Any]:
    """What the calibration rests on, for the bundle's provenance."""
    scores = score(evaluation.references, evaluation.picks, thresholds)
    said: dict[str, Any] = {
        "fold": options.fold,
        "records": len(sure),
        "rough": list(options.rough),
        "most_false_per_hour": options.most_false,
        "f1": {phase: {f"{t}s": round(scores[phase].tallies[t].f1, 4) for t in TOLERANCES_S} for phase in PHASES},
    }
    if rates is not None:
        said["continuous_hours"] = round(rates.hours, 2)
        said["false_per_hour"] = {phase: round(rates.rate(phase, thresholds[phase]), 3) for phase in PHASES}
    return said
