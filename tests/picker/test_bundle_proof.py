"""A bundle is what its proof of parity proves: cut short, changed or not proved, it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle

from picker.bundle import bundle_digest, load_bundle
from picker.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose proof names it."""
    written = write_tiny_bundle(tmp_path / "tiny")
    (written / "parity.json").write_text(json.dumps({"digest": bundle_digest(written), "passed": True}))
    assert load_bundle(written).digest == bundle_digest(written)
    return written


@pytest.mark.parametrize("length", [0, 100, -1])
def test_truncated_graph(folder: Path, length: int) -> None:
    """Before any engine opens it."""
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:length])
    with pytest.raises(BundleError, match=r"parity\.json: proves the parity of .* cut short or changed"):
        load_bundle(folder)


def test_specification_of_another_bundle(folder: Path, tmp_path: Path) -> None:
    """Thresholds are part of what was proved: picks were compared with them."""
    other = write_tiny_bundle(tmp_path / "other", thresholds={"P": 0.5, "S": 0.5})
    (folder / "spec.json").write_bytes((other / "spec.json").read_bytes())
    with pytest.raises(BundleError, match="proves the parity of"):
        load_bundle(folder)


def test_a_proof_that_failed(folder: Path) -> None:
    """It is a proof of the contrary."""
    (folder / "parity.json").write_text('{"passed": false}')
    with pytest.raises(BundleError, match="not the network"):
        load_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_proof_that_cannot_be_read(folder: Path, content: bytes) -> None:
    """The file is named."""
    (folder / "parity.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"parity\.json: not a proof of parity"):
        load_bundle(folder)
