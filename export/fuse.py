"""Bundle to its fused graph for GPUs: write beside, prove on the processor, then put in place."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from export import parity
from export.build import Checkpoint
from export.fused import write_fused
from export.parity import Progress
from picker.bundle import Bundle
from picker.errors import BundleError
from picker.fused_file import FUSED, FUSED_PROOF
from picker.spec import PickerSpec
from picker.stepper import OnnxStepper


def fuse(
    bundle: Bundle, source: Checkpoint, precision: str = "fp16", progress: Progress = lambda line: None
) -> dict[str, Any]:
    """Write ``fused.onnx`` and ``fused.json`` into the bundle of ``source``; returns what the latter holds.

    Raises BundleError, with the numbers, where the graph is not the network; then what stood there stands there still.
    """
    path, part = bundle.folder / FUSED, bundle.folder / f".{FUSED}.{os.getpid()}.part"
    try:
        progress(f"writing the fused graph of {source.path}")
        write_fused(source.model, part, precision)
        stepper = OnnxStepper(bundle, path=part, spec=_lowered(bundle.spec, precision))
        proof = parity.prove(source.model, stepper, progress, digest=bundle.digest)
        parity.require(proof, f"{path}: not written")
        proof |= {"sha256": hashlib.sha256(part.read_bytes()).hexdigest(), "precision": precision}
        _written(bundle.folder / FUSED_PROOF, json.dumps(proof, indent=2, allow_nan=False) + "\n")
        part.replace(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written ({error})") from error
    finally:
        part.unlink(missing_ok=True)
    return proof


def _lowered(spec: PickerSpec, precision: str) -> PickerSpec:
    """``spec`` with the precision of the fused graph, by which the tolerance of the proof is chosen."""
    return PickerSpec(**{**vars(spec), "provenance": {**spec.provenance, "precision": precision}})


def _written(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
