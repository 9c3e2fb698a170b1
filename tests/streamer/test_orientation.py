"""Components turned to up, north and east: only where it is known how they point and all that enter are there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.chunk import Chunk, StationKey
from streamer.orientation import Direction, turn, turned

UP, NORTH, EAST = Direction(0.0, -90.0), Direction(0.0, 0.0), Direction(90.0, 0.0)


def chunk_of(samples: NDArray[np.float64], valid: NDArray[np.bool_] | None = None) -> Chunk:
    mask = np.ones((3, 64), np.bool_) if valid is None else valid
    return Chunk(
        station=StationKey("XX", "ONE", "", "HH"), first_sample=0, time_shift_ns=0,
        samples=np.where(mask, samples, 0).astype(np.float32), valid=mask, reset=False, data_complete_ns=0,
        flags=frozenset({"resampled"}),
    )  # fmt: skip


def ground(seed: int = 0) -> NDArray[np.float64]:
    """Motion up, north and east, (3, 64)."""
    return np.random.default_rng(seed).normal(0, 1000, (3, 64))


def seen_by(motion: NDArray[np.float64], *directions: Direction) -> NDArray[np.float64]:
    """What sensors in these directions record of it."""
    return np.array([one.vector() for one in directions]) @ motion


@pytest.mark.parametrize(
    "directions",
    [
        (UP, Direction(30, 0), Direction(120, 0)),
        (UP, Direction(215.5, 0), Direction(305.5, 0)),
        (UP, EAST, NORTH),
        (UP, Direction(30, 0), Direction(300, 0)),
        (Direction(0, 90), NORTH, EAST),
        (Direction(0, 90), Direction(77, 0), Direction(167, 0)),
        (Direction(0, -35.3), Direction(120, -35.3), Direction(240, -35.3)),
        (Direction(10, -88), Direction(31, 1.5), Direction(119, -2)),
    ],
)
def test_the_motion_of_the_ground_comes_back(directions: tuple[Direction, Direction, Direction]) -> None:
    """Rotated, swapped, left-handed, upside down, three slanted ones, a vertical that leans: all are undone."""
    motion = ground()
    matrix, odd = turn(directions)
    assert matrix is not None
    assert not odd
    out = turned(chunk_of(seen_by(motion, *directions)), matrix)
    np.testing.assert_allclose(out.samples, motion, atol=0.01)
    assert out.flags == {"resampled"}


@given(st.floats(0, 360), st.floats(-30, 30), st.floats(-20, 20), st.floats(-20, 20))
def test_any_sensor_that_is_nearly_square_is_undone(azimuth: float, skew: float, first: float, second: float) -> None:
    """Whatever its azimuth, an angle between its horizontals of 60 to 120 degrees, and some tilt."""
    directions = (UP, Direction(azimuth, first), Direction(azimuth + 90 + skew, second))
    motion = ground(1)
    matrix, odd = turn(directions)
    assert not odd
    raw = chunk_of(seen_by(motion, *directions))
    out = raw if matrix is None else turned(raw, matrix)
    np.testing.assert_allclose(out.samples, motion, atol=0.05)


@pytest.mark.parametrize(
    ("directions", "odd"),
    [
        ((UP, NORTH, EAST), False),
        ((None, None, None), False),
        ((UP, None, None), False),
        ((UP, Direction(30, 0), None), False),
        ((None, None, Direction(30, 0)), False),
        ((None, Direction(30, -30), Direction(120, 0)), False),
        ((Direction(0, -45), None, None), False),
        ((UP, NORTH, NORTH), True),
        ((NORTH, NORTH, EAST), True),
        ((UP, Direction(10, 0), Direction(40, 0)), True),
    ],
)
def test_what_is_not_known_or_cannot_be_stays_as_it_is(
    directions: tuple[Direction | None, Direction | None, Direction | None], odd: bool
) -> None:
    """True already, one direction missing, a slant without its vertical: nothing is guessed. Nonsense is told."""
    assert turn(directions) == (None, odd)


def test_horizontals_need_no_vertical_and_a_vertical_no_horizontals() -> None:
    """Two level ones are turned by themselves; a reversed vertical alone is set right."""
    motion = ground()
    raw = seen_by(motion, UP, Direction(30, 0), Direction(120, 0))
    matrix = turn((None, Direction(30, 0), Direction(120, 0))).matrix
    assert matrix is not None
    np.testing.assert_allclose(turned(chunk_of(raw), matrix).samples, motion, atol=0.01)
    matrix = turn((Direction(0, 90), None, None)).matrix
    assert matrix is not None
    out = turned(chunk_of(motion), matrix).samples
    np.testing.assert_array_equal(out[0], -motion[0].astype(np.float32))
    np.testing.assert_array_equal(out[1:], motion[1:].astype(np.float32))


@pytest.mark.parametrize("lost", [1, 2])
def test_without_its_partner_a_sample_stays_as_it_is_and_is_flagged(lost: int) -> None:
    """Where one horizontal lacks samples the other is as recorded there; the vertical is as ever."""
    directions = (Direction(0, 90), Direction(30, 0), Direction(120, 0))
    motion, valid = ground(), np.ones((3, 64), np.bool_)
    valid[lost, 20:40] = False
    raw = chunk_of(seen_by(motion, *directions), valid)
    matrix = turn(directions).matrix
    assert matrix is not None
    out = turned(raw, matrix)
    kept = 3 - lost
    np.testing.assert_array_equal(out.samples[kept, 20:40], raw.samples[kept, 20:40])
    assert not out.samples[lost, 20:40].any()
    here = np.r_[0:20, 40:64]
    np.testing.assert_allclose(out.samples[1:, here], motion[1:, here], atol=0.01)
    np.testing.assert_allclose(out.samples[0], motion[0], atol=0.01)
    assert out.flags == {"resampled", "not_turned"}
    assert out.valid is raw.valid


def test_a_component_that_does_not_enter_may_be_missing() -> None:
    """Horizontals of a levelled sensor do not need the vertical, and nothing is flagged."""
    directions = (UP, Direction(30, 0), Direction(120, 0))
    valid = np.ones((3, 64), np.bool_)
    valid[0] = False
    motion = ground()
    matrix = turn(directions).matrix
    assert matrix is not None
    out = turned(chunk_of(seen_by(motion, *directions), valid), matrix)
    np.testing.assert_allclose(out.samples[1:], motion[1:], atol=0.01)
    assert out.flags == {"resampled"}
