"""The sub-command ``streamer pick``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from picker.errors import ConfigError
from streamer.archive.job import Job
from streamer.archive.plan import Tally, archive_paths, plan
from streamer.archive.reader import ArchiveReader
from streamer.archive.selection import Selection, parse_instant
from streamer.archive.setup import add_setup_arguments, read_setup
from streamer.archive.writers import FORMATS, format_of, open_writer
from streamer.capture.play_command import play
from streamer.logs import configure_logs
from streamer.picking import MOST_ROWS

DESCRIPTION = """\
Pick recorded data as fast as it can: miniSEED 2 and 3 files, folders, SDS archives, or standard input.

Records are read in order of time whatever files they are in, and go through the stations, the engine and the decision
of the daemon: the picks are those that `streamer run` makes of the same records, with the same ids. At the end of the
data what is held is worked off as at the daemon's end: the model judges an instant 0.64 s later, so that nothing is
picked in the last 0.64 to 1.28 s.

A file that cannot be read and a record that is damaged are left out, with a warning, and counted. Only what is near in
time is in memory, so an archive may be of any length. docs/pick.md says more."""

EXAMPLES = """\
examples:
  streamer pick event.mseed                                        picks as CSV on standard output
  streamer pick --out picks.jsonl /archive/2010                    a folder; one MQTT payload a line
  streamer pick --select 'CX.PB*' --start 2014-04-01 --end 2014-04-03 --out picks.xml /sds
                                                                   two days of an SDS archive as QuakeML
  streamer pick --select 'CX.PB01.*.HH?' --threshold-p 0.8 /sds    one instrument, only sure P
  streamer pick --config my.toml --out picks.csv /sds              with the model and settings of a daemon
  cat *.mseed | streamer pick -                                    standard input, read to its end first
  streamer pick --capture --config my.toml captures/               what a daemon picked, byte for byte (docs/capture.md)

exit status: 0 done; 1 the reader of the output has gone; 2 something to mend, said in one line; 130 interrupted
"""

REFRESH_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer pick``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="miniSEED file, folder, root of an SDS archive, or - (standard input)")
    add("--capture", action="store_true",
        help="PATH are captures, of `streamer capture` or a daemon: pick them as they came")  # fmt: skip
    add("--out", type=Path, metavar="FILE", help="where picks go: .csv, .json, .jsonl or .xml (default: CSV to stdout)")
    add("--format", choices=FORMATS, help="format, where the name of FILE does not say it; quakeml needs obspy")
    add("--select", action="append", default=[], metavar="GLOB",
        help="only channels that match STA, NET.STA or NET.STA.LOC.CHA (with * and ?); may be repeated")  # fmt: skip
    add("--start", metavar="TIME", help="only data from here on (UTC): 2010-05-27, 2010-147, 2010-05-27T16:24:03.5")
    add("--end", metavar="TIME", help="only data before this")
    add_setup_arguments(parser)
    add("--batch", type=int, default=MOST_ROWS, metavar="N",
        help="most stations in one call of the model (default %(default)s)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run ``streamer pick``; returns the exit status. Raises OnsetError for what the user has to mend."""
    if args.batch < 1:
        raise ConfigError(f"--batch {args.batch}: give 1 or more")
    work = play if args.capture else _pick
    try:
        work(args)
    except BrokenPipeError:  # the reader of a pipe has gone
        _leave_stdout()
        return 1
    except ConfigError:
        if args.out is None and not _flushed():
            _leave_stdout()
        raise
    return 0


def _pick(args: argparse.Namespace) -> None:
    """Pick the files that ``args`` names."""
    selection = Selection(
        patterns=tuple(args.select),
        start_ns=parse_instant("--start", args.start),
        end_ns=parse_instant("--end", args.end),
    )
    form = format_of(args.out, args.format)
    setup = read_setup(args)
    console = Console(stderr=True)
    with archive_paths(args.paths) as paths, open_writer(form, args.out, sys.stdout) as writer:
        job = Job(setup, writer.write, args.batch)
        tally = _work(job, paths, selection, console, bar=args.out is not None or not sys.stdout.isatty())
        if not job.progress.stations:
            raise ConfigError(_nothing(job, tally, args.paths))
    console.print(summary(job, tally), highlight=False, markup=False, soft_wrap=True)


def _flushed() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _leave_stdout() -> None:
    """Python must not try to write what is left when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _work(job: Job, paths: Sequence[Path], selection: Selection, console: Console, *, bar: bool) -> Tally:
    """Read, pick and show how far it is."""
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not (bar and sys.stderr.isatty())) as progress:
        configure_logs("console", "warning")
        tally = Tally()
        task = progress.add_task("looking through the files", total=None)
        files = plan(paths, selection, tally)
        reader = ArchiveReader(files, selection, tally)
        progress.update(task, total=sum(file.size for file in files))
        shown_s = 0.0

        def show() -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s >= REFRESH_S:
                shown_s = now_s
                here = job.progress
                text = f"{here.stations} stations, {here.picks.total()} picks, {here.speed:,.0f} times real time"
                progress.update(task, completed=tally.bytes_done, description=text)

        job.run(reader, show)
    return tally


def _nothing(job: Job, tally: Tally, names: Sequence[str]) -> str:
    """Why there is nothing to pick, in one line."""
    refused = tally.refused + job.stations.counts
    reasons = [f"files that cannot be read: {tally.unreadable}"] if tally.unreadable else []
    reasons += [f"refused: {_listed(refused)}"] if refused else []
    where = ", ".join("standard input" if name == "-" else name for name in names[:3])
    where += ", ..." if len(names) > 3 else ""
    return f"nothing to pick in {where}: {'; '.join(reasons) or 'no data of the stations and times asked for'}"


def summary(job: Job, tally: Tally) -> str:
    """What was done, for people."""
    done = job.progress
    hours = done.station_s / 3600
    picks = ", ".join(f"{done.picks[phase]} {phase}" for phase in sorted(done.picks)) or "none"
    lines = [
        f"{done.stations} stations, {hours:,.2f} station-hours; picks: {picks}",
        f"{done.elapsed_s:,.1f} s: {done.speed:,.0f} times real time of one station, "
        f"{hours / max(done.elapsed_s, 1e-9):,.3f} station-hours a second",
        f"{tally.files} files, {tally.unreadable} unreadable; {tally.records:,} records"
        + (f", refused: {_listed(tally.refused)}" if tally.refused else ", none refused"),
    ]
    if counts := job.stations.counts:
        lines.append(f"decisions of the stations: {_listed(counts)}")
    return "\n".join(lines)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
