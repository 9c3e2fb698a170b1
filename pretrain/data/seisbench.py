"""Reading a data set in SeisBench's format: ``metadata.csv`` beside ``waveforms.hdf5``.

Format: https://seisbench.readthedocs.io/en/stable/pages/data_format.html. Waveforms lie in ``data/<trace_name>``, or in
``data/<bucket>`` where the trace name ends in ``$index,:components,:samples``.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from picker.offset import first_valid, remove_offset
from pretrain.data.resample import live, ratio, resample_with_gaps
from pretrain.data.trace import COMPONENTS, DEV, LABELLED, NOISE, TRAIN, Label, Trace

STATUS_WEIGHTS = {"manual": 1.0, "auto": 0.5, "manual_lowq": 0.25}
"""Trust in a label by ``trace_p_status``; any other status counts as manual."""

_ARRIVAL = re.compile(r"trace_(?P<phase>[PS])[a-z]*_arrival_sample", re.IGNORECASE)


def read_metadata(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metadata.csv``; raises ConfigError that names what is missing."""
    path = folder / "metadata.csv"
    if not path.is_file():
        raise ConfigError(f"{path}: missing; give a folder in SeisBench format (metadata.csv and waveforms.hdf5)")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "trace_name" not in rows[0]:
        raise ConfigError(f"{path}: no row, or no column trace_name; is it in SeisBench format?")
    return rows


def read_seisbench(folder: str | Path, split: str | None = None, status: str | None = None) -> Iterator[Trace]:
    """Traces of ``folder`` at 100 Hz, in the order of its metadata.

    ``split`` keeps one split (train, dev, test; a row that names none is train); ``status`` keeps labels of one
    ``trace_p_status``, and noise records. Components are put in the order Z, N, E; those that are missing, flat or not
    finite are zero and not valid.
    Raises ConfigError that names the file and the trace.
    """
    folder = Path(folder)
    rows = read_metadata(folder)
    path = folder / "waveforms.hdf5"
    if not path.is_file():
        raise ConfigError(f"{path}: missing; give a folder in SeisBench format (metadata.csv and waveforms.hdf5)")
    import h5py

    with h5py.File(path) as file:
        form = {key: _plain(value[()]) for key, value in file["data_format"].items()} if "data_format" in file else {}
        for row in rows:
            if split is not None and (row.get("split") or TRAIN) != split:
                continue
            if status is not None and row.get("trace_p_status") not in (status, "noise"):
                continue
            try:
                yield _trace(row, _waveform(file, row["trace_name"]), form, folder.name)
            except (KeyError, ValueError, IndexError, ConfigError) as error:
                raise ConfigError(f"{path}: trace {row['trace_name']!r}: {error}") from error


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _waveform(file: Any, name: str) -> NDArray[np.generic]:
    bucket, _, index = name.partition("$")
    data = file["data"][bucket]
    if not index:
        return np.asarray(data[()])
    slices = tuple(slice(*(int(n) if n else None for n in part.split(":"))) if ":" in part else int(part)
                   for part in index.split(","))  # fmt: skip
    return np.asarray(data[slices])


def _trace(row: Mapping[str, str], waveform: NDArray[np.generic], form: Mapping[str, str], folder: str) -> Trace:
    if form.get("dimension_order", "CW").removeprefix("N") == "WC":
        waveform = waveform.T
    order = row.get("trace_component_order") or form.get("component_order") or COMPONENTS
    rate_hz = float(row.get("trace_sampling_rate_hz") or form.get("sampling_rate") or 100.0)
    ordered, valid = in_order(waveform, order)
    factor = ratio(rate_hz)
    valid &= live(ordered, rate_hz)
    moved, valid = resample_with_gaps(ordered, valid, factor) if factor != 1 else (ordered, valid)
    clean = np.where(valid, remove_offset(moved, first_valid(moved, valid)), np.float32(0))
    status = row.get("trace_p_status") or ""
    labels = _labels(row, float(factor), clean.shape[1], STATUS_WEIGHTS.get(status, 1.0))
    split = row.get("split") or TRAIN
    return Trace(
        name=row["trace_name"],
        waveform=clean,
        valid=valid,
        labels=labels,
        kind=LABELLED if labels else NOISE,
        fold=TRAIN if split == TRAIN else DEV,
        status=status or ("" if labels else "noise"),
        split=split,
        source=row.get("data_source") or folder,
        group=row.get("source_id") or row["trace_name"],
    )


def in_order(waveform: NDArray[np.generic], order: str) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Rows of ``waveform`` (C, N) named by ``order`` (ZNE, ENZ, Z12, Z23, Z ...) as (3, N) in the order Z, N, E.

    Returns the waveform in its own dtype and where it is finite; a missing component is zero and not valid. Raises
    ConfigError for letters that are none of Z, N, E, 1, 2, 3, and for an order that does not fit the rows.
    """
    if waveform.ndim != 2 or waveform.shape[0] != len(order):
        raise ConfigError(f"waveform has shape {waveform.shape}, its component order {order!r} wants ({len(order)}, N)")
    numbered = sorted(letter for letter in order if letter in "123")
    names = {letter: letter for letter in COMPONENTS} | dict(zip(numbered, "NE", strict=False))
    out = np.zeros((3, waveform.shape[1]), dtype=waveform.dtype)
    valid = np.zeros(out.shape, dtype=np.bool_)
    for letter, samples in zip(order, waveform, strict=True):
        if letter not in names:
            raise ConfigError(f"component {letter!r} of {order!r} is none of Z, N, E, 1, 2, 3")
        component = COMPONENTS.index(names[letter])
        valid[component] = np.isfinite(samples)
        out[component] = np.where(valid[component], samples, samples.dtype.type(0))
    return out, valid


def _labels(row: Mapping[str, str], factor: float, samples: int, weight: float) -> tuple[Label, ...]:
    """The arrivals within the trace; of several columns of one phase (P, Pg, Pn) the earliest."""
    found: dict[str, float] = {}
    for column, text in row.items():
        match = _ARRIVAL.fullmatch(column or "")
        if match is None or not text or not math.isfinite(float(text)):
            continue
        phase, sample = match["phase"].upper(), float(text) * factor
        if 0 <= sample < samples:
            found[phase] = min(sample, found.get(phase, math.inf))
    labels = (Label(phase=phase, sample=sample, weight=weight) for phase, sample in found.items())
    return tuple(sorted(labels, key=lambda label: label.sample))
