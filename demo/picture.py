"""The demo's picture: all stations on the timeline above, every event from near below, with probabilities and picks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo.onsets import ArrivedPick, ReferenceOnset, Verdict
from demo.records import TIMELINE_START
from demo.table import utc
from demo.traces import StationTrace

COLOURS = {"P": "#1667b7", "S": "#d1342f"}
INK, PALE = "#33373d", "#9aa0a8"
COLUMNS = 7
CLUSTER_S = 4.0
BEFORE_S, AFTER_S = 1.5, 3.0
HIGH_PASS_S = 1.0

View = tuple[StationTrace, list[ReferenceOnset]]


def save_picture(
    path: Path,
    traces: Sequence[StationTrace],
    onsets: Sequence[ReferenceOnset],
    verdicts: Sequence[Verdict],
    title: str,
) -> None:
    """Write the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    views = _views(traces, onsets)
    rows = -(-len(views) // COLUMNS)
    stations = sorted({(trace.network, trace.station) for trace in traces})
    above, below = 0.36 * len(stations) + 0.6, 1.95 * rows
    figure = plt.figure(figsize=(20, above + below + 1.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(above, below), hspace=0.02)
    upper, lower = halves
    figure.suptitle(title, fontsize=15, x=0.01, ha="left", color=INK)
    _draw_timeline(upper.subplots(), traces, stations, onsets, verdicts)
    cells = lower.subplots(rows, COLUMNS, squeeze=False).ravel()
    for cell, (trace, near) in zip(cells, views, strict=False):
        _draw_event(cell, trace, near, onsets, verdicts)
    for cell in cells[len(views) :]:
        cell.axis("off")
    figure.savefig(path, dpi=100, facecolor="white")
    plt.close(figure)


def _views(traces: Sequence[StationTrace], onsets: Sequence[ReferenceOnset]) -> list[View]:
    """Each station's certain onsets in groups that lie close together."""
    views: list[View] = []
    for trace in traces:
        mine = [o for o in onsets if o.certain and _same(o, trace) and trace.covers(o.time_ns)]
        mine.sort(key=lambda onset: onset.time_ns)
        groups: list[list[ReferenceOnset]] = []
        for onset in mine:
            if groups and onset.time_ns - groups[-1][-1].time_ns <= CLUSTER_S * 1e9:
                groups[-1].append(onset)
            else:
                groups.append([onset])
        views += [(trace, group) for group in groups]
    return views


def _draw_timeline(
    axes: Any,
    traces: Sequence[StationTrace],
    stations: Sequence[tuple[str, str]],
    onsets: Sequence[ReferenceOnset],
    verdicts: Sequence[Verdict],
) -> None:
    rows = {station: -index for index, station in enumerate(stations)}
    for trace in traces:
        wave = _high_passed(trace.waveforms[0])
        level = np.quantile(np.abs(wave), 0.98) * 3 or 1.0
        seconds = _timeline_s(trace, trace.times_ns)
        row = rows[trace.network, trace.station]
        axes.plot(seconds, row + 0.42 * np.clip(wave / level, -1, 1), color=PALE, linewidth=0.4, rasterized=True)
        for onset in onsets:
            if _same(onset, trace) and trace.covers(onset.time_ns) and onset.certain:
                x = _timeline_s(trace, onset.time_ns)
                axes.plot(
                    x, row + 0.47, marker="v", markersize=6, color=COLOURS[onset.phase], markeredgewidth=0, zorder=3
                )
        for verdict in verdicts:
            pick = verdict.pick
            if _same(pick, trace) and trace.covers(pick.time_ns):
                x = _timeline_s(trace, pick.time_ns)
                axes.plot([x, x], [row - 0.42, row + 0.42], color=COLOURS[pick.phase], linewidth=1.3)
                if verdict.kind == "false":
                    axes.plot(x, row - 0.44, marker="x", markersize=7, color="black", markeredgewidth=1.6)
    axes.set_yticks(list(rows.values()), [".".join(station) for station in rows], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(stations) + 0.4, 0.65)
    axes.margins(x=0.005)
    axes.set_xlabel("seconds of the demo's timeline (records of 1990-2010, moved)", fontsize=9, color=INK)
    axes.set_title(
        "Lines: picks that came over MQTT (blue P, red S). Triangles: onsets read by eye. Cross: a pick without one.",
        fontsize=10, loc="left", color=INK,
    )  # fmt: skip
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _draw_event(
    axes: Any,
    trace: StationTrace,
    near: Sequence[ReferenceOnset],
    onsets: Sequence[ReferenceOnset],
    verdicts: Sequence[Verdict],
) -> None:
    origin_ns = near[0].time_ns
    last_s = (near[-1].time_ns - origin_ns) / 1e9 + AFTER_S
    seconds = (trace.times_ns - origin_ns) / 1e9
    shown = (seconds >= -BEFORE_S) & (seconds <= last_s)
    rows = [row for row in range(3) if trace.valid[row].any()]
    for place, row in enumerate(rows):
        wave = _high_passed(trace.waveforms[row])[shown]
        height = 0.9 / len(rows)
        middle = 1.95 - height * (place + 0.5)
        axes.plot(seconds[shown], middle + 0.5 * height * wave / (np.abs(wave).max() or 1), color=INK, linewidth=0.7)
        axes.text(-BEFORE_S, middle, " " + "ZNE"[row], fontsize=7, va="bottom", color=PALE)
    for phase, colour in COLOURS.items():
        values = trace.probabilities[trace.phases.index(phase)][shown]
        axes.fill_between(seconds[shown], 0, values, color=colour, alpha=0.3, linewidth=0)
        axes.plot(seconds[shown], values, color=colour, linewidth=0.9)
    for onset in onsets:
        x = (onset.time_ns - origin_ns) / 1e9
        if _same(onset, trace) and onset.certain and -BEFORE_S <= x <= last_s:
            axes.plot([x, x], [0, 2.0], color=COLOURS[onset.phase], linewidth=1.1, linestyle=(0, (2, 2)))
    for verdict in verdicts:
        x = (verdict.pick.time_ns - origin_ns) / 1e9
        if _same(verdict.pick, trace) and -BEFORE_S <= x <= last_s:
            _draw_pick(axes, verdict, x)
    axes.set_title(f"{trace.network}.{trace.station}  {utc(origin_ns, 0)}", fontsize=8.5, color=INK, loc="left", pad=9)
    axes.set_xlim(-BEFORE_S, last_s)
    axes.set_ylim(0, 2.02)
    axes.set_yticks([0, 0.5, 1], ["0", "", "1"], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_pick(axes: Any, verdict: Verdict, x: float) -> None:
    colour = COLOURS[verdict.pick.phase]
    axes.plot([x, x], [0, 2.0], color=colour, linewidth=1.4)
    text = {"match": f"{verdict.pick.phase} {verdict.residual_s or 0.0:+.2f}", "unsure": "?", "false": "x"}
    side = "right" if verdict.pick.phase == "P" else "left"
    axes.text(x, 2.02, text[verdict.kind], color=colour, fontsize=7, ha=side, va="bottom")


def _same(one: ReferenceOnset | ArrivedPick, trace: StationTrace) -> bool:
    return (one.network, one.station) == (trace.network, trace.station)


def _timeline_s(trace: StationTrace, time_ns: Any) -> Any:
    """Seconds on the demo's timeline of instants of the original recording (int ns, or an array of them)."""
    return (time_ns + trace.shift_ns - TIMELINE_START.ns) / 1e9


def _high_passed(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less its running mean over HIGH_PASS_S: takes away offset and microseism without delay."""
    width = round(HIGH_PASS_S * 100)
    padded = np.pad(wave, (width, width), mode="edge")
    total = np.concatenate([[0.0], np.cumsum(padded)])
    mean: NDArray[np.float64] = (total[2 * width + 1 :] - total[: -2 * width - 1]) / (2 * width + 1)
    return wave - mean
