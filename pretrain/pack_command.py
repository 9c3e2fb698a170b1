"""The command ``pretrain pack``: a small file to carry about, or a folder of shards of any size."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from picker.errors import ConfigError
from pretrain.data.blocks import HELD_SHARE
from pretrain.data.build import PackPlan, build_pack
from pretrain.data.folder_build import FolderPlan, build_folder
from pretrain.data.parts import CONSENSUS, MACHINE, MINISEED, OBSERVED, PICKED, SEISBENCH, Input, Rules
from pretrain.data.reading import Reading
from pretrain.data.sets import SETS, set_folder, set_name
from pretrain.data.trace import TRAIN

FILE_BUDGET = "55MiB"

DESCRIPTION = f"""\
Pack waveforms and labels for training, resampled to 100 Hz and ordered Z, N, E. What OUT is depends on its name:

  OUT.npz   one small compressed file: all of --labelled, then traces of the other inputs in turn and windows of
            --continuous in turn from every station, until --budget (default {FILE_BUDGET}) is full. The same data give
            the same file.
  OUT       a folder of shards of any size, which training reads at random without loading it. A build that was ended
            goes on where it was; further sets can be added later.

Your own data: --picked FOLDER PICKS takes miniSEED (continuous, or cut around events; any rate from 20 to 1000 Hz) and
a file of picks. Windows are cut around the picks, and events are held out whole.

  PICKS.csv   columns network, station, phase, time (ISO 8601, UTC unless it names a zone) and, where known, location,
              channel, weight (0 to 1), event (an id), split (train, dev). With a column probability they are a
              machine's: probabilities are weights, and what lies far from every pick is noise.
  PICKS.xml   QuakeML (pip install 'onset[obspy]').

Pg, Pn, Pb count as P, and so for S; picks of other phases, and picks where there are no data, are counted and left out.
Traces that cannot be used are skipped and counted by reason. Known sets are looked for in SeisBench's cache."""

EXAMPLES = """\
examples:
  pretrain pack train.npz --labelled data/labelled --continuous data/continuous --budget 55MiB
  pretrain pack own.npz --picked data/2024 data/2024/picks.csv --folder simulated
  pretrain pack packed --set STEAD --set ETHZ --folder data/labelled --miniseed data/days --workers 8"""


def size_bytes(text: str) -> int:
    """Bytes of a size such as 55MiB, 60MB or 1GiB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write for example 55MiB or 1GiB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMG".index(prefix.upper() or " "))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("pack", type=Path, metavar="OUT", help="file (.npz) or folder to write")
    add("--labelled", type=Path, metavar="FOLDER", help="SeisBench folder: all traces of the split go in")
    add(
        "--continuous",
        type=Path,
        metavar="FOLDER",
        help=f"folder of miniSEED (below FOLDER/<split> where that exists) with {CONSENSUS} and, better, {MACHINE}",
    )
    add("--set", action="append", default=[], metavar="NAME", help=f"a set in SeisBench's cache: {', '.join(SETS)}")
    add("--folder", action="append", default=[], type=Path, help="a folder in SeisBench format; may be given again")
    add(
        "--miniseed",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="miniSEED without picks",
    )
    add(
        "--picked",
        action="append",
        default=[],
        nargs=2,
        type=Path,
        metavar=("FOLDER", "PICKS"),
        help="your own miniSEED and its picks, a CSV or a QuakeML file; may be given again",
    )
    add(
        "--as-noise",
        action="append",
        default=[],
        metavar="CATEGORY",
        help="a trace_category of SeisBench's sets to learn as noise, for example teleseism or 'quarry blast'",
    )
    add("--budget", type=size_bytes, help=f"largest size of OUT (default: {FILE_BUDGET} for a file, none for a folder)")
    add("--window-s", type=float, default=120.0, help="length of windows of --continuous (120)")
    add("--split", default=TRAIN, help="split of the data to pack (train); for a folder also `all`")
    add("--tune-share", type=float, default=0.12, help="share of events held out as fold tune (0.12)")
    add(
        "--held-share",
        type=float,
        default=HELD_SHARE,
        help=f"share of ten-minute blocks of continuous data left out, for `pretrain calibrate` ({HELD_SHARE:g})",
    )
    add("--dtype", choices=("int16", "float16"), default="int16", help="samples of a folder of shards (int16)")
    add("--shard-size", type=size_bytes, default="1GiB", help="about the size of a shard (1GiB)")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), help="processes that build a folder (%(default)s)")


def run(options: argparse.Namespace, console: Console, new_bar: Callable[[Console], Progress]) -> int:
    """Pack, and print what went in; returns the exit status."""
    for option in ("tune_share", "held_share"):
        if not 0 <= (share := getattr(options, option)) < 1:
            raise ConfigError(f"--{option.replace('_', '-')} {share:g}: it is a share, from 0 to less than 1")
    if not 1 <= options.workers <= 4 * (os.cpu_count() or 1):
        raise ConfigError(f"--workers {options.workers}: from 1 to a few for each of the {os.cpu_count()} processors")
    if options.pack.suffix == ".npz":
        return _pack_file(options, console, new_bar)
    return _pack_folder(options, console, new_bar)


def _others(options: argparse.Namespace) -> Iterator[Input]:
    for name in options.set:
        yield Input(kind=SEISBENCH, name=set_name(name), folder=set_folder(name))
    for kind, folders in ((SEISBENCH, options.folder), (MINISEED, options.miniseed)):
        for folder in folders:
            yield Input(kind=kind, name=folder.resolve().name, folder=folder)
    for folder, picks in options.picked:
        yield Input(kind=OBSERVED, name=folder.resolve().name, folder=folder, picks=picks)


def _pack_file(options: argparse.Namespace, console: Console, new_bar: Callable[[Console], Progress]) -> int:
    others = tuple(_others(options))
    if options.labelled is None and options.continuous is None and not others:
        raise ConfigError("nothing to pack: give --labelled, --continuous, --picked, --set or --folder")
    plan = PackPlan(
        labelled=options.labelled,
        continuous=options.continuous,
        budget_bytes=size_bytes(FILE_BUDGET) if options.budget is None else options.budget,
        window_s=options.window_s,
        split=options.split,
        tune_share=options.tune_share,
        held_share=options.held_share,
        others=others,
        as_noise=tuple(options.as_noise),
    )
    with new_bar(console) as bar:
        tasks = {
            what: bar.add_task(what, total=None)
            for what in ("labelled traces", "other inputs, KiB", "continuous files")
        }

        def progress(what: str, done: int, total: int) -> None:
            bar.update(tasks[what], completed=done, total=total)

        written = build_pack(plan, options.pack, progress)
    for (kind, fold), count in sorted(written.counts.items()):
        console.print(f"  {count:6d}  {kind}, fold {fold}", highlight=False)
    _show(written.readings, console)
    left_out = f"; {written.left_out} windows did not fit" if written.left_out else ""
    console.print(f"{written.path}: {written.size_bytes / 2**20:.1f} MiB{left_out}", highlight=False)
    return 0


def _pack_folder(options: argparse.Namespace, console: Console, new_bar: Callable[[Console], Progress]) -> int:
    given = [
        Input(kind=kind, name=folder.resolve().name, folder=folder)
        for kind, folder in ((SEISBENCH, options.labelled), (PICKED, options.continuous))
        if folder is not None
    ]
    plan = FolderPlan(
        inputs=(*given, *_others(options)),
        rules=Rules(
            split=options.split,
            tune_share=options.tune_share,
            held_share=options.held_share,
            window_s=options.window_s,
            as_noise=tuple(options.as_noise),
        ),
        dtype=options.dtype,
        shard_bytes=options.shard_size,
        budget_bytes=options.budget,
    )
    with new_bar(console) as bar:
        task = bar.add_task("rows and files", total=None)
        report = build_folder(
            plan, options.pack, options.workers, lambda done, total: bar.update(task, completed=done, total=total)
        )
    _show(report.readings, console)
    there = f", {report.found_done} of them there before" if report.found_done else ""
    console.print(f"{report.path}: {report.size_bytes / 2**20:.1f} MiB in {report.parts} parts{there}", highlight=False)
    return 0


def _show(readings: dict[str, Reading], console: Console) -> None:
    for name, reading in readings.items():
        console.print(f"{name}: {reading.read} traces", highlight=False)
        for line in reading.lines():
            console.print(line, highlight=False)
