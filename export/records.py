"""Recorded ground motion for the proof of parity: miniSEED to rows of a stream, gaps and resets as they come."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import MiniSEEDError, MS3TraceList, sourceid2nslc

from export.signals import RATE_HZ, Stream
from picker.errors import ConfigError
from picker.offset import first_valid, remove_offset

RESET_AFTER_SAMPLES = 200
"""A gap that long, on all components, starts the station afresh."""
COMPONENTS = {"Z": 0, "3": 0, "N": 1, "1": 1, "E": 2, "2": 2}

Piece = tuple[int, int, NDArray[np.float64]]
"""Component, start in ns, samples."""


def recorded_stream(files: Sequence[Path], seconds: float, chunk_samples: int) -> Stream:
    """The last ``seconds`` of each station in ``files``, one row a station (network, station, location, instrument).

    Raises ConfigError for a file that cannot be read, and where no channel runs at 100 Hz.
    """
    stations: defaultdict[str, list[Piece]] = defaultdict(list)
    for file in files:
        _read(file, stations)
    if not stations:
        raise ConfigError(f"{', '.join(map(str, files))}: no channel of three components or one at {RATE_HZ} Hz")
    chunks = int(seconds * RATE_HZ) // chunk_samples
    if chunks < 1:
        raise ConfigError(f"{seconds:g} s are less than one chunk of {chunk_samples} samples")
    rows = [_row(pieces, chunks * chunk_samples) for _, pieces in sorted(stations.items())]
    samples, valid = (np.stack(part) for part in zip(*rows, strict=True))
    reset = np.stack([_resets(row.any(axis=0), chunks, chunk_samples) for row in valid])
    return Stream(remove_offset(samples, first_valid(samples, valid)), valid, reset)


def _read(file: Path, stations: defaultdict[str, list[Piece]]) -> None:
    try:
        with MS3TraceList.from_file(str(file), unpack_data=True) as traces:
            for trace in traces:
                network, station, location, channel = sourceid2nslc(trace.sourceid)
                component = COMPONENTS.get(channel[-1:])
                for segment in trace:
                    if component is None or abs(segment.samprate - RATE_HZ) > 0.01:
                        continue
                    piece = (component, int(segment.starttime), np.array(segment.np_datasamples, np.float64))
                    stations[f"{network}.{station}.{location}.{channel[:-1]}"].append(piece)
    except (MiniSEEDError, OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as miniSEED ({error})") from error


def _row(pieces: list[Piece], count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Samples and valid (3, count) up to the end of the last piece."""
    step_ns = 1_000_000_000 // RATE_HZ
    end_ns = max(start_ns + len(values) * step_ns for _, start_ns, values in pieces)
    samples, valid = np.zeros((3, count)), np.zeros((3, count), np.bool_)
    for component, start_ns, values in pieces:
        first = count - round((end_ns - start_ns) / step_ns)
        here, there = max(first, 0), min(first + len(values), count)
        if there > here:
            samples[component, here:there] = values[here - first : there - first]
            valid[component, here:there] = True
    return samples, valid


def _resets(present: NDArray[np.bool_], chunks: int, chunk_samples: int) -> NDArray[np.bool_]:
    """Chunks before which nothing came for RESET_AFTER_SAMPLES, the chunk itself having something."""
    reset, silent = np.zeros(chunks, np.bool_), 0
    for k in range(chunks):
        seen = np.flatnonzero(present[k * chunk_samples : (k + 1) * chunk_samples])
        if len(seen):
            reset[k] = k > 0 and silent >= RESET_AFTER_SAMPLES
            silent = chunk_samples - 1 - int(seen[-1])
        else:
            silent += chunk_samples
    return reset
