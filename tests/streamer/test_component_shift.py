"""Components sampled at instants of their own: picks come at the true time, to a fraction of a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from station_data import EPOCH_NS, by_time, noise, packets, run

from picker.spec import PickerSpec
from streamer.chunk import Chunk
from streamer.instant import sample_time_ns
from streamer.record import Record
from streamer.tracker import TrackedPick, Tracker

SPEC = PickerSpec(name="test", lookahead_samples=0, state=())
ONSET_S = 12.3456
RATE_HZ = 100.0
SAMPLES = 3000
SHIFTS_MS = [(0.0, 0.0, 0.0), (0.0, 3.7, 3.7), (0.0, 3.7, -2.0), (3.1, -4.6, 3.1), (-4.9, 4.9, 4.9), (2.2, 2.2, 2.2)]


def wave(shift_s: float) -> NDArray[np.int32]:
    """What a digitiser that samples ``shift_s`` after the grid makes of a peak, 0.08 s wide, at the true onset."""
    times_s = np.arange(SAMPLES) / RATE_HZ + shift_s
    return np.round(90_000 * np.exp(-0.5 * ((times_s - ONSET_S) / 0.04) ** 2)).astype(np.int32)


def stream(shifts_ms: tuple[float, float, float], letters: str) -> list[Record]:
    """The same ground motion on all components, each sampled with its own shift."""
    records = []
    for letter, shift_ms in zip("ZNE", shifts_ms, strict=True):
        if letter in letters:
            cut = packets(letter, wave(shift_ms / 1e3), [70, 113, 41])
            records += [replace(one, start_ns=one.start_ns + round(shift_ms * 1e6)) for one in cut]
    return by_time(records)


def picked(chunks: list[Chunk], phase: str, component: int) -> list[TrackedPick]:
    """Picks where one component's samples are the probability: a model that is right to a fraction of a sample."""
    tracker, out = Tracker(SPEC, guard_s=0.0), []
    for chunk in chunks:
        values = np.zeros((3, 64), np.float32)
        values["PS".index(phase)] = chunk.samples[component] / 100_000
        out += tracker.feed(chunk, values)
    return out + tracker.flush()


def error_ms(time_ns: int) -> float:
    return (time_ns - EPOCH_NS) / 1e6 - ONSET_S * 1e3


def apex(samples: NDArray[np.float32], sample: int) -> float:
    """Where the parabola through a sample and its neighbours has its top, in samples."""
    before, here, after = (float(value) for value in samples[sample - 1 : sample + 2])
    return sample + 0.5 * (before - after) / (before - 2 * here + after)


@pytest.mark.parametrize("shifts_ms", SHIFTS_MS)
@pytest.mark.parametrize(("phase", "component"), [("P", 0), ("S", 1)])
def test_a_pick_has_the_time_of_its_own_component(
    shifts_ms: tuple[float, float, float], phase: str, component: int
) -> None:
    """An onset at one true instant on all three: P on the vertical and S on the north both come out at it."""
    chunks, _ = run(stream(shifts_ms, "ZNE"))
    (one,) = picked(chunks, phase, component)
    assert one.time_shift_ns == one.crossing.time_shift_ns == round(shifts_ms[component] * 1e6)
    held = np.concatenate([chunk.samples[component] for chunk in chunks])
    first = chunks[0].first_sample
    true_sample = first + apex(held, int(held.argmax()))
    assert abs(error_ms(sample_time_ns(true_sample, one.time_shift_ns))) < 0.1
    assert abs(error_ms(sample_time_ns(one.pick.sample, one.time_shift_ns))) < 1.0


@pytest.mark.parametrize(
    ("letters", "phase", "expected"),
    [("ZNE", "P", 0), ("ZNE", "S", 1), ("ZE", "S", 2), ("Z", "S", 0), ("NE", "P", 1), ("E", "P", 2)],
)
def test_the_component_that_stands_in_gives_its_shift(letters: str, phase: str, expected: int) -> None:
    """Where the vertical or a horizontal is missing, the shift is that of the channel that is reported instead."""
    shifts_ms = (1.1, 3.7, -4.2)
    chunks, _ = run(stream(shifts_ms, letters))
    assert {chunk.shift_ns(phase) for chunk in chunks if chunk.valid.any()} == {round(shifts_ms[expected] * 1e6)}


def test_an_empty_chunk_has_the_shift_of_before() -> None:
    """While a gap is held no component has a sample: the station's last shift stands."""
    head, tail = (
        [replace(one, start_ns=one.start_ns + 2_500_000) for one in packets("Z", noise(500), [100], start_s)]
        for start_s in (0.0, 6.5)
    )
    chunks, _ = run([*head, *tail])
    empty = [chunk for chunk in chunks if not chunk.valid.any()]
    assert empty
    assert {chunk.shift_ns("S") for chunk in empty} == {2_500_000}


def test_resampled_components_have_no_shift() -> None:
    """They are evaluated at the instants of the slots, whatever theirs are."""
    records = [
        replace(one, start_ns=one.start_ns + 3_700_000)
        for letter in "ZN"
        for one in packets(letter, noise(2000), [100], rate_hz=125.0)
    ]
    chunks, _ = run(by_time(records))
    assert {chunk.shifts_ns for chunk in chunks} == {(0, 0, None)}
