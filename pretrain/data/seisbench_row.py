"""One row of a SeisBench data set made a trace: components in order, 100 Hz, labels, what is not data marked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from picker.offset import first_valid, remove_offset
from pretrain.data.reading import BadTrace
from pretrain.data.resample import live, ratio, resample_with_gaps
from pretrain.data.trace import COMPONENTS, DEV, LABELLED, NOISE, RATE_HZ, TRAIN, Label, Trace

STATUS_WEIGHTS = {"manual": 1.0, "auto": 0.5, "manual_lowq": 0.25}
"""Trust in a label by ``trace_p_status``; any other status counts as manual."""

_ARRIVAL = re.compile(r"trace_(?P<phase>[PS])[a-z]*_arrival_sample", re.IGNORECASE)
_USED = {
    "trace_name", "split", "trace_p_status", "trace_component_order", "trace_sampling_rate_hz", "trace_dt_s",
    "trace_category", "data_source", "trace_channel", "source_id", "event_id", "source_origin_time", "trace_start_time",
}  # fmt: skip


_DOUBTFUL = re.compile(r"trace_(?P<phase>[PS])_doubtful_sample", re.IGNORECASE)


def plain_category(category: str) -> str:
    """A category without regard to case, hyphens and underscores: sets write them in several ways."""
    return re.sub(r"[\s_-]+", " ", category).strip().lower()


def category_of(row: Mapping[str, str]) -> str:
    """What a row says its trace shows, for example ``quarry blast``."""
    return plain_category(row.get("trace_category") or "")


def is_used(column: str) -> bool:
    """Whether a column of the metadata has any say here: sets have a hundred others."""
    return column in _USED or any(pattern.fullmatch(column) for pattern in (_ARRIVAL, _DOUBTFUL))


def rate_of(row: Mapping[str, str], form: Mapping[str, str]) -> float:
    """Sampling rate in Hz: of the trace (as a rate or as an interval), else of the set, else 100."""
    if text := row.get("trace_sampling_rate_hz"):
        return float(text)
    if text := row.get("trace_dt_s"):
        return 1 / float(text)
    return float(form.get("sampling_rate") or RATE_HZ)


def group_of(row: Mapping[str, str]) -> str:
    """What must stay in one fold: an event by its id or origin time, else traces that begin in the same minutes."""
    named = row.get("source_id") or row.get("event_id") or row.get("source_origin_time")
    # 2019-12-24T19:04:31 becomes 2019-12-24T19:0: an event without an id, seen by several stations.
    return named or (row.get("trace_start_time") or "")[:15] or row["trace_name"]


def trace_of(
    row: Mapping[str, str], waveform: NDArray[np.generic], form: Mapping[str, str], name: str
) -> tuple[Trace, list[str]]:
    """The trace of a ``row``, and notes on it; ``form`` is the set's data format, ``name`` that of the set.

    Raises BadTrace (a ConfigError) for components that do not fit, ConfigError for a sampling rate out of range and
    ValueError for what is no number.
    """
    if form.get("dimension_order", "CW").removeprefix("N") == "WC":
        waveform = waveform.T
    order = row.get("trace_component_order") or form.get("component_order") or COMPONENTS
    rate_hz = rate_of(row, form)
    ordered, finite = in_order(waveform, order)
    factor = ratio(rate_hz)
    alive = finite & live(ordered, rate_hz)
    moved, valid = resample_with_gaps(ordered, alive, factor) if factor != 1 else (ordered, alive)
    clean = np.where(valid, remove_offset(moved, first_valid(moved, valid)), np.float32(0))
    status = row.get("trace_p_status") or ""
    labels = _arrivals(row, _ARRIVAL, float(factor), clean.shape[1], STATUS_WEIGHTS.get(status, 1.0))
    split = row.get("split") or TRAIN
    trace = Trace(
        name=row["trace_name"],
        waveform=clean,
        valid=valid,
        labels=labels,
        doubtful=_arrivals(row, _DOUBTFUL, float(factor), clean.shape[1], 1.0),
        kind=LABELLED if labels else NOISE,
        fold=TRAIN if split == TRAIN else DEV,
        status=status or ("" if labels else "noise"),
        split=split,
        source=row.get("data_source") or name,
        group=group_of(row),
        channel=row.get("trace_channel") or "",
    )
    return trace, _notes(waveform, alive, rate_hz, float(factor))


def _notes(waveform: NDArray[np.generic], alive: NDArray[np.bool_], rate_hz: float, factor: float) -> list[str]:
    missing = 3 - int(alive.any(axis=1).sum())
    notes = [f"{missing} component(s) missing or constant"] if 0 < missing < 3 else []
    if not np.isfinite(waveform).all():
        notes.append("with samples that are not finite (not valid)")
    if factor != 1:
        notes.append(f"resampled from {rate_hz:g} Hz")
    return notes


def in_order(waveform: NDArray[np.generic], order: str) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Rows of ``waveform`` (C, N) named by ``order`` (ZNE, ENZ, Z12, Z23, Z ...) as (3, N) in the order Z, N, E.

    Returns the waveform in its own dtype and where it is finite; a missing component is zero and not valid. Raises
    BadTrace for letters that are none of Z, N, E, 1, 2, 3, and for an order that does not fit the rows.
    """
    if waveform.ndim != 2 or waveform.shape[0] != len(order):
        raise BadTrace(
            f"waveform has shape {waveform.shape}, its component order {order!r} wants ({len(order)}, N)",
            "waveform and component order do not fit",
        )
    numbered = sorted(letter for letter in order if letter in "123")
    names = {letter: letter for letter in COMPONENTS} | dict(zip(numbered, "NE", strict=False))
    out = np.zeros((3, waveform.shape[1]), dtype=waveform.dtype)
    valid = np.zeros(out.shape, dtype=np.bool_)
    for letter, samples in zip(order, waveform, strict=True):
        if letter not in names:
            raise BadTrace(
                f"component {letter!r} of {order!r} is none of Z, N, E, 1, 2, 3", f"component {letter!r} is not known"
            )
        component = COMPONENTS.index(names[letter])
        valid[component] = np.isfinite(samples)
        out[component] = np.where(valid[component], samples, samples.dtype.type(0))
    return out, valid


def _arrivals(
    row: Mapping[str, str], columns: re.Pattern[str], factor: float, samples: int, weight: float
) -> tuple[Label, ...]:
    """The arrivals within the trace; of several columns of one phase (P, Pg, Pn) the earliest."""
    found: dict[str, float] = {}
    for column, text in row.items():
        match = columns.fullmatch(column or "")
        if match is None or not text or not math.isfinite(float(text)):
            continue
        phase, sample = match["phase"].upper(), float(text) * factor
        if 0 <= sample < samples:
            found[phase] = min(sample, found.get(phase, math.inf))
    labels = (Label(phase=phase, sample=sample, weight=weight) for phase, sample in found.items())
    return tuple(sorted(labels, key=lambda label: label.sample))
