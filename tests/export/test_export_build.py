"""A bundle is whole and proved, or it is not written; what stood there before stands there still."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from export import build as build_module
from export.build import build
from export.card import CardSources
from export.parity import Comparison, compare
from picker.bundle import Bundle, load_bundle
from picker.calibration import Calibration, PhaseCalibration
from picker.errors import BundleError, ConfigError
from picker.model.picker import Picker
from picker.stepper import OnnxStepper

FIGURES = {
    "bundle": "reduced-0123abcd",
    "thresholds": {"P": 0.4, "S": 0.35},
    "all": {
        "P": {
            "0.5s": {"n": 40, "recall": 0.875, "precision": 0.5, "f1": 0.6364},
            "residual_s": {"mean": -0.0265, "mae": 0.05, "std": 0.0835},
            "false_per_noise_hour": 4.25,
        },
        "S": {"0.5s": {"n": 0, "recall": None, "precision": None, "f1": 0.0}, "false_per_noise_hour": None},
    },
}


@pytest.fixture
def written_before(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is not translated again; that this gives the same bytes is tested with the command line."""
    graph = bundle.model_path.read_bytes()
    monkeypatch.setattr(build_module, "write_onnx", lambda model, path: path.write_bytes(graph))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_bundle_holds_its_four_files(bundle: Bundle, run_folder: Path) -> None:
    """Graph, specification, proof and card; the specification says from what they were made."""
    assert set(content(bundle.folder)) == {"model.onnx", "spec.json", "parity.json", "card.md"}
    checkpoint = (run_folder / "picker.safetensors").read_bytes()
    provenance = bundle.spec.provenance
    assert bundle.spec.name == "reduced"
    assert bundle.spec.thresholds == {"P": 0.4, "S": 0.35}
    assert provenance["checkpoint_sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert provenance["opset"] >= 20
    assert provenance["torch"] == torch.__version__
    proof = json.loads((bundle.folder / "parity.json").read_text())
    assert proof["passed"] is True
    assert [case["rows"] for case in proof["comparisons"]] == [3, 4]


def test_provenance_is_portable(bundle: Bundle) -> None:
    """Training settings travel as strict JSON, without the paths of the machine."""
    training = bundle.spec.provenance["training"]
    assert training["settings"] == {"pack": "train.npz", "rate": 0.002}
    assert training["tune"] == {"f1": None}


def test_card_is_for_people(bundle: Bundle) -> None:
    """Identity, cost, latency, proof and training are on the card; sections without a source say so."""
    card = (bundle.folder / "card.md").read_text()
    assert bundle.digest in card
    assert "| thresholds | P 0.4, S 0.35 |" in card
    assert f"{bundle.spec.state_bytes:,} bytes a station" in card
    assert "| latency by design | P 0.64 to 1.28 s, S 0.64 to 1.28 s: the look-ahead" in card
    assert "| pack | train.npz |" in card
    assert "| 3 | 60 |" in card
    for section in ("Evaluation", "Known weaknesses", "Data sources and licences"):
        assert f"## {section}\n\nNot stated" in card


@pytest.mark.usefixtures("short_proof", "written_before")
def test_files_of_the_card_do_not_change_the_digest(bundle: Bundle, run_folder: Path, tmp_path: Path) -> None:
    """Figures, sources and weaknesses come onto the card, and the identity in every pick stays."""
    evaluation, data, notes = tmp_path / "dev.json", tmp_path / "data.md", tmp_path / "notes.md"
    evaluation.write_text(json.dumps(FIGURES))
    data.write_text("Synthetic, no licence.\n")
    notes.write_text("Never trained.\n")
    again = build(
        run_folder / "picker.safetensors",
        tmp_path / "again",
        thresholds={"P": 0.4, "S": 0.35},
        sources=CardSources(evaluation=evaluation, data=data, notes=notes),
    )
    assert again.digest == bundle.digest
    card = (again.folder / "card.md").read_text()
    assert "Of `reduced-0123abcd` at thresholds P 0.4, S 0.35" in card
    assert "| all | P | 0.5 s | 40 | 0.875 | 0.500 | 0.636 |" in card
    assert "| all | S |" not in card
    assert "| P | -0.026 ± 0.084 | 4.2 |" in card
    assert "| S | – | – |" in card
    assert "## Data sources and licences\n\nSynthetic, no licence." in card
    assert "## Known weaknesses\n\nNever trained." in card


@pytest.mark.usefixtures("short_proof", "written_before")
def test_a_calibration_becomes_part_of_the_specification(bundle: Bundle, run_folder: Path, tmp_path: Path) -> None:
    """Its thresholds hold unless others are given, the card says it, and the proof is of the picks as they are."""
    checkpoint, file = run_folder / "picker.safetensors", tmp_path / "c.json"
    phases = {"P": PhaseCalibration(temperature=2.0, bias=-1.0, width_factor=0.5, floor_samples=2.0)}
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    fitted = Calibration(
        thresholds={"P": 0.45, "S": 0.35}, phases=phases, checkpoint_sha256=sha256, fitted={"fold": "tune"}
    )
    file.write_text(fitted.to_json())
    made = build(checkpoint, tmp_path / "made", thresholds={"P": 0.4}, calibration=file)
    assert made.spec.thresholds == {"P": 0.4, "S": 0.35}
    assert made.spec.calibration == phases
    assert made.spec.provenance["calibration"] == {"fold": "tune"}
    assert made.digest != bundle.digest
    assert "| stated of P | `sigmoid(logit(p) / 2 -1)" in (made.folder / "card.md").read_text()
    file.write_text(Calibration(thresholds={}, phases=phases, checkpoint_sha256="0" * 64).to_json())
    with pytest.raises(ConfigError, match="fitted for another checkpoint"):
        build(checkpoint, tmp_path / "other", calibration=file)
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("short_proof", "written_before")
def test_the_card_has_latency_calibration_and_peers(run_folder: Path, tmp_path: Path) -> None:
    """Of an evaluation that has them, with intervals; a source may lack a phase."""
    times = {name: {"first": 0.86, "confirmed": 1.06, "between": 0.0} for name in ("median", "p95")}
    trust = {
        "expected_calibration_error": 0.031,
        "within": [0.02, 0.09],
        "coverage": {"share": 0.7, "within": [0.6, 0.8], "picks": 90},
    }
    one = {"0.5s": {"f1": 0.9, "ours_less_theirs": -0.0123, "within": [-0.04, 0.02]}}
    figures = {
        **FIGURES,
        "by_source": {"here": {"P": {"0.5s": {"n": 4, "recall": 1.0, "precision": 1.0, "f1": 1.0}}}},
        "latency_s": {"P": times, "S": times},
        "calibration": {"P": trust, "S": {}},
        "peers": {"other": {"paired": True, "P": one, "S": one}},
    }
    evaluation = tmp_path / "dev.json"
    evaluation.write_text(json.dumps(figures))
    made = build(run_folder / "picker.safetensors", tmp_path / "made", sources=CardSources(evaluation=evaluation))
    card = (made.folder / "card.md").read_text()
    assert "| P | 0.86, 0.86 | 1.06, 1.06 | 0.031 (0.020 to 0.090) | 0.700 (0.600 to 0.800) |" in card
    assert "| S | 0.86, 0.86 | 1.06, 1.06 | – | – |" in card
    assert "| other | P | 0.5 s | 0.900 | -0.012 (-0.040 to 0.020) | paired |" in card


def sabotaged(change: Callable[[np.ndarray], np.ndarray], bundle: Bundle) -> Callable[[Picker, Path], None]:
    """A writer of graphs whose largest trained weight is not the network's."""

    def write(model: Picker, path: Path) -> None:
        graph = onnx.load(bundle.model_path)
        floats = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and "model." in t.name]
        largest = max(floats, key=lambda tensor: len(tensor.raw_data))
        largest.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(largest)), largest.name))
        onnx.save(graph, path)

    return write


@pytest.mark.usefixtures("short_proof")
@pytest.mark.parametrize(
    ("change", "number"),
    [(lambda w: w * np.float32(1.05), r"largest difference \d\.\de-0[12]"), (lambda w: w * np.float32(np.nan), "nan")],
    ids=["5 % more", "not a number"],
)
def test_sabotaged_graph_is_refused(
    change: Callable[[np.ndarray], np.ndarray],
    number: str,
    run_folder: Path,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph that is not the network is refused with the numbers; the old bundle stays, and no litter beside it."""
    out = tmp_path / "models" / "old"
    out.mkdir(parents=True)
    for name, data in content(bundle.folder).items():
        (out / name).write_bytes(data)
    monkeypatch.setattr(build_module, "write_onnx", sabotaged(change, bundle))
    with pytest.raises(BundleError, match=number) as caught:
        build(run_folder, out)
    assert "allowed 1e-03" in str(caught.value)
    assert content(out) == content(bundle.folder)
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.usefixtures("short_proof", "written_before")
def test_old_bundle_is_replaced_whole(run_folder: Path, tmp_path: Path, bundle: Bundle) -> None:
    """A bundle that stands at OUT is replaced, a stray file in it included."""
    out = tmp_path / "models"
    out.mkdir()
    for name, data in {**content(bundle.folder), "stray.txt": b"old"}.items():
        (out / name).write_bytes(data)
    new = build(run_folder, out, name="renamed")
    assert new.spec.name == "renamed"
    assert new == load_bundle(out)
    assert set(content(out)) == {"model.onnx", "spec.json", "parity.json", "card.md"}
    assert list(tmp_path.iterdir()) == [out]


def test_folder_of_something_else_is_never_replaced(run_folder: Path, tmp_path: Path) -> None:
    """A slip of the pen in OUT does not cost a folder."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="other things than a bundle"):
        build(run_folder, tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        build(run_folder, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_no_checkpoint(tmp_path: Path) -> None:
    """A path that is not there, and a folder without a checkpoint, are named."""
    with pytest.raises(ConfigError, match=r"absent.*no such checkpoint"):
        build(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no picker\.safetensors in this folder"):
        build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_not_a_checkpoint(tmp_path: Path) -> None:
    """A file of another kind, and safetensors of another program, are refused by name."""
    foreign, other = tmp_path / "notes.txt", tmp_path / "other.safetensors"
    foreign.write_text("not weights at all")
    save_file({"weight": torch.zeros(3)}, other)
    for path in (foreign, other):
        with pytest.raises(ConfigError, match=rf"{path.name}: not a checkpoint of a picker"):
            build(path, tmp_path / "out")


@pytest.mark.parametrize("value", [0.0, 1.0, -0.2, float("nan")])
def test_impossible_threshold(run_folder: Path, tmp_path: Path, value: float) -> None:
    """A threshold lies between 0 and 1."""
    with pytest.raises(ConfigError, match="threshold of S"):
        build(run_folder, tmp_path / "out", thresholds={"P": 0.3, "S": value})


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"bundle": "x", "thresholds": {}, "all": {"P": 1}}'])
def test_figures_that_are_not_an_evaluation(text: str, run_folder: Path, tmp_path: Path) -> None:
    """The card's sources are read before the long work begins, and a wrong one is named."""
    file = tmp_path / "figures.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"figures\.json: not an evaluation"):
        build(run_folder, tmp_path / "out", sources=CardSources(evaluation=file))
    with pytest.raises(ConfigError, match=r"absent\.md: cannot be read"):
        build(run_folder, tmp_path / "out", sources=CardSources(notes=tmp_path / "absent.md"))


def test_picks_count_as_well_as_probabilities(model: Picker, stepper: OnnxStepper) -> None:
    """The proof compares picks too, on a stream in which there are some; one that differs is enough to fail."""
    comparison = compare(model, stepper, 4, 60.0)
    assert comparison.picks > 0
    assert comparison.passed
    values = {"rows": 1, "seconds": 1.0, "largest_difference": 1e-6, "percentile_99_9": 1e-6, "picks": 9}
    assert not Comparison(**values, picks_differing=1).passed  # type: ignore[arg-type]
