"""Stations and trackers as bytes and back, sharing kept, and nothing made but what is named here.

The bytes are a pickle of protocol 5 that is read by an unpickler which knows only ``CLASSES`` and NumPy's arrays: a
file of somebody else's making can at most be wrong, it cannot run anything (docs.python.org, "Restricting Globals").
"""

from __future__ import annotations

import io
import pickle
from collections import Counter, deque
from fractions import Fraction
from typing import Any

import numpy as np

from picker.decision import _Candidate, _PhaseState
from picker.pick import Pick
from streamer.chunk import Chunk, StationKey
from streamer.component import Column, Component
from streamer.record import Nslc, Record
from streamer.resample import InputClock, Resampler, SlotMapping
from streamer.snapshot_file import SnapshotRefused
from streamer.station import Station, StationPolicy
from streamer.stations import Site
from streamer.tracker import Crossing
from streamer.zero_fill import ZeroFill

CLASSES: tuple[type, ...] = (
    *(
        Chunk,
        InputClock,
        Column,
        Component,
        Crossing,
        SlotMapping,
        Nslc,
        Pick,
        Record,
        Resampler,
        Site,
        Station,
        StationKey,
        StationPolicy,
        ZeroFill,
    ),
    *(_Candidate, _PhaseState, Counter, deque, Fraction, frozenset, set),
)


def packed(tree: Any) -> bytes:
    """``tree`` as bytes."""
    return pickle.dumps(tree, protocol=5)


def unpacked(data: bytes) -> Any:
    """The tree again; raises SnapshotRefused where it holds anything else than ``packed`` writes."""
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except SnapshotRefused:
        raise
    except Exception as error:  # unpickling nonsense can raise anything
        raise SnapshotRefused(f"its tree cannot be read ({type(error).__name__}: {error})") from error


def _numpy_parts() -> set[tuple[str, str]]:
    """What NumPy of this version needs to make an array or a number again."""
    found = {("numpy", "ndarray"), ("numpy", "dtype")}
    for value in (np.zeros(1), np.zeros((2, 2), order="F"), np.float32(0), np.zeros(0, np.uint8)):
        for protocol in (2, 5):
            reduced = value.__reduce_ex__(protocol)
            assert isinstance(reduced, tuple)
            found.add((reduced[0].__module__, reduced[0].__qualname__))
    return found


_ALLOWED = {(one.__module__, one.__qualname__) for one in CLASSES} | _numpy_parts()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise SnapshotRefused(f"it names {module}.{name}, which no snapshot holds")
        return super().find_class(module, name)
