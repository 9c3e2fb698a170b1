"""Which windows a micro-batch holds: drawn on the host from (seed, rank, index) alone, whoever reads them.

Shapes: T traces, B windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.catalogue import Catalogue
from pretrain.selfsupervised.data_settings import DataSettings


class WindowPlan(NamedTuple):
    """B windows: traces ``rows`` (B,) from sample ``starts`` (B,), and what is done to them.

    ``keep`` (B, 3) says which components are not taken away, ``gain`` (B, 3) multiplies, and the data of a window
    begin at its sample ``birth`` (B,).
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    keep: NDArray[np.bool_]
    gain: NDArray[np.float32]
    birth: NDArray[np.int64]


def generator_of(seed: int, *words: int) -> np.random.Generator:
    """A random stream that is a pure function of its arguments (all at least zero)."""
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


class WindowDraw:
    """Draws windows from the traces of a catalogue; raises ConfigError where the shares leave nothing to draw."""

    def __init__(self, catalogue: Catalogue, settings: DataSettings, batch: int, seed: int, rank: int) -> None:
        self.catalogue, self.settings = catalogue, settings
        self.batch, self.samples = batch, settings.window_samples
        self.seed, self.rank = seed, rank
        self.cumulated = np.cumsum(draw_weights(catalogue, settings.shares, self.samples))

    def plan(self, index: int) -> WindowPlan:
        """The windows of micro-batch ``index``."""
        random, settings, batch = generator_of(self.seed, self.rank, index), self.settings, self.batch
        rows = self.cumulated.searchsorted(random.random(batch) * self.cumulated[-1], side="right")
        rows = np.minimum(rows, len(self.cumulated) - 1).astype(np.int64)
        starts = self._starts(rows, random)
        keep = _kept(self.catalogue.alive[rows], random, settings.missing_component_share)
        sign = np.where(random.random(batch) < settings.flip_share, -1.0, 1.0)
        loud = random.random((batch, 1)) < settings.gain_share
        gain = 10 ** (6 * random.random((batch, 1)) - 3) * 2 ** (2 * random.random((batch, 3)) - 1)
        late = random.random(batch) < settings.late_share
        birth = np.where(late, random.random(batch) * self.samples / 2, 0).astype(np.int64)
        return WindowPlan(
            rows=rows,
            starts=starts,
            keep=keep,
            gain=(sign[:, None] * np.where(loud, gain, 1.0)).astype(np.float32),
            birth=birth,
        )

    def _starts(self, rows: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        return place_windows(self.catalogue, rows, self.samples, self.settings.arrival_share, random)


def place_windows(
    catalogue: Catalogue, rows: NDArray[np.int64], samples: int, arrival_share: float, random: np.random.Generator
) -> NDArray[np.int64]:
    """Starts (B,) of windows of ``samples`` in the traces ``rows`` (B,).

    A window stays inside a longer trace, and a shorter trace lies wholly inside its window. With probability
    ``arrival_share`` the window of a labelled trace holds one of its arrivals, not nearer to an edge than a twentieth
    of the window where the trace allows it; else it lies anywhere.
    """
    uniform = random.random((4, len(rows)))
    slack = catalogue.samples[rows] - samples
    low, high = np.minimum(slack, 0), np.maximum(slack, 0)
    anywhere = low + np.floor(uniform[0] * (high - low + 1)).astype(np.int64)
    count = catalogue.label_count[rows]
    wanted = (uniform[1] < arrival_share) & (count > 0)
    chosen = np.where(wanted, catalogue.label_first[rows] + np.floor(uniform[2] * count).astype(np.int64), 0)
    arrival = catalogue.label_sample[chosen] if len(catalogue.label_sample) else np.zeros(len(rows))
    around = np.floor(arrival - samples * (0.05 + 0.9 * uniform[3])).astype(np.int64)
    starts: NDArray[np.int64] = np.clip(np.where(wanted, around, anywhere), low, high)
    return starts


def _kept(alive: NDArray[np.bool_], random: np.random.Generator, share: float) -> NDArray[np.bool_]:
    """Which components stay (B, 3): of ``share`` of the windows one or two of those ``alive`` go, never the last."""
    chosen = random.random(len(alive)) < share
    number = np.minimum(random.integers(1, 3, len(alive)), alive.sum(axis=1) - 1)
    # Rank among the living in a random order; the dead come last, so they never use up the number.
    rank = np.where(alive, random.random(alive.shape), 2.0).argsort(axis=1).argsort(axis=1)
    lost: NDArray[np.bool_] = chosen[:, None] & (rank < number[:, None])
    return ~lost


def draw_weights(catalogue: Catalogue, shares: Mapping[str, float], samples: int) -> NDArray[np.float64]:
    """Probability (T,) of drawing each trace.

    ``shares`` go by data set, status or kind, the first of these that it names; empty, all count alike. Within a share
    a data set counts by the square root of its windows, and a trace by its own (at least one). Raises ConfigError where
    nothing is left to draw.
    """
    windows = np.maximum(1.0, catalogue.samples / samples)
    sets = catalogue.data_sets()
    keys = np.full(len(catalogue), -1, np.int64)
    names = list(shares)
    for column in (catalogue.words["kind"], catalogue.words["status"], sets):
        position = np.array([names.index(text) if text in shares else -1 for text in column.texts], np.int64)
        found = position[column.codes] if len(column.texts) else keys
        keys = np.where(found >= 0, found, keys)
    if not shares:
        names, keys, shares = ["all"], np.zeros(len(catalogue), np.int64), {"all": 1.0}
    pair = (keys + 1) * max(1, len(sets.texts)) + sets.codes
    total = np.bincount(pair, weights=windows)
    raw = windows / np.sqrt(total[pair]) if len(windows) else windows
    weights = np.zeros(len(catalogue))
    for number, name in enumerate(names):
        chosen: NDArray[np.bool_] = keys == number
        if chosen.any():
            weights[chosen] = shares[name] * raw[chosen] / raw[chosen].sum()
    if not weights.any():
        offered = sorted({*sets.texts, *catalogue.words["kind"].texts, *catalogue.words["status"].texts} - {""})
        raise ConfigError(
            f"[data] shares: none of {len(catalogue)} traces is of {', '.join(names)}; name some of "
            f"{', '.join(offered) or 'a pack that has traces of fold train'}"
        )
    return np.asarray(weights / weights.sum())
