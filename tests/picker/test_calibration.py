"""Calibration: what is told of a pick changes, the picks do not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.calibration import Calibration, PhaseCalibration
from picker.decision import Decider, decide
from picker.errors import BundleError, ConfigError
from picker.spec import PickerSpec

SPEC = PickerSpec(name="test", lookahead_samples=64, state=())
CALIBRATION = {
    "P": PhaseCalibration(temperature=2.0, bias=-0.5, width_factor=0.4, floor_samples=3.0),
    "S": PhaseCalibration(temperature=0.5, bias=1.0),
}


def wavering(seed: int, length: int = 4000) -> np.ndarray:
    """Probabilities (3, length) that rise and fall, P and S often close together."""
    random = np.random.default_rng(seed)
    smooth = np.array([np.convolve(random.normal(size=length), np.hanning(25), "same") for _ in range(3)])
    return (1 / (1 + np.exp(-smooth))).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_calibration_moves_no_pick(seed: int) -> None:
    """The same crossings, samples and decisions, clashes of P and S included: only what is stated differs."""
    data = wavering(seed)
    raw, stated = decide(SPEC, data), decide(replace(SPEC, calibration=CALIBRATION), data)
    assert len(raw) > 20
    assert stated == [CALIBRATION[pick.phase].stated(pick) for pick in raw]
    assert stated != raw


def test_every_event_is_stated() -> None:
    """Crossings that are told, and what is decided at the end, are calibrated like the rest."""
    data = wavering(7)
    told = []
    for spec in (SPEC, replace(SPEC, calibration=CALIBRATION)):
        decider = Decider(spec)
        events = [e for first in range(0, 4000, 64) for e in decider.follow(first, data[:, first : first + 64])]
        told.append(events + decider.finish())
    assert {event.kind for event in told[0]} == {"crossed", "decided", "dropped"}
    assert told[1] == [replace(event, pick=CALIBRATION[event.pick.phase].stated(event.pick)) for event in told[0]]


def test_without_a_calibration_nothing_changes() -> None:
    """The default states what was found, to the last bit, and so does a phase that is not named."""
    data = wavering(1)
    assert decide(replace(SPEC, calibration={"P": PhaseCalibration()}), data) == decide(SPEC, data)


@given(raw=st.floats(0, 1), temperature=st.floats(0.05, 20), bias=st.floats(-5, 5))
def test_probability_is_the_formula(raw: float, temperature: float, bias: float) -> None:
    """Inside 0 and 1 the stated formula; at the ends a number still."""
    value = PhaseCalibration(temperature=temperature, bias=bias).probability(raw)
    assert 0 <= value <= 1
    if 1e-3 < raw < 1 - 1e-3:
        odds = math.exp(math.log(raw / (1 - raw)) / temperature + bias)
        assert value == pytest.approx(odds / (1 + odds))


def test_uncertainty_is_the_formula() -> None:
    """A wide peak says its width, a sharp one the floor."""
    calibration = PhaseCalibration(width_factor=0.5, floor_samples=3.0)
    assert calibration.uncertainty(8.0) == pytest.approx(5.0)
    assert calibration.uncertainty(0.0) == 3.0


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"bias": float("inf")},
        {"width_factor": -1.0},
        {"width_factor": 0.0},
        {"floor_samples": True},
    ],
)
def test_numbers_that_mean_nothing_are_refused(values: dict[str, float]) -> None:
    """So that no bundle states NaN, or certainty to zero samples."""
    with pytest.raises(ValueError, match=next(iter(values))):
        PhaseCalibration(**values)


def test_the_specification_keeps_it() -> None:
    """Written and read again it is the same; without one the text has no such key, as before there were any."""
    spec = replace(SPEC, calibration=CALIBRATION)
    assert PickerSpec.from_json(spec.to_json()) == spec
    assert "calibration" not in json.loads(SPEC.to_json())
    assert PickerSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        ({"Q": {}}, "calibration names Q"),
        ({"P": {"temperature": 0}}, "temperature must be positive"),
        ({"P": {"heat": 1}}, "heat"),
        (["P"], "spec.json"),
    ],
)
def test_a_wrong_one_is_a_bundle_error(calibration: object, words: str) -> None:
    """The text names what is wrong."""
    text = json.dumps({**json.loads(SPEC.to_json()), "calibration": calibration})
    with pytest.raises(BundleError, match=words):
        PickerSpec.from_json(text)


def test_the_file_is_read_as_written() -> None:
    """What ``pretrain`` writes is what ``export`` reads."""
    file = Calibration(thresholds={"P": 0.4, "S": 0.3}, phases=CALIBRATION, checkpoint_sha256="ab", fitted={"n": 3})
    assert Calibration.from_json(file.to_json(), "c.json") == file


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1, "thresholds": {"P": 1.0}, "phases": {}}'])
def test_a_wrong_file_is_named(text: str) -> None:
    """With the command that mends it."""
    with pytest.raises(ConfigError, match=r"^c\.json: .*pretrain calibrate"):
        Calibration.from_json(text, "c.json")
