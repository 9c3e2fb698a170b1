"""Thresholds and calibration of a bundle, from data that training has not seen: a held-out fold, and held-out hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from picker.calibration import Calibration, PhaseCalibration
from picker.stepper import Stepper
from pretrain.bootstrap import poisson
from pretrain.data.blocks import HELD_SHARE, held_spans
from pretrain.data.continuous import STEP_NS, MachinePick, StationCode, StationRecord
from pretrain.data.trace import RATE_HZ
from pretrain.evaluate import GRID, Evaluation, Ticker, decided, streamed
from pretrain.evaluate_continuous import FAR_S
from pretrain.fit import fit_phase
from pretrain.metric import PHASES, TOLERANCES_S, nearest
from pretrain.reliability import JudgedPick, judged

NOISE_HOURS = 1.0
"""With less of them, noise records say nothing about thresholds."""
WARM_S = 60.0
"""Data streamed before a held-out stretch, whose picks do not count."""
FIT_FROM = 0.3
"""Picks from this probability on are fitted to, however high the thresholds: a few dozen make no fit."""


@dataclass(frozen=True, kw_only=True)
class FalseRates:
    """Picks on continuous data further than 2 s from any machine pick of their phase, by phase and threshold."""

    hours: float
    alone: Mapping[str, Mapping[float, int]]

    def rate(self, phase: str, threshold: float) -> float:
        """An hour of one station, at the threshold of GRID that is nearest; 0 where there were no data."""
        counted = self.alone[phase]
        return counted[min(counted, key=lambda one: abs(one - threshold))] / self.hours if self.hours else 0.0


def held_stretches(records: Sequence[StationRecord], share: float = HELD_SHARE) -> list[tuple[StationRecord, int]]:
    """The held-out stretches of ``records``, each with the number of its first samples that only warm the picker up."""
    out = []
    for record in records:
        samples = record.waveform.shape[1]
        for start_ns, end_ns in held_spans(record.start_ns, record.start_ns + samples * STEP_NS, share):
            begin, end = (round((time - record.start_ns) / STEP_NS) for time in (start_ns, end_ns))
            warm = min(begin, round(WARM_S * RATE_HZ))
            valid = record.valid[:, begin - warm : end]
            if not valid[:, warm:].any():
                continue
            waveform = record.waveform[:, begin - warm : end]
            level = np.take_along_axis(waveform, valid.argmax(axis=1)[:, None], axis=1)
            piece = replace(
                record,
                start_ns=record.start_ns + (begin - warm) * STEP_NS,
                waveform=np.where(valid, waveform - level, np.float32(0)),
                valid=valid,
            )
            out.append((piece, warm))
    return out


def false_rates(
    stepper: Stepper,
    stretches: Sequence[tuple[StationRecord, int]],
    machine: Mapping[StationCode, Sequence[MachinePick]],
    tick: Ticker = lambda samples: None,
) -> FalseRates:
    """Stream the stretches and count, at each threshold of GRID, the picks that nobody else has."""
    alone = {phase: dict.fromkeys(GRID, 0) for phase in PHASES}
    hours = 0.0
    for index, probabilities in streamed(stepper, [(piece.waveform, piece.valid) for piece, _ in stretches], tick):
        piece, warm = stretches[index]
        hours += float(piece.valid[:, warm:].any(axis=0).sum()) / RATE_HZ / 3600
        theirs = {
            phase: np.array([piece.sample_of(p.time_ns) for p in machine.get(piece.code, ()) if p.phase == phase])
            for phase in PHASES
        }
        for threshold in GRID:
            for pick in decided(stepper.spec, probabilities, dict.fromkeys(PHASES, threshold)):
                if pick.sample >= warm and nearest(theirs[pick.phase], pick.sample, FAR_S * RATE_HZ) is None:
                    alone[pick.phase][threshold] += 1
    return FalseRates(hours=hours, alone=alone)


def choose_thresholds(
    evaluation: Evaluation, rates: FalseRates | None = None, most_false: float = 2.0
) -> tuple[dict[str, float], bool]:
    """For each phase the threshold of GRID with the best mean F1 (both tolerances) among those with few false picks.

    A threshold counts as the mean over itself and its neighbours, so that one lucky record does not decide. Few:
    ``rates`` of the phase are at most ``most_false`` an hour, and so are those on noise records where there is an hour
    of them (the lower end of their interval: in a few minutes one earthquake that nobody labelled is many). Where no
    threshold is, the highest of those with the fewest false picks is taken, and the second result is False.
    """
    found = {phase: _choose_threshold(phase, evaluation, rates, most_false) for phase in PHASES}
    return {phase: threshold for phase, (threshold, _) in found.items()}, all(within for _, within in found.values())


def _choose_threshold(
    phase: str, evaluation: Evaluation, rates: FalseRates | None, most_false: float
) -> tuple[float, bool]:
    grid = sorted(evaluation.sweep)
    false = [rates.rate(phase, threshold) if rates else 0.0 for threshold in grid]
    scores = [evaluation.sweep[threshold][phase] for threshold in grid]
    enough = scores[0].noise_hours >= NOISE_HOURS
    noise = [poisson(one.noise_picks, one.noise_hours).low if enough else 0.0 for one in scores]

    def worth(index: int) -> float:
        around = [one.tallies for one in scores[max(0, index - 1) : index + 2]]
        return float(np.mean([tallies[tolerance_s].f1 for tallies in around for tolerance_s in TOLERANCES_S]))

    indices = range(len(grid))
    if good := [index for index in indices if max(false[index], noise[index]) <= most_false]:
        return grid[max(good, key=worth)], True
    return grid[min(indices, key=lambda index: (false[index], -index))], False


def calibrate(
    evaluation: Evaluation,
    thresholds: Mapping[str, float],
    *,
    doubtful: Evaluation | None = None,
    checkpoint_sha256: str | None = None,
    said: Mapping[str, Any] | None = None,
) -> Calibration:
    """The calibration of the picks that reach ``thresholds``, or FIT_FROM; ``said`` goes into its provenance.

    ``doubtful`` are records whose labels are rough: they help to tell how far residuals spread, and nothing else.
    """
    known = _counted(evaluation, thresholds)
    timed = [*known, *(_counted(doubtful, thresholds) if doubtful else ())]
    phases: dict[str, PhaseCalibration] = {}
    fitted: dict[str, Any] = dict(said or {})
    for phase in PHASES:
        phases[phase], fitted[phase] = fit_phase(
            *([one for one in some if one.pick.phase == phase] for some in (known, timed))
        )
    return Calibration(thresholds=dict(thresholds), phases=phases, checkpoint_sha256=checkpoint_sha256, fitted=fitted)


def _counted(evaluation: Evaluation, thresholds: Mapping[str, float]) -> list[JudgedPick]:
    picks = [pick for pick in evaluation.picks if pick.probability >= min(FIT_FROM, thresholds[pick.phase])]
    return judged(evaluation.references, picks)
