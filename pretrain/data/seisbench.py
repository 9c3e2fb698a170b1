"""Reading a data set in SeisBench's format: ``metadata.csv`` beside ``waveforms.hdf5``, or both in chunks.

Format: https://seisbench.readthedocs.io/en/stable/pages/data_format.html. Waveforms lie in ``data/<trace_name>``, or in
``data/<bucket>`` where the trace name ends in ``$index,:components,:samples``. A set in chunks has a file ``chunks``
that names them, one a line, and ``metadata<chunk>.csv`` and ``waveforms<chunk>.hdf5`` for each.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.seisbench_row import (
    STATUS_WEIGHTS,
    category_of,
    in_order,
    is_used,
    plain_category,
    rate_of,
    trace_of,
)
from pretrain.data.trace import NOISE, RATE_HZ, TRAIN, Trace

__all__ = ["STATUS_WEIGHTS", "Chunk", "chunks_of", "in_order", "open_chunk", "read_metadata", "read_seisbench"]

CACHE_BYTES = 2**26
"""HDF5's cache of a compressed bucket: the default is smaller than one, and would unpack it again for each trace."""


def chunks_of(folder: Path) -> list[str]:
    """The chunks of a set, [""] where it is in one piece; raises ConfigError where there is nothing to read."""
    listed = folder / "chunks"
    names = [line.strip() for line in listed.read_text(encoding="utf-8").splitlines()] if listed.is_file() else []
    if names := sorted(filter(None, names)):
        return names
    if (folder / "metadata.csv").is_file() or not folder.is_dir():
        return [""]
    found = {path.name[len("metadata") : -len(".csv")] for path in folder.glob("metadata*.csv")}
    return sorted(found) or [""]


def read_metadata(folder: Path, chunk: str = "") -> list[dict[str, str]]:
    """The rows of the metadata of a chunk; raises ConfigError that names what is missing."""
    rows = list(_rows(folder, chunk))
    if not rows:
        raise ConfigError(f"{folder / f'metadata{chunk}.csv'}: no row; is it in SeisBench format?")
    return rows


def count_rows(folder: Path, chunk: str) -> int:
    """Number of rows of a chunk's metadata."""
    with _metadata(folder, chunk).open(newline="", encoding="utf-8") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


def _metadata(folder: Path, chunk: str) -> Path:
    path = folder / f"metadata{chunk}.csv"
    if not path.is_file():
        raise ConfigError(f"{path}: missing; give a folder in SeisBench format (metadata.csv and waveforms.hdf5)")
    return path


def _rows(folder: Path, chunk: str, first: int = 0, count: int | None = None) -> Iterator[dict[str, str]]:
    """Rows from ``first``, with the columns that are used: all hundred of a million traces would fill the memory."""
    path = _metadata(folder, chunk)
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        header = next(lines, [])
        if "trace_name" not in header:
            raise ConfigError(f"{path}: no row, or no column trace_name; is it in SeisBench format?")
        wanted = [(place, column) for place, column in enumerate(header) if is_used(column)]
        for number, line in enumerate(lines):
            if count is not None and number >= first + count:
                return
            if number >= first:
                yield {column: line[place] if place < len(line) else "" for place, column in wanted}


_FEW = 4096
"""So many arrays of a file are looked at one by one; of more, the size of the file tells enough."""


class Chunk:
    """An open chunk of a set, of which traces are read by their rows."""

    def __init__(self, folder: Path, chunk: str, file: Any, name: str) -> None:
        self.folder, self.chunk, self.name = folder, chunk, name
        self.path = folder / f"waveforms{chunk}.hdf5"
        self._file = file
        form = file["data_format"].items() if "data_format" in file else ()
        self.form = {key: _plain(value[()]) for key, value in form}

    def about_samples(self) -> int:
        """Samples at 100 Hz of all its traces together, about: as if all had the rate of the first."""
        stored = self._file["data"]
        first = next(iter(stored.values()), None)
        row = next(self.rows(0, 1), None)
        if first is None or row is None:
            return 0
        if len(stored) <= _FEW:
            samples = sum(int(each.size) for each in stored.values())
        else:
            samples = self.path.stat().st_size // int(first.dtype.itemsize)
        return round(samples * RATE_HZ / rate_of(row, self.form))

    def rows(self, first: int = 0, count: int | None = None) -> Iterator[dict[str, str]]:
        """Rows of its metadata."""
        return _rows(self.folder, self.chunk, first, count)

    def trace(self, row: dict[str, str], as_noise: Sequence[str] = ()) -> tuple[Trace, list[str]]:
        """The trace of a row and notes on it; one of a category in ``as_noise`` is noise, and has no labels.

        Raises KeyError where it has no waveform, otherwise as ``trace_of``.
        """
        trace, notes = trace_of(row, self._waveform(row["trace_name"]), self.form, self.name)
        if category_of(row) in map(plain_category, as_noise):
            notes.append(f"{category_of(row)} as noise")
            trace = replace(trace, labels=(), doubtful=(), kind=NOISE, status=NOISE)
        return trace, notes

    def _waveform(self, name: str) -> NDArray[np.generic]:
        bucket, _, index = name.partition("$")
        data = self._file["data"][bucket]
        if not index:
            return np.asarray(data[()])
        slices = tuple(slice(*(int(n) if n else None for n in part.split(":"))) if ":" in part else int(part)
                       for part in index.split(","))  # fmt: skip
        return np.asarray(data[slices])


@contextmanager
def open_chunk(folder: Path, chunk: str = "", name: str | None = None) -> Iterator[Chunk]:
    """A chunk of the set in ``folder``, called ``name`` (else as its folder).

    Raises ConfigError that names the file.
    """
    path = folder / f"waveforms{chunk}.hdf5"
    _metadata(folder, chunk)
    if not path.is_file():
        raise ConfigError(f"{path}: missing; give a folder in SeisBench format (metadata.csv and waveforms.hdf5)")
    import h5py

    try:
        file = h5py.File(path, rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read as HDF5 ({error}); fetch or write it again") from error
    with file:
        if "data" not in file:
            raise ConfigError(f"{path}: no group 'data'; is it in SeisBench format?")
        yield Chunk(folder, chunk, file, name or folder.name)


def read_seisbench(
    folder: str | Path, split: str | None = None, status: str | None = None, as_noise: Sequence[str] = ()
) -> Iterator[Trace]:
    """Traces of ``folder`` at 100 Hz, in the order of its metadata.

    ``split`` keeps one split (train, dev, test; a row that names none is train); ``status`` keeps labels of one
    ``trace_p_status``, and noise records; traces of a ``trace_category`` in ``as_noise`` are noise. Components are put
    in the order Z, N, E; those that are missing, flat or not finite are zero and not valid.
    Raises ConfigError that names the file and the trace.
    """
    folder = Path(folder)
    for part in chunks_of(folder):
        rows = read_metadata(folder, part)
        with open_chunk(folder, part) as chunk:
            for row in rows:
                if split is not None and (row.get("split") or TRAIN) != split:
                    continue
                if status is not None and row.get("trace_p_status") not in (status, "noise"):
                    continue
                try:
                    yield chunk.trace(row, as_noise)[0]
                except (KeyError, ValueError, IndexError, OSError, ConfigError) as error:
                    raise ConfigError(f"{chunk.path}: trace {row['trace_name']!r}: {error}") from error


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
