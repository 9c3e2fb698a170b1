"""The sub-command ``pretrain simulate``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress

from picker.errors import ConfigError
from pretrain.simulate.settings import SimulationSettings

if TYPE_CHECKING:
    from pretrain.simulate.crew import Made

_SHOWN = 12
_FORMS = ("pack", "seisbench")
DESCRIPTION = """\
Simulate labelled records of local earthquakes, noise and faults, without any download: Brune's source, rays through a
crust over a mantle, attenuation, scattered coda, the free surface, four instruments, and noise between the models of
Peterson (1993). Labels are exact to a sample. Each record depends on the seed and its number alone: more records or
other --workers change none of them. Records of a folder hold at most one event each, since its format has one P and
one S."""
EXAMPLES = """\
examples:
  pretrain simulate simulated.npz --count 2000 --workers 4
  pretrain simulate simulated --count 2000 --seed 1 --plot examples.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the sub-command."""
    default = SimulationSettings()
    parser.add_argument("out", type=Path, metavar="OUT", help="pack to write, or folder in SeisBench format")
    parser.add_argument("--count", type=int, default=1000, help="number of records (1000)")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="length of a record (60)")
    parser.add_argument("--seed", type=int, default=default.seed, help="another seed gives other records (0)")
    parser.add_argument(
        "--format", choices=_FORMS, help="what OUT is (pack where it ends in .npz, seisbench otherwise)"
    )
    parser.add_argument("--noise-share", type=float, default=default.noise_share, help="records without event (0.1)")
    parser.add_argument(
        "--min-snr",
        type=float,
        default=default.min_snr,
        help="least signal to noise, 1-20 Hz rms, of a label; fainter arrivals are doubtful (2)",
    )
    for name, values, unit in (("magnitude", default.magnitude, ""), ("distance", default.distance_km, " in km")):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs=2,
            default=values,
            metavar=("LOW", "HIGH"),
            help=f"least and greatest {name}{unit} ({values[0]:g} {values[1]:g})",
        )
    parser.add_argument(
        "--held-out-share", type=float, default=default.held_out_share, help="records of fold tune or split dev (0.1)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (1)")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help=f"draw the first {_SHOWN} records with labels")


def settings_of(options: argparse.Namespace, form: str) -> SimulationSettings:
    """The settings that the arguments ask for; raises ConfigError for values out of range."""
    settings = SimulationSettings(
        seconds=options.seconds,
        seed=options.seed,
        noise_share=options.noise_share,
        min_snr=options.min_snr,
        magnitude=tuple(options.magnitude),
        distance_km=tuple(options.distance),
        held_out_share=options.held_out_share,
    )
    return replace(settings, several_share=0.0) if form == "seisbench" else settings


def run(options: argparse.Namespace, console: Console, new_bar: Callable[[Console], Progress]) -> int:
    """Simulate, write, and print what was made and how fast; returns the exit status."""
    form = options.format or ("pack" if options.out.suffix == ".npz" else "seisbench")
    settings = settings_of(options, form)
    if options.count < 1:
        raise ConfigError(f"--count {options.count}: at least one record")
    if not 1 <= options.workers <= 4 * (os.cpu_count() or 1):
        raise ConfigError(f"--workers {options.workers}: from 1 to a few for each of the {os.cpu_count()} processors")
    if options.out.exists() and options.out.is_dir() == (form == "pack"):
        raise ConfigError(f"{options.out}: is there already and is no {form}; choose another name or --format")
    from pretrain.data.pack import save_pack
    from pretrain.simulate.crew import make_all
    from pretrain.simulate.folder import write_folder

    begin_s = time.perf_counter()
    tally = Tally()
    with new_bar(console) as bar:
        task = bar.add_task("simulated records", total=options.count)
        made = tally.counting(make_all(settings, form, options.count, options.workers), lambda: bar.advance(task))
        if form == "pack":
            save_pack(options.out, (one.packed for one in made if one.packed is not None))
        else:
            write_folder(
                options.out,
                ((one.row, one.waveform) for one in made if one.row is not None and one.waveform is not None),
            )
    for line in tally.lines(time.perf_counter() - begin_s, options.workers):
        console.print(line, highlight=False)
    console.print(f"{options.out}: {form}, seed {settings.seed}", highlight=False)
    if options.plot is not None:
        from pretrain.simulate.figure import plot
        from pretrain.simulate.recording import simulate

        plot([simulate(settings, index) for index in range(min(_SHOWN, options.count))], options.plot)
    return 0


class Tally:
    """Counts what goes through."""

    def __init__(self) -> None:
        self.records = self.noise = self.labels = 0
        self.cpu_s = 0.0

    def counting(self, made: Iterator[Made], tick: Callable[[], None]) -> Iterator[Made]:
        """``made`` as it comes, counted; ``tick`` is called for each."""
        for one in made:
            self.records, self.labels = self.records + 1, self.labels + one.labels
            self.noise, self.cpu_s = self.noise + one.is_noise, self.cpu_s + one.cpu_s
            tick()
            yield one

    def lines(self, wall_s: float, workers: int) -> Iterator[str]:
        """What was made, and how fast."""
        yield f"{self.records} records with {self.labels} labels, {self.noise} of noise alone"
        yield (
            f"simulated at {self.records / max(self.cpu_s, 1e-9):.0f} records a second of one core;"
            f" written within {wall_s:.1f} s by {workers} process(es), {self.records / wall_s:.0f} records a second"
        )
