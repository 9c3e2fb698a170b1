"""Continuous records cut into stretches of data, of which nothing is known: for learning without labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pretrain.data.continuous import StationRecord
from pretrain.data.folds import order_key
from pretrain.data.resample import runs
from pretrain.data.trace import RATE_HZ, TRAIN, TUNE, UNLABELLED, Trace

GAP_S = 10.0
"""A gap in all components that is longer than this ends a stretch."""
SHORTEST_S, LONGEST_S = 20.0, 3600.0


def cut_stretches(record: StationRecord, name: str, tune_share: float) -> Iterator[Trace]:
    """The stretches of one record of the set ``name``, of at most an hour each; ``tune_share`` of them are held out."""
    longest = round(LONGEST_S * RATE_HZ)
    for first, stop in _spans(record):
        for start in range(first, stop, longest):
            end = min(stop, start + longest)
            if end - start < SHORTEST_S * RATE_HZ:
                continue
            waveform, valid = record.waveform[:, start:end], record.valid[:, start:end]
            level = np.take_along_axis(waveform, valid.argmax(axis=1)[:, None], axis=1)
            stamp = np.datetime64(record.start_ns + round(start * 1e9 / RATE_HZ), "ns")
            title = f"{record.name}.{np.datetime_as_string(stamp, unit='ms')}"
            yield Trace(
                name=title,
                waveform=np.where(valid, waveform - level, np.float32(0)),
                valid=valid,
                kind=UNLABELLED,
                fold=TUNE if is_held(name, title, tune_share) else TRAIN,
                status=UNLABELLED,
                split=TRAIN,
                source=f"{name}/{record.code.network}.{record.code.station}",
                group=title,
            )


def _spans(record: StationRecord) -> list[tuple[int, int]]:
    """Stretches [start, stop) of data in any component, over short gaps."""
    joined: list[tuple[int, int]] = []
    for start, stop in runs(np.asarray(record.valid.any(axis=0))):
        if joined and start - joined[-1][1] <= GAP_S * RATE_HZ:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined


def is_held(name: str, group: str, share: float) -> bool:
    """Whether a group of the set ``name`` is held out of training: ``share`` of them are, by a fixed hash."""
    return int(order_key("tune", name, group)[:8], 16) < share * 16**8
