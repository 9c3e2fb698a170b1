"""``pretrain evaluate-splice``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.build import MACHINE
from pretrain.data.continuous import MachinePick, StationRecord, miniseed_files, read_miniseed, read_picks
from pretrain.data.trace import RATE_HZ
from pretrain.data.windows import CLEAR_S
from pretrain.evaluate import read_traces
from pretrain.metric import PHASES
from pretrain.report import add_figures, plain_table
from pretrain.splice import EARLY_S, LATE_S, event_of, noise_streams, recalls, splice
from pretrain.summary import plain
from pretrain.terminal import add_bundle_argument, add_threads_argument, new_console, opened, streaming, write_json

DESCRIPTION = """\
Splice the same labelled events into streams of real noise after a minute and after five hours of them, and compare the
recall at 0.5 s at the bundle's thresholds. The noise is that of continuous data 10 s before and 30 s after any machine
pick; each event is added to each stream of it, the first second of its P 26, 18 or 10 dB above the usual level, less
where the event's own noise would be heard, and not at all below 6 dB. The state is carried from the first sample. The
last minute, the noise under the event and the event are the same in both."""
EXAMPLES = """\
example:
  pretrain evaluate-splice models/small data/labelled data/continuous --split dev"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add_bundle_argument(parser)
    add("data", type=Path, metavar="DATA", help="events: SeisBench folder, or a pack (.npz)")
    add("continuous", type=Path, metavar="FOLDER", help=f"noise: miniSEED below FOLDER, {MACHINE} in it")
    add("--split", help="only this split of DATA, for example dev")
    add("--fold", help="only this fold of DATA, for example tune")
    add("--noise-split", help="only files below FOLDER/NOISE_SPLIT")
    add("--streams", type=int, default=3, help="streams of noise (3)")
    add("--late-s", type=float, default=LATE_S, help=f"length of the long history ({LATE_S:g})")
    add("--json", type=Path, metavar="OUT.json", help="write every figure")
    add_threads_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Splice, print and write; returns the exit status."""
    bundle, stepper, thresholds = opened(options)
    if options.late_s <= 2 * EARLY_S or options.streams < 1:
        raise ConfigError(
            f"--late-s {options.late_s:g}, --streams {options.streams}: more than {2 * EARLY_S:g}, 1 or more"
        )
    traces = read_traces(options.data, split=options.split, fold=options.fold)
    usable = sum(event_of(trace) is not None for trace in traces)
    if not usable:
        raise ConfigError(f"{options.data}: no record with P, a vertical and 2 s before it")
    picks = read_picks(options.continuous / MACHINE)
    records = [r for file in miniseed_files(options.continuous, options.noise_split) for r in read_miniseed(file)]
    streams = noise_streams(records, [_quiet(r, picks.get(r.code, [])) for r in records], options.late_s)
    streams = streams[:: max(1, len(streams) // options.streams)][: options.streams]
    if not streams:
        raise ConfigError(f"{options.continuous}: no record holds two quiet minutes at a stretch, and five in all")
    console = new_console()
    samples = len(streams) * (streams[0].history.shape[1] + 2 * usable * streams[0].bed.shape[1])
    with streaming(console, samples) as tick:
        spliced = splice(stepper, streams, traces, tick=tick)
    events = len({one.name for one in spliced})
    table = plain_table(
        f"{bundle.label}: recall at 0.5 s of {events} events, {len(spliced)} times, in {len(streams)} streams of noise",
        "",
    )
    hours = options.late_s / 3600
    add_figures(table, "times", f"after {EARLY_S:g} s", f"after {hours:g} h", "difference (95 %)")
    figures: dict[str, Any] = {"bundle": bundle.label, "thresholds": thresholds, "events": events}
    figures |= {"streams": [stream.name for stream in streams], "early_s": EARLY_S, "late_s": options.late_s}
    for phase in PHASES:
        count, early, late, within = recalls(spliced, phase)
        row = f"{late - early:+.3f} ({within.low:+.3f} to {within.high:+.3f})"
        table.add_row(phase, str(count), f"{early:.3f}", f"{late:.3f}", row)
        figures[phase] = {"times": count, "early": early, "late": late, "difference": late - early, "within": within}
    console.print(table)
    write_json(options.json, plain(figures))
    return 0


def _quiet(record: StationRecord, picks: list[MachinePick]) -> NDArray[np.bool_]:
    """(N,) whether a sample lies far enough from every machine pick; after one, three times as far (its coda)."""
    quiet = np.ones(record.waveform.shape[1], dtype=np.bool_)
    for pick in picks:
        sample = record.sample_of(pick.time_ns)
        before, after = sample - CLEAR_S * RATE_HZ, sample + 3 * CLEAR_S * RATE_HZ
        quiet[max(0, round(before)) : max(0, round(after))] = False
    return quiet
