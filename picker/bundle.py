"""A model bundle on disk: ``model.onnx``, ``spec.json``, ``parity.json`` and ``card.md`` in one folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from picker.errors import BundleError
from picker.spec import PickerSpec

MODEL, SPEC, PARITY, CARD = "model.onnx", "spec.json", "parity.json", "card.md"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are all there and whose specification was read; the graph is opened by a stepper."""

    folder: Path
    spec: PickerSpec
    digest: str
    """SHA-256 over ``model.onnx`` and ``spec.json``, hexadecimal: the identity of the model in every pick."""

    @property
    def model_path(self) -> Path:
        """Path of the step graph."""
        return self.folder / MODEL

    @property
    def label(self) -> str:
        """Short name for logs and messages, for example ``small-1a2b3c4d``."""
        return f"{self.spec.name}-{self.digest[:8]}"


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle folder; raises BundleError that names what is missing or wrong.

    A bundle that was cut short or changed after it was proved is refused by the digest in its proof of parity.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle folder; set the key `bundle` to a folder that holds {MODEL}")
    for name in (MODEL, SPEC, PARITY):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name}: missing; export the bundle again with `python -m export build`")
    try:
        text = (folder / SPEC).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{folder / SPEC}: not UTF-8 text ({error}); export the bundle again") from error
    spec, digest = PickerSpec.from_json(text, str(folder / SPEC)), bundle_digest(folder)
    _check_proof(folder, digest)
    return Bundle(folder=folder, spec=spec, digest=digest)


def bundle_digest(folder: Path) -> str:
    """See Bundle.digest."""
    return hashlib.sha256((folder / MODEL).read_bytes() + (folder / SPEC).read_bytes()).hexdigest()


def _check_proof(folder: Path, digest: str) -> None:
    """Raise BundleError where ``parity.json`` is broken, says that the proof failed, or proves other files."""
    path = folder / PARITY
    try:
        proof = json.loads(path.read_text(encoding="utf-8"))
        proved, passed = proof.get("digest"), proof.get("passed", True)
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
        raise BundleError(f"{path}: not a proof of parity ({error}); export the bundle again") from error
    if not passed:
        raise BundleError(f"{path}: says that the graph is not the network; export the bundle again")
    if proved not in (None, digest):
        raise BundleError(
            f"{path}: proves the parity of {str(proved)[:8]}, and {MODEL} with {SPEC} are {digest[:8]}: one of them "
            "was cut short or changed; copy the bundle again or export it again"
        )
