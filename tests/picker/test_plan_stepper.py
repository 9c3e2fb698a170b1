"""Driving a plan: tensors by name, sets of state that take turns, outputs after the wait. The GPU here is memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from host_engine import TYPES, HostDevice, HostEngine
from numpy.typing import NDArray
from tiny_bundle import write_tiny_bundle

from picker.bundle import Bundle, load_bundle
from picker.errors import BundleError, ConfigError
from picker.plan_stepper import PlanSession, TensorRtStepper, open_session
from picker.stepper import OnnxStepper

MOST = 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def engine(bundle: Bundle) -> HostEngine:
    return HostEngine(bundle, HostDevice(), MOST)


@pytest.fixture
def session(bundle: Bundle, engine: HostEngine) -> Iterator[PlanSession]:
    opened = PlanSession(bundle.spec, engine, TYPES.__getitem__, engine.device, MOST)
    yield opened
    opened.close()
    assert engine.device.buffers == {}


def chunks(rows: int, steps: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]]:
    random = np.random.default_rng(rows)
    for _ in range(steps):
        chunk = random.random((rows, 3, 64), np.float32)
        yield chunk, random.random(chunk.shape) > 0.1, random.random(rows) > 0.9


def test_a_thousand_steps_are_those_of_onnx_runtime(bundle: Bundle, session: PlanSession) -> None:
    """State stays on the device from step to step, and each step's output is its own, not the one before."""
    expected, state = OnnxStepper(bundle), OnnxStepper(bundle).fresh_state(3)
    session.load(state)
    for chunk, valid, reset in chunks(3, 1000):
        wanted, state = expected.step(chunk, valid, reset, state)
        np.testing.assert_array_equal(session.step(chunk, valid, reset), wanted)
    for mine, theirs in zip(session.state(3), state, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_step_that_fails_leaves_the_state(bundle: Bundle, session: PlanSession, engine: HostEngine) -> None:
    """What a step reads it never writes: after a failure the same step can be made again."""
    session.load(OnnxStepper(bundle).fresh_state(2))
    (first, second) = chunks(2, 2)
    session.step(*first)
    before = session.state(2)
    engine.fails = True
    with pytest.raises(RuntimeError, match="could not run"):
        session.step(*second)
    engine.fails = False
    np.testing.assert_array_equal(session.state(2)[0], before[0])
    wanted, _ = OnnxStepper(bundle).step(*second, before)
    np.testing.assert_array_equal(session.step(*second), wanted)


def test_more_rows_than_the_plan_holds(bundle: Bundle, session: PlanSession) -> None:
    """A session refuses them; the stepper steps them in parts, with the same results."""
    stepper, expected = TensorRtStepper(session), OnnxStepper(bundle)
    state = mine = stepper.fresh_state(12)
    for chunk, valid, reset in chunks(12, 4):
        wanted, state = expected.step(chunk, valid, reset, state)
        found, mine = stepper.step(chunk, valid, reset, mine)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(mine[0], state[0])
    with pytest.raises(ValueError, match="12 rows in one step; the plan was opened for 1 to 5"):
        session.step(chunk, valid, reset)


def test_views_are_copied_whole(bundle: Bundle, session: PlanSession) -> None:
    """Inputs that are slices of a longer array, as the daemon's are, arrive as they look."""
    session.load(OnnxStepper(bundle).fresh_state(2))
    (chunk, valid, reset), (long, _, _) = next(chunks(2, 1)), next(chunks(4, 1))
    expected, _ = OnnxStepper(bundle).step(np.ascontiguousarray(long[::2]), valid, reset, session.state(2))
    np.testing.assert_array_equal(session.step(long[::2], valid, reset), expected)
    assert chunk.shape == long[::2].shape


def test_a_plan_of_another_graph_is_named(bundle: Bundle, engine: HostEngine) -> None:
    """A tensor that the specification does not know, or knows in another shape, is refused by name."""
    (tail,) = bundle.spec.state
    for wrong, says in ((replace(tail, name="other"), "next.other"), (replace(tail, shape=(3, 32)), "tail")):
        spec = replace(bundle.spec, state=(wrong,))
        with pytest.raises(BundleError, match=says):
            PlanSession(spec, engine, TYPES.__getitem__, engine.device, MOST)


def test_opening_needs_a_library_or_a_gpu(bundle: Bundle, tmp_path: Path) -> None:
    """On a machine that lacks either, one error says what to install or to check."""
    with pytest.raises((ConfigError, BundleError), match=r"pip install|no NVIDIA GPU|export plan"):
        open_session(bundle, cache=tmp_path)
