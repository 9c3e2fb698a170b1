"""A page of recordings with their labels, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.data.trace import COMPONENTS, RATE_HZ
from pretrain.simulate.recording import Recording

COLOURS = {"P": "tab:red", "S": "tab:blue"}


def plot(recordings: Sequence[Recording], path: Path) -> None:
    """Draw ``recordings`` in three columns, each component to its own scale; dashed lines are doubtful arrivals."""
    from matplotlib.figure import Figure

    rows = -(-len(recordings) // 3)
    figure = Figure(figsize=(18, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel, recording in zip(axes, recordings, strict=False):
        _draw(panel, recording)
    for panel in axes[len(recordings) :]:
        panel.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _draw(panel: Any, recording: Recording) -> None:
    trace = recording.trace
    time_s = np.arange(trace.samples) / RATE_HZ
    for row, (name, samples, valid) in enumerate(zip(COMPONENTS, trace.waveform, trace.valid, strict=True)):
        shown = np.where(valid, samples.astype(np.float64), np.nan)
        middle = float(np.nanmedian(shown)) if valid.any() else 0.0
        largest = float(np.nanmax(np.abs(shown - middle))) if valid.any() else 1.0
        panel.plot(time_s, (shown - middle) / (2.1 * (largest or 1.0)) - row, color="black", linewidth=0.5)
        panel.text(0, -row + 0.28, f"{name} {largest:.3g}", fontsize=7, color="dimgrey")
    for label in trace.labels:
        panel.axvline(label.sample / RATE_HZ, color=COLOURS[label.phase], linewidth=0.9)
    for label in trace.doubtful:
        panel.axvline(label.sample / RATE_HZ, color=COLOURS[label.phase], linewidth=0.9, linestyle="--")
    panel.set(xlim=(0, trace.samples / RATE_HZ), ylim=(-2.6, 0.6), yticks=[])
    panel.tick_params(labelsize=7)
    panel.set_title(_title(recording), fontsize=8)


def _title(recording: Recording) -> str:
    events = [
        f"M{seen.event.source.magnitude:.1f} {seen.event.geometry.distance_km:.0f} km"
        f" h{seen.event.geometry.depth_km:.0f} snr {seen.snr['P']:.1f}/{seen.snr['S']:.1f}"
        for seen in recording.events
    ]
    return f"{recording.index}, {recording.station.instrument.name}: " + ("; ".join(events) or "noise")
