"""Bundles opened for this daemon: read, checked, and tried once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import structlog

from picker.bundle import Bundle, load_bundle
from picker.cuda_model import open_cuda
from picker.errors import BundleError, OnsetError
from picker.plan_stepper import TensorRtStepper, open_session
from picker.stepper import OnnxStepper
from streamer.engine import Model
from streamer.settings import EngineSettings

_log = structlog.get_logger(__name__)


def open_model(path: Path, engine: EngineSettings) -> tuple[Bundle, Model]:
    """The bundle in the folder ``path`` and its step graph on the engine that the settings name, tried once.

    Raises BundleError where this daemon cannot use the bundle, ConfigError where there is no such engine here; where
    the settings tell to fall back, the processor takes its place.
    """
    bundle = load_bundle(path)
    _check_sizes(bundle)
    try:
        if engine.kind == "cuda":
            model: Model = open_cuda(bundle, engine.device, cuda_graph=engine.cuda_graph, tf32=engine.tf32)
            return bundle, model
        if engine.kind == "tensorrt":
            return bundle, TensorRtStepper(open_session(bundle, device=engine.device))
    except OnsetError as error:
        if not engine.fallback:
            raise
        _log.warning("the processor computes instead of the GPU", engine=engine.kind, reason=str(error))
    return bundle, open_stepper(bundle, engine.threads)


def _check_sizes(bundle: Bundle) -> None:
    for name, wanted in (("sampling_rate_hz", 100.0), ("components", "ZNE"), ("chunk_samples", 64)):
        if getattr(bundle.spec, name) != wanted:
            found = getattr(bundle.spec, name)
            raise BundleError(f"{bundle.folder}: {name} is {found!r}, this Onset needs {wanted!r}")


def open_stepper(bundle: Bundle, threads: int) -> OnnxStepper:
    """The bundle's step graph on the processor, tried once; raises BundleError where this daemon cannot use it."""
    _check_sizes(bundle)
    spec, stepper = bundle.spec, OnnxStepper(bundle, threads)
    chunk = np.zeros((1, len(spec.components), spec.chunk_samples), dtype=np.float32)
    try:
        probabilities, _ = stepper.step(chunk, chunk == 0, np.array([True]), stepper.fresh_state(1))
    except Exception as error:
        raise BundleError(f"{bundle.model_path}: a first step fails ({error}); export the bundle again") from error
    if not np.isfinite(probabilities).all():
        raise BundleError(f"{bundle.model_path}: a first step on zeros is not finite; export the bundle again")
    return stepper
