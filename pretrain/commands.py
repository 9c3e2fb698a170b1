"""The sub-commands of ``pretrain`` that need no PyTorch: their arguments, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from picker.bundle import Bundle, load_bundle
from picker.errors import ConfigError
from picker.stepper import OnnxStepper
from pretrain import pack_command as packing
from pretrain import report
from pretrain.data.build import CONSENSUS, MACHINE
from pretrain.data.continuous import miniseed_files, read_miniseed, read_picks
from pretrain.data.trace import RATE_HZ, TUNE
from pretrain.evaluate import Ticker, best_thresholds, evaluate, read_traces, write_picks
from pretrain.evaluate_continuous import evaluate_continuous
from pretrain.metric import PHASES
from pretrain.pack_command import size_bytes as size_bytes
from pretrain.simulate import command as simulation


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command: how it is described, which arguments it takes, what it does (returns the exit status)."""

    help: str
    description: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _console() -> Console:
    """The terminal; where the output goes elsewhere, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def _bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


# pack


def _pack(options: argparse.Namespace) -> int:
    return packing.run(options, _console(), _bar)


# evaluate


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of an exported bundle")
    parser.add_argument("data", type=Path, metavar="DATA", help="SeisBench folder, or a pack (.npz)")
    parser.add_argument("--split", help="only this split, for example dev")
    parser.add_argument("--status", help="only labels of this trace_p_status, for example manual; noise records stay")
    parser.add_argument(
        "--picks", type=Path, metavar="OUT.csv", help="write picks: trace_name,phase,sample,probability"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write every figure")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="write residuals and the threshold sweep as a page"
    )
    parser.add_argument(
        "--tune",
        nargs="?",
        const=TUNE,
        metavar="FOLD",
        help="use only this held-out fold (default: tune) and print the thresholds that are best on it",
    )
    _threshold_arguments(parser)


def _threshold_arguments(parser: argparse.ArgumentParser) -> None:
    for phase in PHASES:
        option = f"--threshold-{phase.lower()}"
        parser.add_argument(option, type=float, help=f"probability at which a {phase} pick opens (the bundle's)")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (1)")


def _open(options: argparse.Namespace) -> tuple[Bundle, OnnxStepper, dict[str, float]]:
    bundle = load_bundle(options.bundle)
    given = {"P": options.threshold_p, "S": options.threshold_s}
    thresholds = {phase: bundle.spec.thresholds[phase] if value is None else value for phase, value in given.items()}
    for phase, value in thresholds.items():
        if not 0 < value < 1:
            raise ConfigError(f"--threshold-{phase.lower()} {value}: it must lie between 0 and 1")
    return bundle, OnnxStepper(bundle, options.threads), thresholds


@contextmanager
def _streaming(console: Console, samples: int) -> Iterator[Ticker]:
    """A bar of streamed hours of data."""
    with _bar(console) as bar:
        task = bar.add_task("streaming, station minutes", total=round(samples / RATE_HZ / 60))
        done = 0

        def tick(more: int) -> None:
            nonlocal done
            done += more
            bar.update(task, completed=round(min(done, samples) / RATE_HZ / 60))

        yield tick


def _evaluate(options: argparse.Namespace) -> int:
    bundle, stepper, thresholds = _open(options)
    traces = read_traces(options.data, split=options.split, status=options.status, fold=options.tune)
    console = _console()
    with _streaming(console, sum(trace.samples for trace in traces)) as tick:
        evaluation = evaluate(stepper, traces, thresholds, tick)
    hours = sum(trace.samples for trace in traces) / RATE_HZ / 3600
    console.print(f"{bundle.label}: {len(traces)} records, {hours:.2f} h", highlight=False)
    console.print(report.score_table(evaluation))
    if options.tune is not None:
        console.print(report.sweep_table(evaluation))
        best = best_thresholds(evaluation)
        words = " ".join(f"--threshold-{phase.lower()} {threshold:g}" for phase, threshold in best.items())
        console.print(f"best on fold {options.tune}: {words}", highlight=False)
    if options.picks is not None:
        write_picks(options.picks, evaluation.picks)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(report.to_json(evaluation, bundle.label), encoding="utf-8")
    if options.plot is not None:
        report.plot(evaluation, f"{bundle.label} on {options.data.name} ({len(traces)} records)", options.plot)
    return 0


# evaluate-continuous


def _continuous_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of an exported bundle")
    parser.add_argument("data", type=Path, metavar="FOLDER", help=f"miniSEED below it, {MACHINE} and {CONSENSUS} in it")
    parser.add_argument("--split", help="only files below FOLDER/SPLIT")
    _threshold_arguments(parser)


def _continuous(options: argparse.Namespace) -> int:
    bundle, stepper, thresholds = _open(options)
    records = [record for file in miniseed_files(options.data, options.split) for record in read_miniseed(file)]
    machine, consensus = (read_picks(options.data / name) for name in (MACHINE, CONSENSUS))
    console = _console()
    with _streaming(console, sum(record.waveform.shape[1] for record in records)) as tick:
        results = evaluate_continuous(stepper, records, machine, consensus, thresholds, tick)
    console.print(
        f"{bundle.label} at thresholds {', '.join(f'{p} {t:g}' for p, t in thresholds.items())}", highlight=False
    )
    console.print(report.continuous_table(results))
    return 0


# simulate


def _simulate(options: argparse.Namespace) -> int:
    return simulation.run(options, _console(), _bar)


COMMANDS = {
    "pack": Command(
        help="pack waveforms and labels for training",
        description=packing.DESCRIPTION,
        examples=packing.EXAMPLES,
        add_arguments=packing.add_arguments,
        run=_pack,
    ),
    "evaluate": Command(
        help="evaluate a bundle on labelled records",
        description="Stream every record through the exported graph, chunk by chunk, and decide picks as the daemon\n"
        "does. The CSV of --picks, cut at the thresholds in use, holds exactly what the daemon would publish;\n"
        "it reaches down to a probability of 0.1, so that other thresholds can be tried on it.",
        examples="examples:\n"
        "  pretrain evaluate models/small data/labelled --split dev --status manual --plot dev.png --picks dev.csv\n"
        "  pretrain evaluate models/small train.npz --tune",
        add_arguments=_evaluate_arguments,
        run=_evaluate,
    ),
    "evaluate-continuous": Command(
        help="compare a bundle with other machines on continuous data",
        description="Stream continuous miniSEED and count, by station, picks an hour, those further than 2 s from any\n"
        "pick of another machine, and the consensus picks that were found within 0.5 s.",
        examples="example:\n  pretrain evaluate-continuous models/small data/continuous --split dev",
        add_arguments=_continuous_arguments,
        run=_continuous,
    ),
    "simulate": Command(
        help="simulate labelled records from physics",
        description=simulation.DESCRIPTION,
        examples=simulation.EXAMPLES,
        add_arguments=simulation.add_arguments,
        run=_simulate,
    ),
}
