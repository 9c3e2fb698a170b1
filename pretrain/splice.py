"""The same event spliced into a stream after a minute and after hours of noise: is the picker the same picker then?

Every stream of real noise is stepped once through the graph. Its state is kept after 60 s and, much later, after hours;
events of labelled records are then added to the noise that follows, and each is streamed from both states. Everything
but the history is the same: the noise under the event, its amplitude, the place of the onset in its chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.drive import of_samples
from picker.stepper import State, Stepper
from pretrain.bootstrap import Interval, draws_of, interval_of
from pretrain.data.continuous import StationRecord
from pretrain.data.trace import RATE_HZ, Trace
from pretrain.evaluate import Ticker, decided
from pretrain.metric import PHASES, TOLERANCES_S, Reference, nearest

EARLY_S, LATE_S = 60.0, 5 * 3600.0
SNRS_DB = (26.0, 18.0, 10.0)
"""Ratio of the first second of P to the noise at its usual level: of an event another one in each stream."""
OWN_NOISE, LEAST_DB = 0.5, 6.0
"""An event's own noise stays this far below the bed's, and its P at least so far above, or it is left out."""
BEFORE_S, AFTER_S = 2.0, 12.0
"""How much of an event is added: from so long before P to so long after its last label; its own noise stays out."""
TAPER_S = 0.5
PLACE_S = 30.0
"""Where in the bed its P lies."""
ROWS = 64


@dataclass(frozen=True, kw_only=True)
class NoiseStream:
    """Quiet data of one station: ``history`` (3, H) that leads to the splice, and what follows, ``bed`` (3, B)."""

    name: str
    history: NDArray[np.float32]
    bed: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Spliced:
    """One event in one stream: whether each phase was hit at 0.5 s after each history; None without a label."""

    name: str
    group: str
    early: dict[str, bool | None]
    late: dict[str, bool | None]


def noise_streams(
    records: Sequence[StationRecord],
    quiet: Sequence[NDArray[np.bool_]],
    late_s: float = LATE_S,
    bed_s: float = 120.0,
) -> list[NoiseStream]:
    """A stream of each record that holds ``late_s`` and a bed of noise after it; ``quiet`` (N,) marks its noise.

    Real noise never lasts five hours between two earthquakes, so the quiet stretches of a record are joined, repeated
    as often as it takes, with their means taken off; the joints are steps no larger than the noise itself. The bed is
    the longest quiet stretch, and stands at the end.
    """
    chunk_s = 0.64
    out: list[NoiseStream] = []
    for record, flags in zip(records, quiet, strict=True):
        spans = [(a, b) for a, b in _runs(flags & record.valid.all(axis=0)) if b - a >= 20 * RATE_HZ]
        longest = max(spans, key=lambda span: span[1] - span[0], default=(0, 0))
        if longest[1] - longest[0] < bed_s * RATE_HZ or sum(b - a for a, b in spans) < 300 * RATE_HZ:
            continue
        pieces = [_centred(record.waveform[:, a:b]) for a, b in spans]
        joined = np.concatenate(pieces, axis=1)
        length = round(np.ceil(late_s / chunk_s) * chunk_s * RATE_HZ)
        history = np.tile(joined, -(-length // joined.shape[1]))[:, :length]
        bed = _centred(record.waveform[:, longest[0] : longest[0] + round(bed_s * RATE_HZ)])
        out.append(NoiseStream(name=record.name, history=history, bed=bed))
    return out


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _centred(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(waveform - np.median(waveform, axis=1, keepdims=True), dtype=np.float32)


def event_of(trace: Trace) -> tuple[NDArray[np.float32], int] | None:
    """The event cut out of a record, tapered at its ends, (3, M), and the sample of ``trace`` where it begins.

    A horizontal that is missing adds nothing. None where the vertical is, or P is not labelled at least 2 s after the
    beginning.
    """
    first = trace.p_sample
    if first is None:
        return None
    last = max(label.sample for label in trace.labels)
    begin, end = round(first - BEFORE_S * RATE_HZ), min(trace.samples, round(last + AFTER_S * RATE_HZ))
    if begin < 0 or end - last < RATE_HZ:
        return None
    whole = np.asarray(trace.valid[:, begin:end].all(axis=1))
    if not whole[0]:
        return None
    cut = np.where(whole[:, None], trace.waveform[:, begin:end], 0.0).astype(np.float64)
    cut = cut - cut[:, : round((BEFORE_S - 0.5) * RATE_HZ)].mean(axis=1, keepdims=True)
    ramp = np.sin(np.linspace(0, np.pi / 2, round(TAPER_S * RATE_HZ))) ** 2
    cut[:, : len(ramp)] *= ramp
    cut[:, -len(ramp) :] *= ramp[::-1]
    return cut.astype(np.float32), begin


def loudness(waveform: NDArray[np.float32]) -> float:
    """Root mean square of the sample-to-sample difference: blind to offset and to long periods."""
    return float(np.sqrt((np.diff(waveform.astype(np.float64), axis=1) ** 2).mean()))


def usual_loudness(waveform: NDArray[np.float32]) -> float:
    """The median of the loudness of whole seconds: noise has bursts that are ten times as loud."""
    second = round(RATE_HZ)
    starts = range(0, waveform.shape[1] - second + 1, second)
    return float(np.median([loudness(waveform[:, start : start + second]) for start in starts]))


def states_of(
    stepper: Stepper, streams: Sequence[NoiseStream], early_s: float = EARLY_S, tick: Ticker = lambda samples: None
) -> tuple[State, State]:
    """The state of every stream after ``early_s`` of the end of its history, and after all of it.

    So the last minute before the splice is the same in both: only what came before it differs.
    """
    length, chunk = streams[0].history.shape[1], stepper.spec.chunk_samples
    joined = np.stack([stream.history for stream in streams])
    steps = length // chunk
    fresh_at = steps - round(early_s * RATE_HZ) // chunk
    late, early = stepper.fresh_state(len(streams)), stepper.fresh_state(len(streams))
    for k in range(steps):
        late = _step(stepper, joined[..., k * chunk : (k + 1) * chunk], late)[1]
        if k >= fresh_at:
            early = _step(stepper, joined[..., k * chunk : (k + 1) * chunk], early)[1]
        tick(len(streams) * chunk)
    return early, late


def _step(stepper: Stepper, chunk: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
    rows = len(chunk)
    flags = np.ones(chunk.shape, dtype=np.bool_)
    return stepper.step(np.ascontiguousarray(chunk, dtype=np.float32), flags, np.zeros(rows, np.bool_), state)


def splice(
    stepper: Stepper,
    streams: Sequence[NoiseStream],
    traces: Sequence[Trace],
    early_s: float = EARLY_S,
    tick: Ticker = lambda samples: None,
) -> list[Spliced]:
    """Stream every usable event of ``traces`` in each of ``streams`` from both of its states.

    The threshold is the bundle's. The event is scaled so that the first second of its P stands above the noise by one
    of SNRS_DB, less where it would bring its own noise with it, and its P lies ``PLACE_S`` into the bed.
    """
    early, late = states_of(stepper, streams, early_s, tick)
    events = [(trace, found) for trace in traces if (found := event_of(trace)) is not None]
    placed = [
        (row, *one)
        for number, event in enumerate(events)
        for row, stream in enumerate(streams)
        if (one := _placed(stream, *event, SNRS_DB[(number + row) % len(SNRS_DB)])) is not None
    ]
    out: list[Spliced] = []
    for first in range(0, len(placed), ROWS):
        part = placed[first : first + ROWS]
        rows, waveforms = np.array([row for row, _, _ in part]), np.stack([waveform for _, waveform, _ in part])
        runs = [_continued(stepper, waveforms, tuple(tensor[rows] for tensor in state)) for state in (early, late)]
        tick(2 * waveforms.shape[0] * waveforms.shape[2])
        for number, (_, _, reference) in enumerate(part):
            hits = [_hits(stepper, run[number], reference) for run in runs]
            group = reference.group or reference.name
            out.append(Spliced(name=reference.name, group=group, early=hits[0], late=hits[1]))
    return out


def _placed(
    stream: NoiseStream, trace: Trace, event: tuple[NDArray[np.float32], int], snr_db: float
) -> tuple[NDArray[np.float32], Reference] | None:
    """The bed with the event in it, and where its onsets are; None where it is too faint without its own noise."""
    cut, begin = event
    first, at = round(BEFORE_S * RATE_HZ), round((PLACE_S - BEFORE_S) * RATE_HZ)
    waveform = stream.bed.copy()
    alive, bed = cut[np.any(cut != 0, axis=1)], usual_loudness(waveform[:, :at])
    wave = max(loudness(alive[:, first : first + round(RATE_HZ)]), 1e-30)
    own = max(loudness(alive[:, round(TAPER_S * RATE_HZ) : first - 10]), 1e-30)
    # Where its own noise sets in would be an onset of its own.
    gain = min(10 ** (snr_db / 20) * bed / wave, OWN_NOISE * bed / own)
    if gain * wave < 10 ** (LEAST_DB / 20) * bed:
        return None
    fits = min(cut.shape[1], waveform.shape[1] - at)
    waveform[:, at : at + fits] += (gain * cut[:, :fits]).astype(np.float32)
    onsets = {phase: None if (value := trace.first(phase)) is None else value - begin + at for phase in PHASES}
    reference = Reference(
        name=trace.name, samples=waveform.shape[1], p_sample=onsets["P"], s_sample=onsets["S"], group=trace.group
    )
    return waveform, reference


def _continued(stepper: Stepper, waveforms: NDArray[np.float32], state: State) -> NDArray[np.float32]:
    """Probabilities of ``waveforms`` (B, 3, N) from ``state``, as ``picker.drive.stream`` returns them."""
    spec, samples = stepper.spec, waveforms.shape[2]
    steps = -(-(samples + spec.longest_lookahead_samples) // spec.chunk_samples)
    padded = np.pad(waveforms, ((0, 0), (0, 0), (0, steps * spec.chunk_samples - samples)), mode="edge")
    out = []
    for k in range(steps):
        probabilities, state = _step(stepper, padded[..., k * spec.chunk_samples : (k + 1) * spec.chunk_samples], state)
        out.append(probabilities)
    return of_samples(spec, np.concatenate(out, axis=2)[..., spec.lookahead_samples :], samples)


def _hits(stepper: Stepper, probabilities: NDArray[np.float32], reference: Reference) -> dict[str, bool | None]:
    picks = decided(stepper.spec, probabilities, stepper.spec.thresholds)
    out: dict[str, bool | None] = {}
    for phase in PHASES:
        arrival = reference.arrival(phase)
        found = np.array([pick.sample for pick in picks if pick.phase == phase])
        out[phase] = None if arrival is None else nearest(found, arrival, TOLERANCES_S[-1] * RATE_HZ) is not None
    return out


def recalls(spliced: Sequence[Spliced], phase: str) -> tuple[int, float, float, Interval]:
    """Events with the phase, recall after the short and after the long history, and the interval of the difference."""
    pairs = [(one.early[phase], one.late[phase], one.group) for one in spliced if one.early[phase] is not None]
    if not pairs:
        return 0, float("nan"), float("nan"), Interval(float("nan"), float("nan"))
    early, late = (np.array([bool(pair[k]) for pair in pairs], dtype=np.int64) for k in (0, 1))
    weights = draws_of([group for _, _, group in pairs])
    drawn = (weights @ (late - early)) / weights.sum(axis=1)
    return len(pairs), float(early.mean()), float(late.mean()), interval_of(drawn)
