"""Windows held out of training: the same ones at every validation, data set by data set, with their arrivals.

Shapes: B windows, K labels a window.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.bank import UNSEEN
from pretrain.data.catalogue import Catalogue
from pretrain.data.folds import order_key
from pretrain.data.store import Store, store_of
from pretrain.data.trace import NOISE, TUNE, Trace
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_decode import CodedWindows, decoded
from pretrain.selfsupervised.data_draw import generator_of, place_windows

ARRIVAL_SHARE = 0.7


@dataclass(frozen=True)
class LabelledBatch:
    """Windows of one ``data_set``.

    ``positions`` (B, K) are samples from the start of the window (``pretrain.bank.UNSEEN`` where there is no arrival in
    it), ``phases`` (B, K) 0 for P and 1 for S; ``noise`` (B,) says that the trace is a noise record; ``names`` are the
    traces.
    """

    data_set: str
    batch: Batch
    positions: Tensor
    phases: Tensor
    noise: Tensor
    names: tuple[str, ...]


def held_out(
    traces: Sequence[Trace] | Store, samples: int, batch: int, seed: int, device: torch.device, most: int = 256
) -> list[LabelledBatch]:
    """Fixed windows of ``samples`` of the fold tune, at most ``most`` of each data set, ``batch`` at a time.

    Data sets come in the order of their names; most windows of labelled traces hold an arrival. No window is augmented.
    Empty where no trace is of the fold tune.
    """
    if not isinstance(traces, Store):
        traces = store_of([trace for trace in traces if trace.fold == TUNE])
    store = traces.only((TUNE,))
    sets = store.catalogue.data_sets()
    found = []
    for data_set in sorted({sets.texts[code] for code in sets.codes}):
        rows = _rows(store.catalogue, np.flatnonzero(sets.among((data_set,))), samples, most)
        random = generator_of(seed, zlib.crc32(data_set.encode()))
        starts = place_windows(store.catalogue, rows, samples, ARRIVAL_SHARE, random)
        for first in range(0, len(rows), batch):
            here = slice(first, first + batch)
            found.append(_labelled(store, data_set, rows[here], starts[here], samples, device))
    return found


def _rows(catalogue: Catalogue, rows: NDArray[np.int64], samples: int, most: int) -> NDArray[np.int64]:
    """Traces of which to take windows: each as often as it is windows long, in a fixed arbitrary order."""
    names = catalogue.words["name"]
    ordered = sorted(rows.tolist(), key=lambda row: order_key("held out", names[row]))
    times = np.maximum(1, catalogue.samples[ordered] // samples)
    # Whole rounds of all traces first: a few long ones must not take all places.
    chosen = [row for turn in range(int(times.max())) for row, n in zip(ordered, times, strict=True) if turn < n]
    return np.array(chosen[:most], np.int64)


def _labelled(
    store: Store,
    data_set: str,
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    samples: int,
    device: torch.device,
) -> LabelledBatch:
    known = store.catalogue
    most = max(1, int(known.label_count[rows].max()))
    positions, phases = np.full((len(rows), most), UNSEEN, np.float32), np.zeros((len(rows), most), np.int64)
    for window, (row, start) in enumerate(zip(rows.tolist(), starts.tolist(), strict=True)):
        here = known.labels(row)
        place = known.label_sample[here] - start
        positions[window, : len(place)] = np.where((place >= 0) & (place < samples), place, UNSEEN)
        phases[window, : len(place)] = known.label_phase[here]
    windows = CodedWindows(
        codes=torch.from_numpy(store.cut(rows, starts, samples)).to(device),
        scale=torch.from_numpy(known.scale[rows]).to(device),
        bend=torch.from_numpy(known.bend[rows]).to(device),
        keep=torch.ones(len(rows), 3, dtype=torch.bool, device=device),
        gain=torch.ones(len(rows), 3, device=device),
        birth=torch.zeros(len(rows), dtype=torch.int64, device=device),
    )
    names = tuple(known.words["name"][row] for row in rows.tolist())
    noise = torch.tensor([known.words["kind"][row] == NOISE for row in rows.tolist()], device=device)
    place, phase = torch.from_numpy(positions).to(device), torch.from_numpy(phases).to(device)
    return LabelledBatch(
        data_set=data_set, batch=decoded(windows), positions=place, phases=phase, noise=noise, names=names
    )
