"""What is measured: a thing that takes one chunk of 0.64 s of each of ``batch`` stations in one call.

Shapes: B stations of one call, C = 3 components, L = 64 samples a chunk.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
from phasenet import PhaseNet
from waveforms import Waveforms

from picker.stepper import State, Stepper
from streamer.chunk import Chunk, StationKey
from streamer.engine import Engine

TURNS = 2
"""Calls of the engine in which every station comes once: it holds more stations than one call has."""
WINDOWS = 3
"""Different batches of windows a cell: enough that none stays in the caches of the processor by chance."""


class Contender(Protocol):
    """Calls of one batch size: ``begin`` and ``prepare`` are not timed, ``call`` is."""

    name: str

    def begin(self, batch: int) -> None:
        """Take fresh stations."""
        ...

    def prepare(self) -> None:
        """Lay the input of the next call ready."""
        ...

    def call(self) -> None:
        """The next 0.64 s of every station of the batch."""
        ...


class Stepping:
    """The step graph alone: one call after another, states carried."""

    def __init__(self, stepper: Stepper, waveforms: Waveforms) -> None:
        self.name = "step graph"
        self._stepper, self._waveforms = stepper, waveforms
        self._state: State = ()

    def begin(self, batch: int) -> None:
        """Fresh states; every sample is valid and no row is reset."""
        self._step, self._stations = 0, np.arange(batch)
        self._state = self._stepper.fresh_state(batch)
        self._reset = np.zeros(batch, dtype=np.bool_)

    def prepare(self) -> None:
        """The next chunk (B, C, L)."""
        self._chunk = self._waveforms.chunks(self._stations, np.full(len(self._stations), self._step))
        self._valid = np.ones(self._chunk.shape, dtype=np.bool_)
        self._step += 1

    def call(self) -> None:
        """One step."""
        _, self._state = self._stepper.step(self._chunk, self._valid, self._reset, self._state)


class Serving:
    """The daemon's engine: twice as many stations as a call has, ready in random order, so that states are gathered."""

    def __init__(self, stepper: Stepper, waveforms: Waveforms) -> None:
        self.name = "daemon engine"
        self._stepper, self._waveforms = stepper, waveforms
        self._generator = np.random.default_rng(1)

    def begin(self, batch: int) -> None:
        """A slot for each station."""
        stations = TURNS * batch
        self._batch = batch
        self._engine = Engine(self._stepper, capacity=stations)
        self._keys = [StationKey("XX", f"S{number:04d}", "", "HH") for number in range(stations)]
        self._steps = np.zeros(stations, dtype=np.int_)
        self._order = np.empty(0, dtype=np.int_)

    def prepare(self) -> None:
        """The chunks of the next stations of a random order; each station comes once before any comes again."""
        if not len(self._order):
            self._order = self._generator.permutation(len(self._keys))
        ready, self._order = np.split(self._order, [self._batch])
        samples = self._waveforms.chunks(ready, self._steps[ready])
        valid = np.ones(samples.shape, dtype=np.bool_)
        self._chunks = [
            Chunk(
                station=self._keys[station],
                first_sample=int(self._steps[station]) * samples.shape[-1],
                time_shift_ns=0,
                samples=samples[row],
                valid=valid[row],
                reset=False,
                data_complete_ns=0,
            )
            for row, station in enumerate(ready)
        ]
        self._steps[ready] += 1

    def call(self) -> None:
        """One call of the engine."""
        self._engine.step(self._chunks)


class Rerunning:
    """PhaseNet, run anew over the last 3001 samples of every station; the windows come normalised."""

    def __init__(self, phasenet: PhaseNet, waveforms: Waveforms) -> None:
        self.name = "PhaseNet"
        self._phasenet, self._waveforms = phasenet, waveforms
        self.normalization_s: dict[int, list[float]] = {}
        """Batch to wall time of each normalisation in NumPy, which ``call`` leaves out."""

    def begin(self, batch: int) -> None:
        """Cut and normalise the windows: PhaseNet takes off the mean and divides by the deviation of each component."""
        self._windows, self._turn = [], 0
        for step in range(WINDOWS):
            windows = self._waveforms.windows(np.arange(batch), step, self._phasenet.window_samples)
            started = time.perf_counter()
            windows -= windows.mean(axis=-1, keepdims=True)
            windows /= windows.std(axis=-1, keepdims=True) + 1e-10
            self.normalization_s.setdefault(batch, []).append(time.perf_counter() - started)
            self._windows.append(windows)

    def prepare(self) -> None:
        """The next of the windows."""
        self._turn = (self._turn + 1) % len(self._windows)

    def call(self) -> None:
        """One call of the graph."""
        self._phasenet(self._windows[self._turn])
