"""A bundle's step graph on ONNX Runtime's CUDA provider, with the states on the GPU, or one error that says why not."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from picker.bundle import Bundle
from picker.device_buffer import Place
from picker.device_slots import DeviceModel
from picker.errors import BundleError, ConfigError
from picker.runtime import onnxruntime
from picker.selection import selection_graph
from picker.stepper import check_graph

PROVIDER = "CUDAExecutionProvider"
LEAST_VERSION = (1, 31)
"""The oldest ONNX Runtime whose CUDA provider was seen to run ``model.onnx``; built for CUDA 13 and cuDNN 9."""
NEEDS = "an NVIDIA GPU with its driver (see nvidia-smi), CUDA 13 and cuDNN 9 (pip install 'onset[gpu]')"


def open_cuda(bundle: Bundle, device: int = 0, *, cuda_graph: bool = True, tf32: bool = True) -> DeviceModel:
    """The bundle's graph on GPU ``device``, tried once; ``cuda_graph`` captures steps and replays them.

    ``tf32`` rounds the operands of products to 11 bits, in the normaliser too; what that does to picks is in decision
    0033. Raises ConfigError where library or GPU are missing or too old, BundleError where the bundle's graph cannot
    be used.
    """
    return open_model(
        bundle, cuda_runtime(), Place("cuda", device), cuda_provider(device, cuda_graph, tf32), cuda_graph
    )


def cuda_provider(device: int, cuda_graph: bool, tf32: bool) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's CUDA provider and its options."""
    flags = {"enable_cuda_graph": cuda_graph, "use_tf32": tf32, "enable_skip_layer_norm_strict_mode": True}
    return PROVIDER, {"device_id": str(device), **{key: str(int(flag)) for key, flag in flags.items()}}


def cuda_runtime() -> ModuleType:
    """ONNX Runtime with a CUDA provider that is new enough; raises ConfigError."""
    runtime = onnxruntime()
    version = str(runtime.__version__)
    if PROVIDER not in runtime.get_available_providers():
        raise ConfigError(
            f"engine.kind is cuda, and ONNX Runtime {version} is installed without CUDA: pip uninstall onnxruntime, "
            "pip install 'onset[gpu]', or set engine.kind to cpu"
        )
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
        raise ConfigError(
            f"ONNX Runtime {version} is installed, engine.kind cuda needs {'.'.join(map(str, LEAST_VERSION))} or "
            "later: pip install --upgrade 'onset[gpu]'"
        )
    return runtime


def open_model(
    bundle: Bundle, runtime: ModuleType, place: Place, provider: Any, cuda_graph: bool = False
) -> DeviceModel:
    """The bundle's graph by ``provider``; see ``open_cuda``."""
    path = bundle.model_path
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    said = _preloaded(runtime) if place.kind == "cuda" else ""
    runtime.set_default_logger_severity(4)  # what goes wrong is raised, in one line
    session = _session(runtime, path, options, provider, said)
    check_graph(session, bundle.spec, path)
    select = runtime.InferenceSession(selection_graph(bundle.spec), options, providers=[provider])
    model = DeviceModel(
        spec=bundle.spec, runtime=runtime, place=place, step=session, select=select, cuda_graph=cuda_graph
    )
    _try(model, path)
    return model


def _session(runtime: ModuleType, path: Path, options: Any, provider: Any, said: str) -> Any:
    name = provider[0] if isinstance(provider, tuple) else provider
    heard = io.StringIO()
    try:
        with redirect_stdout(heard):  # it prints that it falls back, and goes on
            session = runtime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:
        if name == PROVIDER and re.search(r"cuda|cudnn|cublas", str(error), re.IGNORECASE):
            raise ConfigError(_unusable(runtime, str(error))) from error
        raise BundleError(f"{path}: ONNX Runtime cannot open it ({error})") from error
    if name not in session.get_providers():
        raise ConfigError(_unusable(runtime, heard.getvalue() or said))
    return session


def _unusable(runtime: ModuleType, reason: str) -> str:
    words = " ".join(reason.split())
    return (
        f"engine.kind is cuda, and ONNX Runtime {runtime.__version__} cannot use the GPU: it needs {NEEDS}; or set "
        f"engine.kind to cpu ({words[:300] or 'it gives no reason'})"
    )


def _preloaded(runtime: ModuleType) -> str:
    """Load CUDA and cuDNN from NVIDIA's Python packages, where they are; what was said of those that are not."""
    heard = io.StringIO()
    with redirect_stdout(heard):
        runtime.preload_dlls(directory="")
    return heard.getvalue()


def _try(model: DeviceModel, path: Path) -> None:
    """A first step on zeros; raises BundleError where it fails."""
    spec = model.spec
    chunk = np.zeros((2, len(spec.components), spec.chunk_samples), dtype=np.float32)
    rows = np.arange(2)
    try:
        slots = model.slots(2)
        found = slots.step(rows, chunk, chunk == 0, np.array([True, True]), whole=True)
        found = np.stack([found, slots.step(rows, chunk, chunk == 0, np.array([False, False]), whole=False)])
    except Exception as error:
        raise BundleError(f"{path}: a first step on the GPU fails ({error})") from error
    if not np.isfinite(found).all():
        raise BundleError(f"{path}: a first step on zeros is not finite; export the bundle again")
