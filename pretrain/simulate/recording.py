"""A recording: one record of one station, with what is known about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from picker.offset import first_valid, remove_offset
from pretrain.data.resample import live
from pretrain.data.trace import DEV, LABELLED, NOISE, RATE_HZ, SIMULATED, TRAIN, TUNE, Label, Trace
from pretrain.simulate.culture import band_pass, cultural_noise
from pretrain.simulate.event import SIGNAL_S, Event, draw_event
from pretrain.simulate.fault import gaps, glitches
from pretrain.simulate.instrument import digitise
from pretrain.simulate.noise import noise_counts
from pretrain.simulate.settings import SimulationSettings
from pretrain.simulate.station import SIGNAL_HZ, Station, draw_station
from pretrain.simulate.teleseism import teleseism

_ROUND = 1000
_ATTEMPTS = 4
_APART_S = 1.0
_BEFORE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An event in a record: where its P and S lie (samples, perhaps outside), and how far above the noise (ratio)."""

    event: Event
    onset: dict[str, int]
    snr: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """``counts`` (3, N) are whole numbers, NaN where lost; ``trace`` is what a reader makes of them."""

    index: int
    counts: NDArray[np.float64]
    trace: Trace
    station: Station
    events: tuple[Seen, ...]


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """An event in its record: its counts (3, N), and those in the band of the signals."""

    event: Event
    onset: dict[str, int]
    counts: NDArray[np.float64]
    filtered: NDArray[np.float64]


def simulate(settings: SimulationSettings, index: int) -> Recording:
    """Record ``index`` of a simulation: it depends on the settings and on nothing else."""
    random = np.random.default_rng([settings.seed, index])
    held_out, is_noise = random.uniform(size=2) < (settings.held_out_share, settings.noise_share)
    station, samples = draw_station(random), settings.samples
    noise = _background(random, station, settings)
    signal, events = (np.zeros_like(noise), []) if is_noise else _earthquakes(random, station, settings, noise)
    counts, doubtful = noise + signal, []
    if random.uniform() < settings.teleseism_share:
        onset = int(random.integers(0, samples - round(_APART_S * RATE_HZ)))
        ground = teleseism(random, station.instrument.order, samples - onset)
        counts[:, onset:] += station.instrument.record(ground)
        doubtful.append(Label(phase="P", sample=float(onset)))
    labels, faint = _labels(settings, events)
    counts = _recorded(random, settings, counts, _level(noise), [round(label.sample) for label in labels])
    valid = live(counts, RATE_HZ)
    name = f"sim_{settings.seed}_{index:07d}"
    trace = Trace(
        name=name,
        waveform=np.where(valid, remove_offset(counts, first_valid(counts, valid)), np.float32(0)),
        valid=valid,
        labels=tuple(labels),
        doubtful=tuple(sorted(faint + doubtful, key=lambda label: label.sample)),
        kind=NOISE if is_noise else LABELLED,
        fold=TUNE if held_out else TRAIN,
        status="noise" if is_noise else SIMULATED,
        split=DEV if held_out else TRAIN,
        source=SIMULATED,
        group=name,
    )
    return Recording(index=index, counts=counts, trace=trace, station=station, events=tuple(events))


def _background(random: np.random.Generator, station: Station, settings: SimulationSettings) -> NDArray[np.float64]:
    noise = noise_counts(random, station.noise, station.instrument, settings.samples)
    if random.uniform() < settings.cultural_share:
        noise += _level(noise)[:, None] * cultural_noise(random, settings.samples)
    return noise


def _in_band(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(sosfilt(band_pass(*SIGNAL_HZ), counts - counts[:, :1], axis=-1))


def _level(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square (3,) of the noise in the band of the signals."""
    return np.asarray(np.sqrt(np.mean(np.square(_in_band(noise)), axis=-1)))


def _earthquakes(
    random: np.random.Generator, station: Station, settings: SimulationSettings, noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Seen]]:
    """Counts (3, N) of one or more events, the first of which has a label wherever its magnitude allows it."""
    background, needed = _in_band(noise), settings.min_snr * 1.5
    for _ in range(_ATTEMPTS):
        event = draw_event(random, station, settings, needed)
        first = _at(random, event, _first_onset(random, event, settings.samples), settings.samples)
        if any(ratio >= settings.min_snr for ratio in _ratios(first, background).values()):
            break
        needed *= 2
    placed = [first]
    if random.uniform() < settings.several_share:
        for _ in range(int(random.integers(1, 3))):
            event = draw_event(random, station, settings, settings.min_snr)
            onset = int(random.integers(round(_APART_S * RATE_HZ), settings.samples))
            more = _at(random, event, onset, settings.samples)
            if _apart(more, placed):
                placed.append(more)
    everything = background + sum(one.filtered for one in placed)
    seen = [Seen(event=one.event, onset=one.onset, snr=_ratios(one, everything - one.filtered)) for one in placed]
    return np.asarray(sum(one.counts for one in placed)), seen


def _first_onset(random: np.random.Generator, event: Event, samples: int) -> int:
    """Sample of the P: mostly such that S lies in the record too; at times the record begins between P and S."""
    behind = event.sample("S")
    room = samples - behind - round(2 * RATE_HZ)
    begin = round(0.03 * samples)
    if random.uniform() < 0.04 and behind > RATE_HZ:
        return -int(random.integers(1, max(2, round(0.9 * behind))))
    if random.uniform() < 0.1 or room <= begin:
        return int(random.integers(begin, round(0.95 * samples)))
    return int(random.integers(begin, room))


def _at(random: np.random.Generator, event: Event, onset: int, samples: int) -> _Placed:
    """An event whose P lies at sample ``onset`` (perhaps before the first) of a record of ``samples``."""
    # Round lengths, so that filters of a few lengths serve all.
    length = -(-(samples - onset) // _ROUND) * _ROUND
    recorded = event.station.instrument.record(event.ground(random, length))
    counts = np.zeros((3, samples))
    counts[:, max(0, onset) :] = recorded[:, max(0, -onset) :][:, : samples - max(0, onset)]
    onsets = {"P": onset, "S": onset + event.sample("S")}
    return _Placed(event=event, onset=onsets, counts=counts, filtered=_in_band(counts))


def _ratios(placed: _Placed, background: NDArray[np.float64]) -> dict[str, float]:
    return {phase: signal_to_noise(placed.filtered, background, onset) for phase, onset in placed.onset.items()}


def signal_to_noise(signal: NDArray[np.float64], noise: NDArray[np.float64], onset: int) -> float:
    """Of the best component of ``signal`` and ``noise`` (3, N), both in the band; 0 for an onset outside the record.

    Root mean square of the signal in the 1.5 s from the onset, over that of the noise from 3 s before to 1.5 s after.
    """
    if not 0 <= onset < signal.shape[1]:
        return 0.0
    after = onset + round(SIGNAL_S * RATE_HZ)
    strong = np.mean(np.square(signal[:, onset:after]), axis=-1)
    quiet = np.mean(np.square(noise[:, max(0, onset - round(_BEFORE_S * RATE_HZ)) : after]), axis=-1)
    return math.sqrt(float(np.max(strong / np.maximum(quiet, 1e-30))))


def _apart(placed: _Placed, others: Sequence[_Placed]) -> bool:
    """No onset of an event within a second of one of the others."""
    known = [onset for other in others for onset in other.onset.values()]
    return all(abs(mine - other) >= _APART_S * RATE_HZ for mine in placed.onset.values() for other in known)


def _labels(settings: SimulationSettings, events: Sequence[Seen]) -> tuple[list[Label], list[Label]]:
    """Labels of what stands clear; what does not, and later P and S that might be taken for the first."""
    clear: list[Label] = []
    faint: list[Label] = []
    for seen in events:
        for phase, onset in seen.onset.items():
            (clear if seen.snr[phase] >= settings.min_snr else faint).append(Label(phase=phase, sample=float(onset)))
            faint += [Label(phase=phase, sample=float(seen.onset["P"] + place)) for place in seen.event.later(phase)]
    return _within(clear, settings.samples), _within(faint, settings.samples)


def _within(labels: Sequence[Label], samples: int) -> list[Label]:
    """The labels that lie in the record, in order of time."""
    return sorted((label for label in labels if 0 <= label.sample < samples), key=lambda label: label.sample)


def _recorded(
    random: np.random.Generator,
    settings: SimulationSettings,
    counts: NDArray[np.float64],
    level: NDArray[np.float64],
    onsets: Sequence[int],
) -> NDArray[np.float64]:
    """What the digitiser writes: faults, an offset, whole numbers, NaN where samples are lost."""
    if random.uniform() < settings.glitch_share:
        counts = counts + level[:, None] * glitches(random, settings.samples)
    offset = np.zeros(3)
    if random.uniform() < settings.offset_share:
        offset = random.normal(0, 1, 3) * 10 ** random.uniform(2, 6)
    counts = digitise(counts, offset)
    if random.uniform() < settings.gap_share:
        counts[gaps(random, onsets, settings.samples)] = np.nan
    return counts
