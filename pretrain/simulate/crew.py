"""The crew: recordings made by several processes, the same and in the same order for any number of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretrain.data.pack import Packed, pack_trace
from pretrain.simulate.folder import describe
from pretrain.simulate.recording import Recording, simulate
from pretrain.simulate.settings import SimulationSettings

PACK, SEISBENCH = "pack", "seisbench"
"""Forms in which recordings are written."""
_TOGETHER = 16


@dataclass(frozen=True, kw_only=True)
class Made:
    """A recording in the form in which it is written: ``packed``, or ``row`` and ``waveform`` (3, N).

    ``labels`` is how many it has, ``cpu_s`` the processor time that its simulation took.
    """

    labels: int
    is_noise: bool
    cpu_s: float
    packed: Packed | None = None
    row: dict[str, Any] | None = None
    waveform: NDArray[np.float32] | None = None


def make(settings: SimulationSettings, form: str, index: int) -> Made:
    """Simulate record ``index`` and bring it into ``form``."""
    begin_s = time.process_time()
    recording = simulate(settings, index)
    cpu_s = time.process_time() - begin_s
    facts = {"labels": len(recording.trace.labels), "is_noise": recording.trace.kind == "noise", "cpu_s": cpu_s}
    return Made(**facts, **_in_form(recording, form))  # type: ignore[arg-type]


def _in_form(recording: Recording, form: str) -> dict[str, Any]:
    if form == PACK:
        return {"packed": pack_trace(recording.trace)}
    return {"row": describe(recording), "waveform": recording.counts.astype(np.float32)}


def make_all(settings: SimulationSettings, form: str, count: int, workers: int) -> Iterator[Made]:
    """Records 0 to ``count`` - 1 in order, from ``workers`` processes (1: this one)."""
    if workers == 1:
        yield from (make(settings, form, index) for index in range(count))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(make, settings, form), range(count), chunksize=_TOGETHER)
