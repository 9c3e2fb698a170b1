"""One checkpoint and one bundle of a reduced, untrained network for all tests of the exporter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from untrained import untrained

from export import parity
from export.build import build
from picker.bundle import Bundle
from picker.model.checkpoint import save_picker
from picker.model.picker import Picker
from picker.stepper import OnnxStepper

SETTINGS = {"settings": {"pack": "/data/packs/train.npz", "rate": 0.002}, "step": 12, "tune": {"f1": float("nan")}}
SHORT_CASES = ((3, 60.0), (4, 30.0))


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model() -> Picker:
    return untrained()


@pytest.fixture(scope="session")
def run_folder(model: Picker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as the trainer leaves it."""
    folder = tmp_path_factory.mktemp("run")
    save_picker(folder / "picker.safetensors", model, SETTINGS)
    return folder


@pytest.fixture
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof of parity that takes a second instead of ten."""
    monkeypatch.setattr(parity, "CASES", SHORT_CASES)


@pytest.fixture(scope="session")
def bundle(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "CASES", SHORT_CASES)
        return build(run_folder, tmp_path_factory.mktemp("bundles") / "reduced", thresholds={"P": 0.4, "S": 0.35})


@pytest.fixture(scope="session")
def stepper(bundle: Bundle) -> OnnxStepper:
    return OnnxStepper(bundle)
