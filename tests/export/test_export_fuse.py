"""``python -m export fuse``: a proved second graph in a bundle whose identity stays, or nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from export import parity
from export.cli import main
from picker.bundle import Bundle, load_bundle
from picker.cuda_model import open_model
from picker.device_slots import Place
from picker.fused_file import FUSED, FUSED_PROOF, fused_graph
from picker.runtime import onnxruntime

CPU = "CPUExecutionProvider"


@pytest.fixture
def own(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy of the bundle."""
    return load_bundle(shutil.copytree(bundle.folder, tmp_path / "own"))


@pytest.mark.usefixtures("short_proof")
def test_writes_a_graph_that_is_proved_and_taken(
    own: Bundle, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The proof names bundle and graph; the digest is what it was; the engine's sessions open it."""
    assert main(["fuse", str(own.folder), "--checkpoint", str(run_folder), "--precision", "fp32"]) == 0
    proof = json.loads((own.folder / FUSED_PROOF).read_text())
    assert (proof["digest"], proof["passed"], proof["precision"], proof["tolerance"]) == (
        own.digest,
        True,
        "fp32",
        1e-3,
    )
    assert load_bundle(own.folder).digest == own.digest
    assert fused_graph(own) == own.folder / FUSED
    open_model(own, onnxruntime(), Place(), CPU, CPU)
    assert "operators" in capsys.readouterr().out
    assert not [path for path in own.folder.iterdir() if path.name.endswith(".part")]


@pytest.mark.usefixtures("short_proof")
def test_a_graph_that_is_not_the_network_is_not_written(
    own: Bundle, run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, with the numbers, and no file is left."""
    monkeypatch.setitem(parity.TOLERANCES, "fp16", 1e-9)
    assert main(["fuse", str(own.folder), "--checkpoint", str(run_folder)]) == 2
    assert "largest difference" in capsys.readouterr().err
    assert fused_graph(own) is None
    assert {path.name for path in own.folder.iterdir()} == {"model.onnx", "spec.json", "parity.json", "card.md"}
