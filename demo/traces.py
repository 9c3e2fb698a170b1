"""The demo's records on the 100 Hz grid with their probabilities, made as the daemon makes them, for the picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from obspy import Trace

from demo.records import Served
from picker.bundle import load_bundle
from picker.drive import aligned, stream
from picker.spec import PickerSpec
from picker.stepper import OnnxStepper
from streamer.resample import INVALID, SLOT_NS, Resampler

COMPONENTS = "ZNE"


@dataclass(frozen=True, kw_only=True)
class StationTrace:
    """One station's part of one source, from slot ``first_slot`` of the 100 Hz grid on, in the demo's time.

    waveforms (3, N) float64 in components Z, N, E, valid (3, N), probabilities (P, N) with rows as ``phases``.
    """

    network: str
    station: str
    shift_ns: int
    first_slot: int
    waveforms: NDArray[np.float64]
    valid: NDArray[np.bool_]
    probabilities: NDArray[np.float32]
    phases: tuple[str, ...]

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Time of each column, int ns UTC, in the time of the original recording."""
        return (self.first_slot + np.arange(self.waveforms.shape[1])) * SLOT_NS - self.shift_ns

    def covers(self, time_ns: int) -> bool:
        """Whether an instant of the original recording lies in it."""
        times = self.times_ns
        return bool(times[0] <= time_ns <= times[-1])


def station_traces(served: list[Served], bundle: Path) -> list[StationTrace]:
    """Every station of every source, with its probabilities from a fresh state; raises BundleError."""
    stepper = OnnxStepper(load_bundle(bundle))
    made = []
    for one in served:
        for network, station in sorted({(t.stats.network, t.stats.station) for t in one.stream}):
            first_slot, waveforms, valid = _gridded(one, station, stepper.spec)
            probabilities = aligned(stepper.spec, stream(stepper, waveforms[None], valid[None])[0])
            made.append(
                StationTrace(
                    network=network,
                    station=station,
                    shift_ns=one.shift_ns,
                    first_slot=first_slot,
                    waveforms=waveforms,
                    valid=valid,
                    probabilities=probabilities,
                    phases=stepper.spec.phases,
                )
            )
    return made


def _gridded(one: Served, station: str, spec: PickerSpec) -> tuple[int, NDArray[np.float64], NDArray[np.bool_]]:
    """First slot (divisible by the chunk), waveforms and validity of a station's components."""
    channels = {
        trace.stats.channel[-1]: _resampled(trace, one.shift_ns) for trace in one.stream.select(station=station)
    }
    first = min(slot for slot, _, _ in channels.values())
    first -= first % spec.chunk_samples
    end = max(slot + len(values) for slot, values, _ in channels.values())
    waveforms, valid = np.zeros((3, end - first)), np.zeros((3, end - first), dtype=np.bool_)
    for component, (slot, values, usable) in channels.items():
        here = slice(slot - first, slot - first + len(values))
        row = COMPONENTS.index(component)
        waveforms[row, here], valid[row, here] = values, usable
    return first, waveforms, valid


def _resampled(trace: Trace, shift_ns: int) -> tuple[int, NDArray[np.float64], NDArray[np.bool_]]:
    """First slot, values (n,) and validity (n,) of one channel, through the daemon's resampler."""
    resampler = Resampler(trace.stats.sampling_rate, trace.stats.starttime.ns + shift_ns)
    pieces = resampler.push(trace.data, np.zeros(trace.stats.npts, dtype=np.uint8)) + resampler.finish()
    values = np.concatenate([piece.values for piece in pieces])
    marks = np.concatenate([piece.marks for piece in pieces])
    return pieces[0].first_slot, values, (marks & INVALID) == 0
