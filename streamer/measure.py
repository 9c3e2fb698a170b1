"""What the samples around a pick say: signal-to-noise ratio, amplitude, period, polarity. Pure functions of arrays.

The phase is measured where it is reported: P on the vertical, S on both horizontals, each on the other kind where its
own is missing. Noise is what lies up to NOISE_S long before ``onset - LEAD_S``, at least LEAST_NOISE_S; signal is what
has arrived of the SIGNAL_S after the onset, at least LEAST_SIGNAL_S. Both must be without a gap, else there is no
measurement. "Noise" of an S is the coda of its P.

- ``amplitude``: largest absolute value of one component in the signal, the noise's mean taken off; not filtered.
- ``snr``: root mean square of the signal over that of the noise, components together.
- ``period_s``: of the sinusoid with the same ratio of slope to amplitude over the signal (the idea of tau_c: Kanamori,
  Annual Review of Earth and Planetary Sciences 33, 2005), pi dt / arcsin(sqrt(sum dx^2 / sum x^2) / 2), exact for a
  sinusoid of any frequency; only where ``snr`` is 2 or more and a whole period lies in the signal.
- ``polarity``: of the first swing on the vertical that reaches FIRST_MOTION times the noise within TOLERANCE_S of the
  onset; P only, and only where the swing before it stays below QUIET times the noise.

Ratio, period and polarity are measured above CORNER_HZ (Butterworth, two poles, causal), for broadband noise is mostly
microseism.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

NOISE_S = 2.0
LEAST_NOISE_S = 1.0
LEAD_S = 0.2
"""A pick may come a little late: so much before it belongs to neither side."""
SIGNAL_S = 1.0
LEAST_SIGNAL_S = 0.3
CORNER_HZ = 1.0
SETTLE_S = 1.0
"""The filter starts so long before the noise."""
BEFORE_S = SETTLE_S + NOISE_S + LEAD_S
"""Seconds before the onset that are looked at."""
LEAST_SNR = 2.0
MOST_SNR = 1e9
FIRST_MOTION = 5.0
QUIET = 2.5
TOLERANCE_S = 0.15
"""First motion is looked for so long before and after the onset."""


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What could be measured; None where the data or the clarity are missing.

    ``components`` (a part of ZNE) and ``signal_s`` say on what and over how long. ``amplitude`` is in counts.
    """

    components: str
    signal_s: float
    amplitude: float
    snr: float | None = None
    period_s: float | None = None
    polarity: Literal["up", "down"] | None = None


def measure(
    samples: NDArray[np.float32], valid: NDArray[np.bool_], onset: float, phase: str, rate_hz: float
) -> Measures | None:
    """Measure a pick at sample ``onset`` of (3, N) samples, components Z, N, E; None where the data do not allow it.

    Neither an offset nor what lies beyond BEFORE_S and SIGNAL_S matters.
    """
    at, valid = round(onset), valid & np.isfinite(samples)
    rows = _rows(valid[:, max(0, at - round(rate_hz)) : max(0, at + round(rate_hz))], phase)
    present = np.logical_and.reduce(valid[rows])
    if not rows or not 0 <= at < len(present) or not present[at]:
        return None
    first, last = _stretch(present, at)
    first = max(first, at - round(BEFORE_S * rate_hz))
    quiet_end, quiet_start = at - round(LEAD_S * rate_hz), max(first, at - round((LEAD_S + NOISE_S) * rate_hz))
    # Where a gap leaves less than the filter needs to settle, what is there is shared.
    quiet_start = max(quiet_start, min(first + round(SETTLE_S * rate_hz), quiet_end - round(LEAST_NOISE_S * rate_hz)))
    last = min(last, at + round(SIGNAL_S * rate_hz))
    if quiet_end - quiet_start < LEAST_NOISE_S * rate_hz or last - at < LEAST_SIGNAL_S * rate_hz:
        return None
    raw = samples[rows, first:last].astype(np.float64)
    raw -= raw[:, :1]
    quiet, signal = slice(quiet_start - first, quiet_end - first), slice(at - first, None)
    high = highpass(raw, rate_hz)
    noise = math.sqrt(np.mean(high[:, quiet] ** 2))
    snr = None if noise == 0 else min(MOST_SNR, math.sqrt(np.mean(high[:, signal] ** 2)) / noise)
    centred = raw[:, signal] - raw[:, quiet].mean(axis=1, keepdims=True)
    clear = snr is not None and snr >= LEAST_SNR
    return Measures(
        components="".join("ZNE"[row] for row in rows),
        signal_s=(last - at) / rate_hz,
        amplitude=float(np.abs(centred).max()),
        snr=snr,
        period_s=period(high[:, signal], rate_hz) if clear else None,
        polarity=first_motion(high[0], noise, at - first, rate_hz) if phase == "P" and rows == [0] and clear else None,
    )


def highpass(values: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """``values`` (C, N), each row from its first sample on and starting at rest, above CORNER_HZ."""
    response = _response(CORNER_HZ / rate_hz, min(values.shape[1], round(3 * rate_hz / CORNER_HZ)))
    return np.stack([np.convolve(row, response)[: len(row)] for row in values])


def period(values: NDArray[np.float64], rate_hz: float) -> float | None:
    """Dominant period in seconds of (C, N) values without offset; None where it is longer than they are."""
    slope = float(np.sum(np.diff(values, axis=1) ** 2))
    power = float(np.sum(values[:, 1:] ** 2 + values[:, :-1] ** 2)) / 2
    if slope == 0 or power == 0:
        return None
    found_s = math.pi / math.asin(min(1.0, math.sqrt(slope / power) / 2)) / rate_hz
    return found_s if found_s <= values.shape[1] / rate_hz else None


def first_motion(values: NDArray[np.float64], noise: float, at: int, rate_hz: float) -> Literal["up", "down"] | None:
    """Sign of the first swing of (N,) values near sample ``at``; ``noise`` is the root mean square before it."""
    reach = round(TOLERANCE_S * rate_hz)
    start = max(0, at - reach)
    large = np.flatnonzero(np.abs(values[start : at + reach]) >= FIRST_MOTION * noise)
    if not len(large):
        return None
    here = start + int(large[0])
    sign = values[here] > 0
    other = np.flatnonzero((values[:here] > 0) != sign)
    begin = int(other[-1]) + 1 if len(other) else 0
    # The swing before: back to where the sign changes once more.
    same = np.flatnonzero((values[: max(0, begin - 1)] > 0) == sign)
    before = values[int(same[-1]) + 1 if len(same) else 0 : begin]
    if len(before) and np.abs(before).max() >= QUIET * noise:
        return None
    return "up" if sign else "down"


def _rows(valid: NDArray[np.bool_], phase: str) -> list[int]:
    """The components to measure on: of those that have data."""
    vertical, horizontal = ([row for row in rows if valid[row].any()] for rows in ((0,), (1, 2)))
    return horizontal or vertical if phase == "S" else vertical or horizontal


def _stretch(present: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """First sample, and the one behind the last, of the data without a gap around ``at``."""
    gaps = np.flatnonzero(~present)
    before, after = gaps[gaps < at], gaps[gaps > at]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) if len(after) else len(present)


@cache
def _response(corner: float, length: int) -> NDArray[np.float64]:
    """Impulse response of the high-pass; ``corner`` in cycles a sample (bilinear transform with its warping undone)."""
    k = math.tan(math.pi * corner)
    scale = 1 / (1 + math.sqrt(2) * k + k * k)
    back1, back2 = 2 * (k * k - 1) * scale, (1 - math.sqrt(2) * k + k * k) * scale
    forward = [scale, -2 * scale, scale]
    out: list[float] = []
    for n in range(length):
        value = forward[n] if n < 3 else 0.0
        value -= back1 * out[n - 1] if n > 0 else 0.0
        value -= back2 * out[n - 2] if n > 1 else 0.0
        out.append(value)
    return np.array(out)
