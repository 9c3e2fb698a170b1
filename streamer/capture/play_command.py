"""``streamer pick --capture``: the picks of a capture."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from picker.errors import ConfigError
from streamer.archive.setup import read_setup
from streamer.archive.writers import format_of, open_writer
from streamer.capture.playback import Playback
from streamer.capture.reader import Capture
from streamer.logs import configure_logs
from streamer.settings import load_settings

REFRESH_S = 0.2
NOT_WITH = ("select", "start", "end")

_log = structlog.get_logger(__name__)


def play(args: argparse.Namespace) -> None:
    """Pick the captures that ``args.paths`` name. Raises OnsetError for what the user has to mend."""
    for name in NOT_WITH:
        if getattr(args, name):
            raise ConfigError(f"--{name}: a capture is played as it came; leave it out")
    if "-" in args.paths:
        raise ConfigError("-: a capture is read from files, not from standard input")
    setup = read_setup(args)
    daemon = None if args.config is None else load_settings(args.config)
    console = Console(stderr=True)
    configure_logs("console", "warning")
    capture = Capture([Path(name) for name in args.paths])
    if other := capture.bundles - {setup.bundle.digest}:
        _log.warning(
            "the captured run picked with another model: picks will differ",
            captured=", ".join(sorted(digest[:12] for digest in other)),
            here=setup.bundle.digest[:12],
        )
    with open_writer(format_of(args.out, args.format), args.out, sys.stdout) as writer:
        playback = Playback(setup, daemon, writer.write, args.batch)
        begun_s = time.monotonic()
        _show(playback, capture, console, bar=args.out is not None or not sys.stdout.isatty())
        if not capture.tally.packets:
            raise ConfigError(f"{args.paths[0]}: the capture holds no packet")
    console.print(summary(playback, capture, time.monotonic() - begun_s), highlight=False, markup=False, soft_wrap=True)


def _show(playback: Playback, capture: Capture, console: Console, *, bar: bool) -> None:
    """Play, and show how far it is."""
    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not (bar and sys.stderr.isatty())) as progress:
        configure_logs("console", "warning")  # to where the bar is
        task = progress.add_task("", total=capture.size)
        shown_s = 0.0

        def show() -> None:
            nonlocal shown_s
            now_s = time.monotonic()
            if now_s - shown_s >= REFRESH_S:
                shown_s = now_s
                text = f"{capture.tally.packets:,} packets, {playback.picks.total()} picks"
                progress.update(task, completed=capture.tally.bytes_done, description=text)

        playback.run(capture, show)


def summary(playback: Playback, capture: Capture, elapsed_s: float) -> str:
    """What was done, for people."""
    tally = capture.tally
    picks = ", ".join(f"{playback.picks[phase]} {phase}" for phase in sorted(playback.picks)) or "none"
    lines = [
        f"{playback.picking.engine.stations} stations, {playback.station_s / 3600:,.2f} station-hours; picks: {picks}",
        f"{elapsed_s:,.1f} s: {playback.station_s / max(elapsed_s, 1e-9):,.0f} times real time of one station",
        f"{len(capture.files)} files, {tally.packets:,} packets of {len(capture.servers)} servers, "
        f"{playback.records:,} records" + (f", not used: {_listed(playback.refused)}" if playback.refused else ""),
    ]
    if tally.damaged or tally.lost:
        lines.append(
            f"damaged and passed over: {tally.damaged}; packets that the capture lacks: {tally.lost}: "
            "picks may differ from those of the live run"
        )
    if tally.end is None or not tally.end.flushed:
        lines.append("the run went on, or kept its state: what is open at the end of the capture is not decided")
    if counts := playback.picking.stations.counts:
        lines.append(f"decisions of the stations: {_listed(counts)}")
    return "\n".join(lines)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
