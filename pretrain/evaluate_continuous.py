"""Evaluation on continuous miniSEED, where no analyst has been: how a picker lives on a real station.

The picks of other machines are no truth, but what none of them sees, an hour, bounds the false picks, and what two of
them agree on is mostly real.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.stepper import Stepper
from pretrain.bootstrap import poisson
from pretrain.data.blocks import held_spans
from pretrain.data.continuous import STEP_NS, MachinePick, StationCode, StationRecord
from pretrain.data.trace import RATE_HZ
from pretrain.evaluate import Ticker, decided, streamed
from pretrain.metric import PHASES, nearest
from pretrain.strata import instrument

FAR_S = 2.0
"""A pick further than this from every machine pick of its phase is one that nobody else saw."""
AGREE_S = 0.5
"""A pick this close to a consensus pick of its phase is the same arrival."""


@dataclass(frozen=True, kw_only=True)
class StationResult:
    """Picks of one instrument in one file, which starts at ``start`` UTC.

    ``hours`` counts the time in which any component has data.
    """

    name: str
    instrument: str
    start: datetime
    hours: float
    picks: Mapping[str, int]
    alone: Mapping[str, int]
    """Picks by phase further than FAR_S from any machine pick of that phase: false, as far as machines can tell."""
    alone_of_any: Mapping[str, int]
    """Those further than FAR_S from any machine pick of either phase: a P called S is not among them."""
    consensus: Mapping[str, int]
    found: Mapping[str, int]
    """Consensus picks by phase with a pick within AGREE_S."""


def evaluate_continuous(
    stepper: Stepper,
    records: Sequence[StationRecord],
    machine: Mapping[StationCode, Sequence[MachinePick]],
    consensus: Mapping[StationCode, Sequence[MachinePick]],
    thresholds: Mapping[str, float],
    tick: Ticker = lambda samples: None,
    held_only: bool = False,
) -> list[StationResult]:
    """Stream every record from a fresh state and compare its picks with those of other machines; results in order.

    With ``held_only`` all is streamed, and only what lies in blocks held out of training is counted.
    """
    results: dict[int, StationResult] = {}
    for index, probabilities in streamed(stepper, [(record.waveform, record.valid) for record in records], tick):
        record = records[index]
        picks = decided(stepper.spec, probabilities, thresholds)
        by_phase = {phase: np.array([pick.sample for pick in picks if pick.phase == phase]) for phase in PHASES}
        others = machine.get(record.code, ()), consensus.get(record.code, ())
        results[index] = _compare(record, by_phase, *others, _usable(record, held_only))
    return [results[index] for index in sorted(results)]


def _compare(
    record: StationRecord,
    picks: Mapping[str, NDArray[np.float64]],
    machine: Sequence[MachinePick],
    consensus: Sequence[MachinePick],
    usable: NDArray[np.bool_],
) -> StationResult:
    """What counts lies where ``usable`` (N,)."""
    everybody = [*machine, *consensus]
    others = {phase: _samples(record, [pick for pick in everybody if pick.phase == phase]) for phase in PHASES}
    any_phase = _samples(record, everybody)
    counted = {phase: _within(found, usable) for phase, found in picks.items()}
    agreed = {phase: _within(_samples(record, [p for p in consensus if p.phase == phase]), usable) for phase in PHASES}
    return StationResult(
        name=record.name,
        instrument=instrument(record.band_instrument),
        start=datetime.fromtimestamp(record.start_ns / 1e9, UTC),
        hours=float(usable.sum()) / RATE_HZ / 3600,
        picks={phase: len(found) for phase, found in counted.items()},
        alone={phase: _far(found, others[phase]) for phase, found in counted.items()},
        alone_of_any={phase: _far(found, any_phase) for phase, found in counted.items()},
        consensus={phase: len(samples) for phase, samples in agreed.items()},
        found={
            phase: sum(nearest(picks[phase], sample, AGREE_S * RATE_HZ) is not None for sample in samples)
            for phase, samples in agreed.items()
        },
    )


def _far(samples: NDArray[np.float64], others: NDArray[np.float64]) -> int:
    """How many of ``samples`` lie further than FAR_S from all of ``others``."""
    return sum(nearest(others, sample, FAR_S * RATE_HZ) is None for sample in samples)


def _usable(record: StationRecord, held_only: bool) -> NDArray[np.bool_]:
    """(N,) where any component has data, and, if asked for, the time is held out of training."""
    usable = np.asarray(record.valid.any(axis=0), dtype=np.bool_)
    if held_only:
        held = np.zeros_like(usable)
        for start_ns, end_ns in held_spans(record.start_ns, record.start_ns + len(usable) * STEP_NS):
            held[max(0, math.ceil(record.sample_of(start_ns))) : math.ceil(record.sample_of(end_ns))] = True
        usable &= held
    return usable


def _samples(record: StationRecord, picks: Sequence[MachinePick]) -> NDArray[np.float64]:
    return np.array([record.sample_of(pick.time_ns) for pick in picks], dtype=np.float64)


def _within(samples: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Those at which ``usable`` is set."""
    inside = samples[(samples >= 0) & (samples < len(usable))]
    return np.asarray(inside[usable[inside.astype(np.int64)]], dtype=np.float64)


def pooled(results: Sequence[StationResult]) -> dict[str, Any]:
    """Figures of some results together, for JSON: rates an hour of one station with 95 % intervals."""
    hours = sum(result.hours for result in results)
    out: dict[str, Any] = {"hours": round(hours, 3)}
    total = 0
    for phase in PHASES:
        counts = {
            key: sum(getattr(result, key)[phase] for result in results)
            for key in ("picks", "alone", "alone_of_any", "consensus", "found")
        }
        total += counts["alone"]
        out[phase] = {**counts, "false_per_hour": rate(counts["alone"], hours)}
        out[phase]["agreement"] = counts["found"] / counts["consensus"] if counts["consensus"] else None
    out["false_per_hour"] = rate(total, hours)
    return out


def rate(count: int, hours: float) -> dict[str, Any]:
    """A rate with its interval; null without data."""
    if not hours:
        return {"value": None, "within": None}
    return {"value": round(count / hours, 4), "within": [round(end, 4) for end in poisson(count, hours)]}
