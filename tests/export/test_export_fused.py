"""The fused graph is the network too: the same probabilities and picks, in fewer operators, rows apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_export_graph import same_bits
from untrained import CHUNK, REDUCED, SINGLE, at, steps, through_network, untrained

from export import parity
from export.fused import write_fused
from export.graph import check_operators
from export.signals import synthetic_stream
from picker.bundle import Bundle
from picker.errors import BundleError
from picker.model.checkpoint import load_picker
from picker.model.config import LevelConfig, ModelConfig
from picker.model.picker import Picker, specification
from picker.stepper import OnnxStepper

SHIPPED = Path(__file__).parents[2] / "models" / "checkpoints" / "small.safetensors"
DEEP = replace(
    REDUCED, name="deep", lookahead_samples=32,
    levels=(
        LevelConfig(width=24, heads=1, down_blocks=2, up_blocks=2),
        LevelConfig(width=32, heads=2, down_blocks=0, up_blocks=2),
    ),
)  # fmt: skip
"""Blocks that follow one another, a level without blocks on its way down, a delay shorter than a chunk."""
BLIND = replace(SINGLE, name="blind", lookahead_samples=0)
"""No look-ahead: no delays, and so no state of theirs."""


def opened(model: Picker, folder: Path, precision: str) -> OnnxStepper:
    """The fused graph of ``model`` on the CPU, in a folder of its own."""
    folder.mkdir()
    write_fused(model, folder / "model.onnx", precision)
    spec = specification(model, provenance={} if precision == "fp32" else {"precision": precision})
    return OnnxStepper(Bundle(folder=folder, spec=spec, digest="of a test"))


@pytest.fixture(scope="module")
def stepper(model: Picker, tmp_path_factory: pytest.TempPathFactory) -> OnnxStepper:
    return opened(model, tmp_path_factory.mktemp("fused") / "reduced", "fp32")


@pytest.mark.parametrize("config", [DEEP, BLIND], ids=lambda config: config.name)
def test_is_the_network_in_float32(config: ModelConfig, tmp_path: Path) -> None:
    """Chunk by chunk over events, saturation, gaps and resets, whatever the order of blocks and the look-ahead."""
    network, stream = untrained(config), synthetic_stream(4, 30.0, CHUNK)
    found, _ = steps(opened(network, tmp_path / "fused", "fp32"), stream)
    assert np.abs(found - through_network(network, stream)).max() < 1e-4


def test_shipped_model_in_half_precision_gives_the_same_picks(tmp_path: Path) -> None:
    """Within half of what engines may differ by."""
    network, _ = load_picker(SHIPPED)
    fused = opened(network, tmp_path / "fused", "fp16")
    comparison = parity.compare(network, fused, 4, 60.0)
    assert comparison.picks > 4
    assert comparison.passed, str(comparison)
    assert comparison.largest_difference > 1e-6, "half precision shows"


def test_one_operator_a_memory_and_none_that_is_forbidden(stepper: OnnxStepper, bundle: Bundle, tmp_path: Path) -> None:
    """Each memory is read and written by one operator; there are fewer operators than in ``model.onnx``."""
    path = tmp_path / "fused.onnx"
    write_fused(untrained(), path, "fp16")
    found = check_operators(path)
    assert found["LinearAttention"] == len(untrained().unet.blocks())
    assert sum(found.values()) < 0.9 * sum(check_operators(bundle.model_path).values())


def test_reset_starts_a_row_afresh_and_no_other(stepper: OnnxStepper) -> None:
    """The step after a reset is that of a new station; a neighbour goes on to the last bit."""
    stream = synthetic_stream(3, 25.6, CHUNK)
    _, state = steps(stepper, stream, resets=False)
    chunk, valid, _ = at(stream, 4)
    none, second = np.zeros(3, np.bool_), np.array([False, True, False])
    plain, _ = stepper.step(chunk, valid, none, state)
    reset, after = stepper.step(chunk, valid, second, state)
    fresh, fresh_after = stepper.step(chunk, valid, none, stepper.fresh_state(3))
    assert same_bits(reset[[0, 2]], plain[[0, 2]])
    assert not same_bits(plain[1], fresh[1])
    assert same_bits(reset[1], fresh[1])
    assert all(same_bits(one[1], other[1]) for one, other in zip(after, fresh_after, strict=True))


def test_only_for_the_sigmoid_gate_and_two_precisions(tmp_path: Path) -> None:
    """The refusal says which, and nothing is written."""
    with pytest.raises(BundleError, match="sigmoid gate only"):
        write_fused(Picker(replace(SINGLE, gate="exponential")), tmp_path / "x.onnx")
    with pytest.raises(BundleError, match="fp16 or fp32"):
        write_fused(untrained(SINGLE), tmp_path / "x.onnx", "bf16")
    assert not list(tmp_path.iterdir())
