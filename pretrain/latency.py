"""How long after an onset a pick is told, in the time of the data: look-ahead and the wait for the chunk included.

The first message of a pick leaves at the end of the chunk in which its probability crossed the threshold, the confirmed
one at the end of the chunk in which it was decided (they are one message where these are the same). Records are
streamed from their first sample, so labels lie at whatever place of the chunk the archive happened to cut; live, an
onset lies anywhere in it. Each pick is therefore counted at all places, as if the grid of chunks were shifted under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import RATE_HZ
from pretrain.metric import TOLERANCES_S, Reference, TracePick, nearest


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Seconds of data from the label to the end of the chunk of each message: (hits, places in the chunk)."""

    first_s: NDArray[np.float64]
    confirmed_s: NDArray[np.float64]

    def quantile(self, share: float) -> tuple[float, float, float]:
        """Of the first message, of the confirmed one, and of the time between the two; NaN without hits."""
        if not self.first_s.size:
            return (float("nan"),) * 3
        parts = (self.first_s, self.confirmed_s, self.confirmed_s - self.first_s)
        first, confirmed, between = (float(np.quantile(part, share)) for part in parts)
        return first, confirmed, between


def latencies(
    references: Sequence[Reference], published: Iterable[TracePick], phase: str, lookahead: int, chunk: int
) -> Latencies:
    """Latencies of the picks of ``phase`` that hit their label at 0.5 s; ``lookahead`` and ``chunk`` in samples."""
    by_record: dict[str, list[TracePick]] = {}
    for pick in published:
        if pick.phase == phase and pick.crossed_sample is not None and pick.decided_sample is not None:
            by_record.setdefault(pick.trace_name, []).append(pick)
    onsets, crossed, decided = [], [], []
    for reference in references:
        arrival, picks = reference.arrival(phase), by_record.get(reference.name, [])
        if arrival is None:
            continue
        hit = nearest(np.array([pick.sample for pick in picks]), arrival, TOLERANCES_S[-1] * RATE_HZ)
        if hit is not None:
            onsets.append(arrival)
            crossed.append((picks[hit].crossed_sample or 0) + lookahead)
            decided.append(picks[hit].decided_sample or 0)
    onset = np.array(onsets, dtype=np.float64)[:, None]
    first, confirmed = (_told(np.array(seen, dtype=np.int64), chunk) - onset for seen in (crossed, decided))
    return Latencies(first_s=first / RATE_HZ, confirmed_s=confirmed / RATE_HZ)


def _told(seen: NDArray[np.int64], chunk: int) -> NDArray[np.float64]:
    """(hits, chunk): the end of the chunk that holds sample ``seen``, for each place of the grid of chunks."""
    shift = np.arange(chunk)
    return (((seen[:, None] + shift) // chunk + 1) * chunk - shift).astype(np.float64)
