"""Evaluation of a bundle as it runs: streamed chunk by chunk through the exported graph, decided by the daemon's rules.

Shapes: B records, C = 3 components, N samples, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from picker.decision import Decider, PhaseRule
from picker.drive import of_samples, stream
from picker.errors import ConfigError
from picker.pick import Pick
from picker.spec import PickerSpec
from picker.stepper import State, Stepper
from pretrain.data.folds import hold_out
from pretrain.data.pack import load_pack
from pretrain.data.seisbench import read_seisbench
from pretrain.data.trace import UNLABELLED, Trace
from pretrain.metric import PHASES, PhaseScore, Reference, TracePick, score
from pretrain.strata import snr_db

FLOOR = 0.1
"""Picks are written down to this probability, so that thresholds can be swept over the file."""
GRID = tuple(round(0.05 * k, 2) for k in range(2, 19))
"""Thresholds of the sweep: 0.10 to 0.90."""
BATCH_RECORDS = 32
BATCH_SAMPLES = 20_000_000

Ticker = Callable[[int], None]
"""Told how many record-samples have been streamed since it was last called."""


def read_traces(
    path: str | Path,
    split: str | None = None,
    status: str | None = None,
    fold: str | None = None,
    without: Sequence[str] = (),
) -> list[Trace]:
    """Traces of a SeisBench folder or of a pack (.npz), with their folds; raises ConfigError where none is left.

    Of those with labels ``status`` keeps one trace_p_status, and ``without`` leaves some out.
    """
    path = Path(path)
    traces = load_pack(path) if path.suffix == ".npz" else hold_out(read_seisbench(path))
    chosen = [
        trace
        for trace in traces
        if trace.kind != UNLABELLED
        and (split is None or trace.split == split)
        and (status is None or trace.status in (status, "noise"))
        and trace.status not in without
        and (fold is None or trace.fold == fold)
    ]
    if not chosen:
        wanted = {"split": split, "status": status, "fold": fold}
        asked = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None)
        raise ConfigError(f"{path}: no trace of {asked or 'any kind'} among its {len(traces)}")
    return chosen


class CountingStepper:
    """A stepper that tells ``tick`` of every step, for a progress bar."""

    def __init__(self, stepper: Stepper, tick: Ticker) -> None:
        self.spec: PickerSpec = stepper.spec
        self._stepper, self._tick = stepper, tick

    def fresh_state(self, rows: int) -> State:
        """See Stepper."""
        return self._stepper.fresh_state(rows)

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """See Stepper."""
        self._tick(chunk.shape[0] * chunk.shape[2])
        return self._stepper.step(chunk, valid, reset, state)


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of records in batches of similar length, longest first, small enough for memory."""
    out: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        full = not out or len(out[-1]) == BATCH_RECORDS or (len(out[-1]) + 1) * lengths[out[-1][0]] > BATCH_SAMPLES
        if full:
            out.append([])
        out[-1].append(index)
    return out


def streamed(
    stepper: Stepper,
    records: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]],
    tick: Ticker = lambda samples: None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Index and probabilities (P, N + E, see ``stream``) of every record, in batches.

    A record is a waveform and its valid flags, both (3, N).
    Records of one batch are padded to the longest with invalid samples, which no earlier output can see.
    """
    counting = CountingStepper(stepper, tick)
    lengths = [waveform.shape[1] for waveform, _ in records]
    for batch in batches(lengths):
        shape = (len(batch), 3, lengths[batch[0]])
        waveforms, valid = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        for row, index in enumerate(batch):
            waveforms[row, :, : lengths[index]], valid[row, :, : lengths[index]] = records[index]
        probabilities = stream(counting, waveforms, valid)
        for row, index in enumerate(batch):
            yield index, of_samples(stepper.spec, probabilities[row], lengths[index])


def decided(spec: PickerSpec, probabilities: NDArray[np.float32], thresholds: Mapping[str, float]) -> list[Pick]:
    """Picks of one record's probabilities (P, N), fed to the decider chunk by chunk as the daemon does.

    Their probabilities are the network's, which thresholds cut; ``stated_pick`` gives what the daemon would tell.
    """
    raw = replace(spec, calibration={})
    decider = Decider(raw, {phase: PhaseRule(threshold=threshold) for phase, threshold in thresholds.items()})
    picks: list[Pick] = []
    for first in range(0, probabilities.shape[1], spec.chunk_samples):
        picks += decider.feed(first, probabilities[:, first : first + spec.chunk_samples])
    return [*picks, *decider.flush()]


def with_faint(
    spec: PickerSpec, picks: Sequence[Pick], faint: Iterable[Pick], thresholds: Mapping[str, float]
) -> list[Pick]:
    """``picks`` decided at the thresholds in use, and those of ``faint`` that stay below them and stand apart.

    Cut at the thresholds in use, the result is exactly what the daemon publishes.
    """
    apart = PhaseRule().dead_time_s * spec.sampling_rate_hz
    more = [
        pick
        for pick in faint
        if pick.probability < thresholds[pick.phase]
        and not any(pick.phase == k.phase and abs(pick.sample - k.sample) < apart for k in picks)
    ]
    return sorted([*picks, *more], key=lambda pick: pick.sample)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All of one evaluation: ``picks`` reach down to FLOOR, ``sweep`` holds the scores at each threshold of GRID.

    ``snr_db`` is that of each labelled arrival, by name of the record and phase (``pretrain.strata``);
    ``lookahead_samples`` is by phase.
    """

    references: Sequence[Reference]
    picks: Sequence[TracePick]
    thresholds: Mapping[str, float]
    sweep: Mapping[float, Mapping[str, PhaseScore]]
    snr_db: Mapping[tuple[str, str], float] = field(default_factory=dict)
    lookahead_samples: Mapping[str, int] = field(default_factory=dict)
    chunk_samples: int = 64

    @property
    def published(self) -> list[TracePick]:
        """The picks at the thresholds in use: what the daemon would have told."""
        return [pick for pick in self.picks if pick.probability >= self.thresholds[pick.phase]]

    def scores(self, references: Sequence[Reference] | None = None) -> dict[str, PhaseScore]:
        """Scores at the thresholds in use, of all records or of some."""
        return score(self.references if references is None else references, self.picks, self.thresholds)


def evaluate(
    stepper: Stepper,
    traces: Sequence[Trace],
    thresholds: Mapping[str, float] | None = None,
    tick: Ticker = lambda samples: None,
) -> Evaluation:
    """Stream every trace, decide its picks at ``thresholds`` (default: the bundle's) and at each of GRID."""
    spec = stepper.spec
    in_use = {phase: (thresholds or {}).get(phase, spec.thresholds[phase]) for phase in PHASES}
    for phase, threshold in in_use.items():
        if not 0 < threshold < 1:
            raise ConfigError(f"threshold of {phase} is {threshold}; it must lie between 0 and 1")
    found: list[TracePick] = []
    swept: dict[float, list[TracePick]] = {threshold: [] for threshold in GRID}
    for index, probabilities in streamed(stepper, [(trace.waveform, trace.valid) for trace in traces], tick):
        name = traces[index].name
        for threshold, picks in swept.items():
            picks += named(spec, name, decided(spec, probabilities, dict.fromkeys(PHASES, threshold)))
        faint = decided(spec, probabilities, dict.fromkeys(PHASES, FLOOR))
        found += named(spec, name, with_faint(spec, decided(spec, probabilities, in_use), faint, in_use))
    references = [Reference.of(trace) for trace in traces]
    order = {reference.name: number for number, reference in enumerate(references)}
    return Evaluation(
        references=references,
        picks=sorted(found, key=lambda pick: (order[pick.trace_name], pick.sample)),
        thresholds=in_use,
        sweep={threshold: score(references, picks) for threshold, picks in swept.items()},
        snr_db={
            (trace.name, phase): value
            for trace in traces
            for phase in PHASES
            if (value := snr_db(trace, phase)) is not None
        },
        lookahead_samples={phase: spec.lookahead_of(phase) for phase in PHASES},
        chunk_samples=spec.chunk_samples,
    )


def stated_pick(spec: PickerSpec, pick: Pick) -> Pick:
    """A pick of ``decided`` as the daemon tells it, calibrated as the bundle says."""
    calibration = spec.calibration.get(pick.phase)
    return pick if calibration is None else calibration.stated(pick)


def named(spec: PickerSpec, name: str, picks: Iterable[Pick]) -> list[TracePick]:
    """Picks of ``decided`` as those of the record ``name``."""
    return [
        TracePick(
            trace_name=name,
            phase=pick.phase,
            sample=pick.sample,
            probability=pick.probability,
            stated_probability=(told := stated_pick(spec, pick)).probability,
            uncertainty_samples=told.uncertainty_samples,
            crossed_sample=pick.crossed_sample,
            decided_sample=pick.decided_sample,
        )
        for pick in picks
    ]


def best_thresholds(evaluation: Evaluation) -> dict[str, float]:
    """The threshold of GRID by phase whose surroundings have the highest F1 at 0.5 s; among equals the lower one.

    The mean over a threshold and its neighbours is compared, so that one lucky record does not decide.
    """
    grid = sorted(evaluation.sweep)

    def worth(phase: str, index: int) -> float:
        around = grid[max(0, index - 1) : index + 2]
        return float(np.mean([evaluation.sweep[threshold][phase].tallies[0.5].f1 for threshold in around]))

    return {phase: grid[max(range(len(grid)), key=partial(worth, phase))] for phase in PHASES}
