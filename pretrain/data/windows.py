"""Cutting continuous records into windows: around machine picks, and where no machine saw anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from pretrain.data.blocks import touches_held
from pretrain.data.continuous import STEP_NS, MachinePick, StationRecord
from pretrain.data.folds import order_key
from pretrain.data.trace import NOISE, PSEUDO, RATE_HZ, TRAIN, Label, Trace

CLEAR_S = 10.0
"""A noise window keeps this far from every machine pick; the coda of a pick just before it is still no arrival."""
AGREE_S = 0.35
"""A machine pick this close to a consensus pick of its phase is the same pick."""
MIN_VALID = 0.5
"""Windows whose best component is valid for less than this share are left out."""


def cut_windows(
    record: StationRecord,
    consensus: Sequence[MachinePick],
    machine: Sequence[MachinePick],
    window_s: float = 120.0,
    source: str = "continuous",
    split: str = "train",
    held_share: float = 0.0,
) -> Iterator[Trace]:
    """Windows of one record, in order of time, none overlapping another of its kind.

    ``held_share`` of the blocks of time are held out (``pretrain.data.blocks``): no window touches one.

    A window around picks starts 15 to 50 s (by a fixed hash) before the first consensus pick that no earlier window
    holds, and carries every consensus pick in it as a label weighted by its probability; machine picks without
    consensus are its ``doubtful``. Noise windows hold no machine pick.
    """
    samples = round(window_s * RATE_HZ)
    for kind, starts in (
        (PSEUDO, starts_around(record, consensus, samples)),
        (NOISE, starts_without(record, [*machine, *consensus], samples)),
    ):
        for start in starts:
            begin_ns, end_ns = (record.start_ns + sample * STEP_NS for sample in (start, start + samples))
            if touches_held(begin_ns, end_ns, held_share):
                continue
            trace = window(record, start, samples, consensus, machine, kind=kind, source=source, split=split)
            if trace.valid.mean(axis=1).max() >= MIN_VALID:
                yield trace


def starts_around(record: StationRecord, picks: Sequence[MachinePick], samples: int) -> Iterator[int]:
    """Starts of windows that together hold every pick, as far as the record reaches."""
    end, last = 0, record.waveform.shape[1] - samples
    for pick in sorted(picks, key=lambda pick: pick.time_ns):
        sample = record.sample_of(pick.time_ns)
        if last < 0 or not end <= sample < record.waveform.shape[1]:
            continue
        lead_s = 15 + 35 * int(order_key(record.name, pick.time_ns)[:8], 16) / 16**8
        start = min(last, max(end, round(sample - lead_s * RATE_HZ)))
        yield start
        end = start + samples


def starts_without(record: StationRecord, picks: Sequence[MachinePick], samples: int) -> Iterator[int]:
    """Starts of windows side by side in the stretches free of picks."""
    clear = round(CLEAR_S * RATE_HZ)
    times = sorted(record.sample_of(pick.time_ns) for pick in picks)
    bounds = [-clear, *(round(time) for time in times), record.waveform.shape[1] + clear]
    for before, after in pairwise(bounds):
        yield from range(max(0, before + clear), after - clear - samples + 1, samples)


def window(
    record: StationRecord,
    start: int,
    samples: int,
    consensus: Sequence[MachinePick],
    machine: Sequence[MachinePick],
    *,
    kind: str,
    source: str,
    split: str = TRAIN,
) -> Trace:
    """The window of ``samples`` from ``start``: picks of ``consensus`` are labels, others of ``machine`` doubtful."""
    here = slice(start, start + samples)
    labels = _labels(record, start, samples, consensus)
    others = (
        label
        for label in _labels(record, start, samples, machine)
        if not any(abs(label.sample - k.sample) <= AGREE_S * RATE_HZ and label.phase == k.phase for k in labels)
    )
    waveform, valid = record.waveform[:, here], record.valid[:, here]
    first = np.take_along_axis(waveform, valid.argmax(axis=1)[:, None], axis=1)
    stamp = np.datetime64(record.start_ns + round(start * 1e9 / RATE_HZ), "ns")
    name = f"{record.name}.{np.datetime_as_string(stamp, unit='ms')}"
    return Trace(
        name=name,
        waveform=np.where(valid, waveform - first, np.float32(0)),
        valid=valid,
        labels=labels,
        doubtful=tuple(others),
        kind=kind,
        fold=TRAIN,
        status="pseudo" if kind == PSEUDO else "noise",
        split=split,
        source=f"{source}/{record.code.network}.{record.code.station}",
        group=name,
        channel=record.band_instrument,
    )


def _labels(record: StationRecord, start: int, samples: int, picks: Sequence[MachinePick]) -> tuple[Label, ...]:
    found = (
        Label(phase=pick.phase, sample=record.sample_of(pick.time_ns) - start, weight=min(1.0, pick.probability))
        for pick in picks
    )
    return tuple(sorted((k for k in found if 0 <= k.sample < samples), key=lambda k: k.sample))
