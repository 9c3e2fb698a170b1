"""A TensorRT plan on disk: what it was built from, and the engine's bytes, in one file beside the bundle's graph.

    ONSET PLAN 1\n  one line of JSON (PlanKey, profile, size and SHA-256 of what follows)  \n  plan as TensorRT wrote it

A plan holds for one graph, library version, GPU and precision: where any of them differs it is refused, and built anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from picker.bundle import Bundle
from picker.errors import BundleError
from picker.tensorrt import Gpu, Library

FOLDER = "plans"
"""Of the bundle: where its plans are kept unless another folder is named."""
SUFFIX = ".plan"
_MAGIC = b"ONSET PLAN 1\n"
_WORDS = {
    "digest": "another graph (bundle {found:.8}, this one is {wanted:.8})",
    "gpu": "another GPU ({found}, here it is {wanted})",
    "library": "another library ({found}, here it is {wanted})",
    "version": "another version of the library ({found}, installed is {wanted})",
    "precision": "another precision ({found}, not {wanted})",
}


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """What a plan depends on: where any of it differs, the plan is not used."""

    digest: str
    library: str
    version: str
    gpu: str
    precision: str

    @property
    def file_name(self) -> str:
        """One file for each GPU, library version and precision."""
        return f"{self.gpu}-{self.precision}-{self.library}-{self.version}{SUFFIX}"

    def differences(self, found: PlanKey) -> list[str]:
        """In words, what ``found`` was built for that this key does not ask for."""
        mine, theirs = asdict(self), asdict(found)
        return [
            words.format(found=theirs[name], wanted=mine[name])
            for name, words in _WORDS.items()
            if mine[name] != theirs[name]
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan that was read whole."""

    key: PlanKey
    batch: tuple[int, int, int]
    """Least, best and most rows of its profile."""
    content: bytes


def precision_of(bundle: Bundle, tf32: bool = False) -> str:
    """Precision of a plan: that of the bundle's graph, and whether float32 products may be rounded to TF32."""
    return str(bundle.spec.provenance.get("precision", "fp32")) + ("-tf32" if tf32 else "")


def plan_key(bundle: Bundle, library: Library, gpu: Gpu, tf32: bool = False) -> PlanKey:
    """The key of a bundle's plan for this library and GPU."""
    return PlanKey(
        digest=bundle.digest,
        library=library.name,
        version=library.version,
        gpu=gpu.for_plans_of(library).label,
        precision=precision_of(bundle, tf32),
    )


def write_plan(folder: Path, plan: Plan) -> Path:
    """Write the plan whole or not at all; raises BundleError where the folder cannot be written."""
    header = {
        **asdict(plan.key),
        "batch": plan.batch,
        "size": len(plan.content),
        "sha256": hashlib.sha256(plan.content).hexdigest(),
    }
    path = folder / plan.key.file_name
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(_MAGIC + json.dumps(header).encode() + b"\n" + plan.content)
        part.replace(path)
    except OSError as error:
        if part.exists():
            part.unlink()
        raise BundleError(f"{path}: cannot be written ({error}); name another folder with --cache") from error
    return path


def read_plan(path: Path, key: PlanKey | None = None) -> Plan:
    """Read a plan; raises BundleError that says what is wrong: absent, cut short, damaged, or not for ``key``."""
    mend = "build it again with `python -m export plan`"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    magic, (line, newline, content) = raw[: len(_MAGIC)], raw[len(_MAGIC) :].partition(b"\n")
    if magic != _MAGIC[: len(magic)] or not raw:
        raise BundleError(f"{path}: is not a plan of Onset; {mend}")
    if not newline:
        raise BundleError(f"{path}: cut short ({len(raw)} bytes); {mend}")
    try:
        header = json.loads(line)
        found = PlanKey(**{name: header[name] for name in _WORDS})
        low, best, most = header["batch"]
        size, sha256 = int(header["size"]), header["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: its header cannot be read ({error}); {mend}") from error
    if key is not None and (wrong := key.differences(found)):
        raise BundleError(f"{path}: built for {' and '.join(wrong)}; {mend}")
    if len(content) < size:
        raise BundleError(f"{path}: cut short ({len(content):,} of {size:,} bytes); {mend}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BundleError(f"{path}: damaged (its SHA-256 is another); {mend}")
    return Plan(key=found, batch=(low, best, most), content=content)


def find_plan(folder: Path, key: PlanKey) -> Plan:
    """The plan of ``key`` in ``folder``; where there is none, BundleError tells for what the nearest was built."""
    path = folder / key.file_name
    others = [other for other in sorted(folder.glob(f"*{SUFFIX}")) if other != path]
    if path.exists() or not others:
        return read_plan(path, key)
    near = min(others, key=lambda other: _distance(other, key))
    return read_plan(near, key)


def _distance(path: Path, key: PlanKey) -> int:
    try:
        return len(key.differences(read_plan(path).key))
    except BundleError:
        return len(_WORDS) + 1
