"""A bundle on disk and its specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import write_tiny_bundle

from picker.bundle import load_bundle
from picker.errors import BundleError
from picker.spec import PickerSpec, StateTensor

SPEC = PickerSpec(
    name="any",
    lookahead_samples=32,
    state=(StateTensor(name="a.b", shape=(2, 3)), StateTensor(name="c", shape=(), dtype="float16")),
    thresholds={"P": 0.4, "S": 0.25},
    provenance={"steps": 3},
)


def test_specification_round_trip() -> None:
    """Through the text of spec.json, tuples included."""
    assert PickerSpec.from_json(SPEC.to_json()) == SPEC
    assert SPEC.state_bytes == 2 * 3 * 4 + 2


def altered(**changes: Any) -> str:
    """spec.json with keys replaced; None removes one."""
    values = {**json.loads(SPEC.to_json()), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "version is None"),
        (altered(version=3), "version is 3"),
        (altered(version=None), "version is None"),
        (altered(state=None), "state"),
        (altered(state=[{"name": "a"}]), "shape"),
        (altered(lookahead_samples=None), "lookahead_samples"),
        (altered(colour="red"), "colour"),
        (altered(thresholds=[0.3]), "keys"),
        (altered(thresholds={"Pn": 0.3}), "Pn"),
    ],
)
def test_a_wrong_specification_is_refused(text: str, says: str) -> None:
    """The error names the file and what is wrong."""
    with pytest.raises(BundleError, match=says) as error:
        PickerSpec.from_json(text, "somewhere/spec.json")
    assert "somewhere/spec.json" in str(error.value)


def test_a_bundle_is_identified_by_its_files(tmp_path: Path) -> None:
    """The digest follows graph and specification, not the folder."""
    one, two = (load_bundle(write_tiny_bundle(tmp_path / name)) for name in ("one", "two"))
    assert one.digest == two.digest
    assert one.label == f"tiny-{one.digest[:8]}"
    assert one.model_path == tmp_path / "one" / "model.onnx"
    other = load_bundle(write_tiny_bundle(tmp_path / "three", thresholds={"P": 0.5, "S": 0.5}))
    assert other.digest != one.digest


@pytest.mark.parametrize("name", ["model.onnx", "spec.json", "parity.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """Each file that a bundle must have."""
    folder = write_tiny_bundle(tmp_path / "b")
    (folder / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """With the key of the settings that names it."""
    with pytest.raises(BundleError, match="`bundle`") as error:
        load_bundle(tmp_path / "nowhere")
    assert "nowhere" in str(error.value)


@pytest.mark.parametrize("content", [b"{ broken", b"\xff\xfe\x00", b""])
def test_a_broken_specification_is_named(tmp_path: Path, content: bytes) -> None:
    """JSON that is none, text that is none, nothing."""
    folder = write_tiny_bundle(tmp_path / "b")
    (folder / "spec.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"spec\.json"):
        load_bundle(folder)
