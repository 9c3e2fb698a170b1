"""Bundles opened for this daemon: read, checked, and tried once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from picker.bundle import Bundle, load_bundle
from picker.errors import BundleError
from picker.stepper import OnnxStepper


def open_model(path: Path, threads: int) -> tuple[Bundle, OnnxStepper]:
    """The bundle in the folder ``path`` and its step graph; raises BundleError where this daemon cannot use it."""
    bundle = load_bundle(path)
    return bundle, open_stepper(bundle, threads)


def open_stepper(bundle: Bundle, threads: int) -> OnnxStepper:
    """The bundle's step graph, tried once; raises BundleError where this daemon cannot use it."""
    spec = bundle.spec
    for name, wanted in (("sampling_rate_hz", 100.0), ("components", "ZNE"), ("chunk_samples", 64)):
        if getattr(spec, name) != wanted:
            raise BundleError(f"{bundle.folder}: {name} is {getattr(spec, name)!r}, this Onset needs {wanted!r}")
    stepper = OnnxStepper(bundle, threads)
    chunk = np.zeros((1, len(spec.components), spec.chunk_samples), dtype=np.float32)
    try:
        probabilities, _ = stepper.step(chunk, chunk == 0, np.array([True]), stepper.fresh_state(1))
    except Exception as error:
        raise BundleError(f"{bundle.model_path}: a first step fails ({error}); export the bundle again") from error
    if not np.isfinite(probabilities).all():
        raise BundleError(f"{bundle.model_path}: a first step on zeros is not finite; export the bundle again")
    return stepper
