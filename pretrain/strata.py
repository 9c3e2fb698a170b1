"""Kinds of records by which figures are told apart: source, signal-to-noise ratio, distance, instrument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from pretrain.data.trace import RATE_HZ, Trace
from pretrain.metric import Reference

SIGNAL_S, NOISE_S, GUARD_S = 2.0, 5.0, 0.2
BAND_HZ = (1.0, 20.0)
SNR_EDGES_DB = (5.0, 10.0, 20.0)
S_MINUS_P_EDGES_S = (2.0, 5.0, 10.0)
UNKNOWN = "unknown"
_INSTRUMENTS = {"H": "velocity", "L": "velocity, low gain", "P": "velocity", "N": "acceleration", "G": "acceleration"}

StratumOf = Callable[[Reference, str], str | None]
"""The stratum of the arrival of a phase, or None where the record has no such arrival."""


def snr_db(trace: Trace, phase: str) -> float | None:
    """Signal-to-noise ratio of a labelled arrival in dB; None without a label or with too little data around it.

    Root mean square over the 2 s from the label against that over the 5 s before it (as much as there is, at least 1 s,
    up to 0.2 s before the label), after a band-pass of 1 to 20 Hz, on the component where it is highest. What precedes
    S is the coda of P: of S it says how far it rises above that.
    """
    arrival = trace.first(phase)
    if arrival is None:
        return None
    from scipy.signal import butter, sosfilt

    onset, guard = round(arrival), round(GUARD_S * RATE_HZ)
    first = max(0, onset - round((NOISE_S + GUARD_S) * RATE_HZ))
    last = min(trace.samples, onset + round(SIGNAL_S * RATE_HZ))
    valid = trace.valid[:, first:last].all(axis=1)
    if onset - guard - first < RATE_HZ or last - onset < RATE_HZ / 2 or not valid.any():
        return None
    # From well before the noise, so that the filter has settled.
    begun = max(0, first - round(5 * RATE_HZ))
    data = trace.waveform[valid, begun:last].astype(np.float64)
    filtered = sosfilt(butter(4, BAND_HZ, "bandpass", fs=RATE_HZ, output="sos"), data - data[:, :1])
    noise = np.sqrt((filtered[:, first - begun : onset - guard - begun] ** 2).mean(axis=1))
    signal = np.sqrt((filtered[:, onset - begun :] ** 2).mean(axis=1))
    usable = (noise > 0) & (signal > 0)
    return float(20 * np.log10((signal[usable] / noise[usable]).max())) if usable.any() else None


def instrument(channel: str) -> str:
    """What an instrument measures, by the second letter of its channel codes (SEED), as far as that tells."""
    return _INSTRUMENTS.get(channel[1:2].upper(), UNKNOWN)


def binned(value: float | None, edges: Sequence[float], unit: str) -> str:
    """The bin of a value, in words that sort as they should when listed by ``bins``."""
    if value is None:
        return UNKNOWN
    below = next((number for number, edge in enumerate(edges) if value < edge), len(edges))
    return bins(edges, unit)[below]


def bins(edges: Sequence[float], unit: str) -> list[str]:
    """Names of the bins, in ascending order, and of what is not known."""
    inner = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g} {unit}", *inner, f"{edges[-1]:g} {unit} and more", UNKNOWN]


def strata(references: Sequence[Reference], snr: Mapping[tuple[str, str], float]) -> dict[str, StratumOf]:
    """The ways to tell arrivals apart, by the key that they have in the figures."""

    def distance(reference: Reference, phase: str) -> str | None:
        known = reference.p_sample is not None and reference.s_sample is not None
        apart = (reference.s_sample or 0) - (reference.p_sample or 0)
        return binned(apart / RATE_HZ if known else None, S_MINUS_P_EDGES_S, "s")

    return {
        "by_source": lambda reference, phase: reference.source or UNKNOWN,
        "by_snr": lambda reference, phase: binned(snr.get((reference.name, phase)), SNR_EDGES_DB, "dB"),
        "by_s_minus_p": distance,
        "by_instrument": lambda reference, phase: instrument(reference.channel),
    }


def members(references: Sequence[Reference], of: StratumOf, phase: str) -> dict[str, list[Reference]]:
    """Records by stratum of their arrival of ``phase``; those without such an arrival are in none."""
    out: dict[str, list[Reference]] = {}
    for reference in references:
        if reference.arrival(phase) is not None and (name := of(reference, phase)) is not None:
            out.setdefault(name, []).append(reference)
    return {name: out[name] for name in sorted(out, key=_order)}


def _order(name: str) -> tuple[int, int, str]:
    for edges, unit in ((SNR_EDGES_DB, "dB"), (S_MINUS_P_EDGES_S, "s")):
        if name in (names := bins(edges, unit)):
            return (0, names.index(name), name)
    return (0, 0, name)
