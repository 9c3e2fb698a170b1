"""Checkpoint to bundle: write beside, prove, then swap into place. A bundle is whole and proved, or it is not there."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from export import parity
from export.card import CardSources, write_card
from export.cost import multiply_adds, parameters
from export.graph import OPSET, write_onnx
from export.parity import Progress
from export.precision import lowered
from picker.bundle import CARD, MODEL, PARITY, SPEC, Bundle, bundle_digest, load_bundle
from picker.calibration import Calibration
from picker.errors import BundleError, ConfigError
from picker.model.checkpoint import load_picker
from picker.model.picker import Picker, specification
from picker.spec import DEFAULT_THRESHOLDS
from picker.stepper import OnnxStepper

CHECKPOINT = "picker.safetensors"
"""Name of the checkpoint in a run folder."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network as read from disk."""

    path: Path
    model: Picker
    provenance: dict[str, Any]
    sha256: str


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a safetensors file, or that of a run folder; raises ConfigError that names the file and what is wrong."""
    file = path / CHECKPOINT if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise ConfigError(f"{path}: no {CHECKPOINT} in this folder; name a run folder of `pretrain train` or a file")
    model, provenance = load_picker(file)
    return Checkpoint(file, model, provenance, hashlib.sha256(file.read_bytes()).hexdigest())


def read_calibration(path: Path, source: Checkpoint) -> Calibration:
    """The file of ``pretrain calibrate``; raises ConfigError where it is none, or was fitted for another checkpoint."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    calibration = Calibration.from_json(text, str(path))
    if calibration.checkpoint_sha256 not in (None, source.sha256):
        raise ConfigError(
            f"{path}: was fitted for another checkpoint ({str(calibration.checkpoint_sha256)[:8]}...) than "
            f"{source.path} ({source.sha256[:8]}...): build that one without it, run `pretrain calibrate` on what was "
            "built, and build again"
        )
    return calibration


def build(
    checkpoint: Path,
    out: Path,
    *,
    thresholds: Mapping[str, float] | None = None,
    calibration: Path | None = None,
    name: str | None = None,
    sources: CardSources | None = None,
    precision: str = "fp32",
    progress: Progress = lambda line: None,
) -> Bundle:
    """Write the bundle of ``checkpoint`` (a file or a run folder) to the folder ``out`` and return it.

    ``calibration`` is a file of ``pretrain calibrate``. ``thresholds`` by phase go before those in it, and default to
    PickerSpec's where neither names the phase; ``name`` defaults to the configuration's; ``sources`` are the card's
    further files, ``precision`` is one of ``export.precision.PRECISIONS``. The same checkpoint, settings and library
    versions give the same digest. Raises ConfigError for an input that is wrong, and BundleError, with the numbers,
    where the exported graph is not the network or cannot be run here to prove it: then nothing is written, and a bundle
    that stood at ``out`` stands there still.
    """
    _check_target(out)
    for phase, value in (thresholds or {}).items():
        if not 0 < value < 1:
            raise ConfigError(f"threshold of {phase} is {value}; it must lie between 0 and 1")
    card = (sources or CardSources()).read()
    source = read_checkpoint(checkpoint)
    fitted = None if calibration is None else read_calibration(calibration, source)
    spec = specification(
        source.model,
        name=name,
        thresholds={**DEFAULT_THRESHOLDS, **(fitted.thresholds if fitted else {}), **(thresholds or {})},
        calibration=fitted.phases if fitted else None,
        provenance=_provenance(source, precision) | ({"calibration": dict(fitted.fitted)} if fitted else {}),
    )
    with _beside(out) as folder:
        progress(f"writing the graph of {source.path}")
        write_onnx(lowered(source.model, precision), folder / MODEL)
        (folder / SPEC).write_text(spec.to_json(), encoding="utf-8")
        stepper = _opened(Bundle(folder=folder, spec=spec, digest="not proved yet"), precision, out)
        proof = parity.prove(source.model, stepper, progress, digest=bundle_digest(folder))
        parity.require(proof, f"{out}: not written")
        write_proof(folder, proof)
        write_card(folder / CARD, load_bundle(folder), proof, card)
        _swap(folder, out)
    return load_bundle(out)


def _opened(bundle: Bundle, precision: str, out: Path) -> OnnxStepper:
    """The graph on the CPU, on which parity is proved; BundleError where it lacks that precision."""
    try:
        return OnnxStepper(bundle)
    except BundleError as error:
        if precision == "fp32" or "NOT_IMPLEMENTED" not in str(error):
            raise
        raise BundleError(
            f"{out}: not written: ONNX Runtime's CPU build has no products in {precision}, so that parity cannot be "
            "proved here; use --precision fp16 or fp32"
        ) from error


def write_proof(folder: Path, proof: dict[str, Any]) -> None:
    """Put ``parity.json`` into a bundle, whole; raises BundleError where the folder cannot be written."""
    part = folder / f".{PARITY}.part"
    try:
        part.write_text(json.dumps(proof, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(folder / PARITY)
    except OSError as error:
        raise BundleError(f"{folder / PARITY}: cannot be written ({error})") from error


def _provenance(source: Checkpoint, precision: str) -> dict[str, Any]:
    return {
        **({} if precision == "fp32" else {"precision": precision}),
        "checkpoint_sha256": source.sha256,
        "training": _portable(source.provenance),
        "configuration": source.model.config.to_dict(),
        "parameters": parameters(source.model),
        "multiply_adds_per_station_second": multiply_adds(source.model),
        "opset": OPSET,
        "torch": version("torch"),
        "onnx": version("onnx"),
        "onnxscript": version("onnxscript"),
    }


def _portable(value: Any) -> Any:
    """The settings as JSON has them, absolute paths cut to their last part: a bundle says nothing of the machine."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def _check_target(out: Path) -> None:
    """A folder that is not a bundle is never replaced."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out}: is not a folder; name a folder for the bundle")
    if out.is_dir() and any(out.iterdir()) and not (out / SPEC).is_file():
        raise ConfigError(f"{out}: this folder holds other things than a bundle; name another one")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A fresh folder in the folder of ``out``, gone afterwards unless it was moved away."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = out.parent / f".{out.name}.{os.getpid()}.part"
        folder.mkdir()
    except OSError as error:
        raise BundleError(f"{out}: cannot write beside it ({error}); name another folder") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    """Put ``folder`` where ``out`` is; on failure the old one is put back."""
    old = folder.with_suffix(".old")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except OSError as error:
        if old.exists():
            old.rename(out)
        raise BundleError(f"{out}: cannot be put in place ({error})") from error
    shutil.rmtree(old, ignore_errors=True)
