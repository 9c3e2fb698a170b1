"""Evaluation on continuous miniSEED, where no analyst has been: how a picker lives on a real station.

The picks of other machines are no truth, but what none of them sees, an hour, bounds the false picks, and what two of
them agree on is mostly real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from picker.stepper import Stepper
from pretrain.data.continuous import MachinePick, StationCode, StationRecord
from pretrain.data.trace import RATE_HZ
from pretrain.evaluate import Ticker, decided, streamed
from pretrain.metric import PHASES, nearest

FAR_S = 2.0
"""A pick further than this from every machine pick, of any phase, is one that nobody else saw."""
AGREE_S = 0.5
"""A pick this close to a consensus pick of its phase is the same arrival."""


@dataclass(frozen=True, kw_only=True)
class StationResult:
    """Picks of one instrument in one file, which starts at ``start`` UTC.

    ``hours`` counts the time in which any component has data.
    """

    name: str
    start: datetime
    hours: float
    picks: Mapping[str, int]
    alone: Mapping[str, int]
    """Picks by phase further than FAR_S from any machine pick."""
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
) -> list[StationResult]:
    """Stream every record from a fresh state and compare its picks with those of other machines; results in order."""
    results: dict[int, StationResult] = {}
    for index, probabilities in streamed(stepper, [(record.waveform, record.valid) for record in records], tick):
        record = records[index]
        picks = decided(stepper.spec, probabilities, thresholds)
        by_phase = {phase: np.array([pick.sample for pick in picks if pick.phase == phase]) for phase in PHASES}
        results[index] = _compare(record, by_phase, machine.get(record.code, ()), consensus.get(record.code, ()))
    return [results[index] for index in sorted(results)]


def _compare(
    record: StationRecord,
    picks: Mapping[str, NDArray[np.float64]],
    machine: Sequence[MachinePick],
    consensus: Sequence[MachinePick],
) -> StationResult:
    others = np.array([record.sample_of(pick.time_ns) for pick in [*machine, *consensus]])
    usable = _usable(record)
    agreed = {phase: _within(record, [pick for pick in consensus if pick.phase == phase]) for phase in PHASES}
    return StationResult(
        name=record.name,
        start=datetime.fromtimestamp(record.start_ns / 1e9, UTC),
        hours=float(usable.sum()) / RATE_HZ / 3600,
        picks={phase: len(found) for phase, found in picks.items()},
        alone={
            phase: sum(nearest(others, sample, FAR_S * RATE_HZ) is None for sample in found)
            for phase, found in picks.items()
        },
        consensus={phase: len(samples) for phase, samples in agreed.items()},
        found={
            phase: sum(nearest(picks[phase], sample, AGREE_S * RATE_HZ) is not None for sample in samples)
            for phase, samples in agreed.items()
        },
    )


def _usable(record: StationRecord) -> NDArray[np.bool_]:
    return np.asarray(record.valid.any(axis=0), dtype=np.bool_)


def _within(record: StationRecord, picks: Sequence[MachinePick]) -> list[float]:
    """Sample numbers of those picks at which the record has data."""
    samples = [record.sample_of(pick.time_ns) for pick in picks]
    usable = _usable(record)
    return [sample for sample in samples if 0 <= sample < len(usable) and usable[int(sample)]]
