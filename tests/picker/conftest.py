"""One export of the miniature network for all tests of this folder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest
import torch
from networks import network

from export.graph import write_onnx
from picker.bundle import load_bundle
from picker.model.picker import Picker, specification
from picker.stepper import OnnxStepper


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on a busy machine are quicker on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def miniature() -> Picker:
    """The miniature network."""
    return network()


@pytest.fixture(scope="session")
def stepper(miniature: Picker, tmp_path_factory: pytest.TempPathFactory) -> OnnxStepper:
    """The miniature network as a step graph on ONNX Runtime."""
    folder = tmp_path_factory.mktemp("miniature")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of libraries that it looks for
        write_onnx(miniature, folder / "model.onnx")
    (folder / "spec.json").write_text(specification(miniature).to_json())
    (folder / "parity.json").write_text(json.dumps({}))
    return OnnxStepper(load_bundle(folder))
