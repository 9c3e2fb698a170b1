"""A store: coded traces that can be read at any place, in memory or in the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretrain.data.catalogue import Catalogue, catalogue_of, entry_of
from pretrain.data.sample_codes import NOT_VALID, Codes, encode_samples
from pretrain.data.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Store:
    """Traces by their ``catalogue``, and the codes (flat) of each of its shards.

    ``folder`` is where it was opened, None for one in memory.
    """

    catalogue: Catalogue
    shards: tuple[Codes, ...]
    folder: Path | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the codes: int16, float16 or float32."""
        return np.dtype(self.shards[0].dtype)

    @property
    def size_bytes(self) -> int:
        """Bytes of all codes."""
        return sum(shard.nbytes for shard in self.shards)

    def only(self, folds: Iterable[str]) -> Store:
        """The traces of some folds."""
        kept = self.catalogue.take(self.catalogue.words["fold"].among(folds))
        return Store(catalogue=kept, shards=self.shards, folder=self.folder)

    def cut(self, rows: NDArray[np.int64], starts: NDArray[np.int64], samples: int) -> Codes:
        """Codes (B, 3, W) of windows of ``samples`` from ``starts`` (B,) of the traces ``rows`` (B,).

        What lies beyond the ends of a trace is coded as not valid.
        """
        out = np.full((len(rows), 3, samples), nothing(self.dtype), self.dtype)
        known = self.catalogue
        for window, row, start in zip(out, rows.tolist(), starts.tolist(), strict=True):
            length, offset, shard = int(known.samples[row]), int(known.offset[row]), self.shards[known.shard[row]]
            first, stop = max(0, start), min(length, start + samples)
            if first < stop:
                for component in range(3):
                    place = offset + component * length
                    window[component, first - start : stop - start] = shard[place + first : place + stop]
        return out


def nothing(dtype: np.dtype[np.generic]) -> float:
    """The code of a sample that is not valid."""
    return NOT_VALID if dtype == np.int16 else np.nan


def store_of(traces: Sequence[Trace], dtype: str = "float32") -> Store:
    """The store of ``traces`` in memory, coded as ``dtype`` (float32, int16, float16)."""
    coded = [encode_samples(trace.waveform, trace.valid, dtype) for trace in traces]
    codes = np.concatenate([np.zeros(0, dtype), *(part.reshape(-1) for part, _, _ in coded)])
    entries = [entry_of(trace, scale, bend) for trace, (_, scale, bend) in zip(traces, coded, strict=True)]
    return Store(catalogue=catalogue_of(entries), shards=(codes,))
