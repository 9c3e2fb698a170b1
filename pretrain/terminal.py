"""What the commands of evaluation share: the terminal, the bundle that is opened, the bar of what was streamed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from picker.bundle import Bundle, load_bundle
from picker.errors import ConfigError
from picker.stepper import OnnxStepper
from pretrain.data.trace import RATE_HZ
from pretrain.evaluate import Ticker
from pretrain.metric import PHASES


def new_console() -> Console:
    """The terminal; where the output goes elsewhere, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def new_bar(console: Console) -> Progress:
    """A progress bar that is gone afterwards."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def streaming(console: Console, samples: int) -> Iterator[Ticker]:
    """A bar of streamed minutes of data."""
    with new_bar(console) as bar:
        task = bar.add_task("streaming, station minutes", total=round(samples / RATE_HZ / 60))
        done = 0

        def tick(more: int) -> None:
            nonlocal done
            done += more
            bar.update(task, completed=round(min(done, samples) / RATE_HZ / 60))

        yield tick


def add_bundle_argument(parser: argparse.ArgumentParser) -> None:
    """The bundle, the first argument of each."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of an exported bundle")


def add_threads_argument(parser: argparse.ArgumentParser) -> None:
    """How many threads compute."""
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (1)")


def add_threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """Thresholds other than the bundle's, and threads."""
    for phase in PHASES:
        option = f"--threshold-{phase.lower()}"
        parser.add_argument(option, type=float, help=f"probability at which a {phase} pick opens (the bundle's)")
    add_threads_argument(parser)


def opened(options: argparse.Namespace) -> tuple[Bundle, OnnxStepper, dict[str, float]]:
    """The bundle, its graph, and the thresholds in use; ConfigError for one that is none."""
    bundle = load_bundle(options.bundle)
    given = {phase: getattr(options, f"threshold_{phase.lower()}", None) for phase in PHASES}
    thresholds = {phase: bundle.spec.thresholds[phase] if value is None else value for phase, value in given.items()}
    for phase, value in thresholds.items():
        if not 0 < value < 1:
            raise ConfigError(f"--threshold-{phase.lower()} {value}: it must lie between 0 and 1")
    return bundle, OnnxStepper(bundle, options.threads), thresholds


def write_json(path: Path | None, figures: Any) -> None:
    """Write figures where a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
