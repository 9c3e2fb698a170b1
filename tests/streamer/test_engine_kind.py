"""Which engine the settings get, and the one error where it is not to be had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs
from tiny_bundle import write_tiny_bundle

from picker import cuda_model
from picker.device_buffer import Place
from picker.device_slots import DeviceModel
from picker.errors import BundleError, ConfigError
from picker.runtime import onnxruntime
from picker.stepper import OnnxStepper
from streamer.model_files import open_model
from streamer.settings import EngineSettings

CPU = "CPUExecutionProvider"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def gpu_build(
    monkeypatch: pytest.MonkeyPatch, version: str = "1.31.1", said: str = "", works: bool = False
) -> list[Any]:
    """ONNX Runtime as the GPU build behaves: where CUDA cannot be used it prints why and goes on without.

    Returns the list of the providers that will be asked for.
    """
    real, asked = onnxruntime(), list[Any]()

    def session(graph: Any, options: Any, providers: list[Any]) -> Any:
        asked.extend(providers)
        opened = real.InferenceSession(graph, options, providers=[CPU])
        if works:
            opened.get_providers = lambda: [cuda_model.PROVIDER, CPU]
        elif said:
            print(f"EP Error {said} Falling back to ['CPUExecutionProvider'] and retrying.")
        return opened

    runtime = SimpleNamespace(**vars(real))
    runtime.__version__, runtime.InferenceSession = version, session
    runtime.get_available_providers = lambda: [cuda_model.PROVIDER, CPU]
    runtime.set_default_logger_severity = lambda level: None
    runtime.preload_dlls = lambda directory: None
    monkeypatch.setattr(cuda_model, "onnxruntime", lambda: runtime)
    return asked


def test_cuda_without_the_gpu_build(folder: Path) -> None:
    """The build for processors has no CUDA: the error names the extra, and the other way out."""
    with pytest.raises(ConfigError, match=r"without CUDA.*onset\[gpu\].*engine.kind to cpu"):
        open_model(folder, EngineSettings(kind="cuda"))


def test_an_old_library_is_named_with_the_version_it_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older builds lack operators."""
    gpu_build(monkeypatch, version="1.22.0")
    with pytest.raises(ConfigError, match=r"1\.22\.0 is installed.*needs 1\.31 or later.*onset\[gpu\]"):
        open_model(folder, EngineSettings(kind="cuda"))


def test_no_usable_gpu_is_never_a_silent_processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime goes on without CUDA and only prints why: the daemon refuses, with that reason."""
    gpu_build(monkeypatch, said="CUDA failure 100: no CUDA-capable device is detected")
    with pytest.raises(ConfigError, match=r"cannot use the GPU.*nvidia-smi.*no CUDA-capable device"):
        open_model(folder, EngineSettings(kind="cuda"))
    gpu_build(monkeypatch)
    with pytest.raises(ConfigError, match="it gives no reason"):
        open_model(folder, EngineSettings(kind="cuda"))


def test_fallback_is_taken_when_told_to_and_said_once(folder: Path) -> None:
    """One warning with the reason; then the processor, as if it had been asked for."""
    with capture_logs() as logs:
        _, stepper = open_model(folder, EngineSettings(kind="cuda", fallback=True))
    assert isinstance(stepper, OnnxStepper)
    assert [(line["log_level"], line["engine"]) for line in logs] == [("warning", "cuda")]
    assert "without CUDA" in logs[0]["reason"]


def test_tensorrt_without_library_or_gpu(folder: Path) -> None:
    """The error says what to install, or that there is no GPU; the processor is not taken."""
    with pytest.raises(ConfigError, match=r"cuda-bindings|GPU|tensorrt"):
        open_model(folder, EngineSettings(kind="tensorrt"))


def test_a_bundle_that_is_damaged_is_an_error_on_every_engine(folder: Path) -> None:
    """Fallback is for what this machine lacks; on the processor a truncated graph is refused too."""
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])
    for engine in (EngineSettings(), EngineSettings(kind="cuda", fallback=True)):
        with pytest.raises(BundleError, match=r"model\.onnx"):
            open_model(folder, engine)


def test_cuda_opens_model_onnx_in_tf32_with_captured_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured to be fastest is the default; settings turn the capturing and the rounding off."""
    monkeypatch.setattr(cuda_model, "Place", lambda kind, index: Place())  # the provider is the processor's after all
    plain = EngineSettings(kind="cuda", cuda_graph=False, tf32=False)
    for engine, flag in ((EngineSettings(kind="cuda"), "1"), (plain, "0")):
        asked = gpu_build(monkeypatch, works=True)
        _, model = open_model(folder, engine)
        assert isinstance(model, DeviceModel)
        wanted = {"device_id": "0", "enable_cuda_graph": flag, "use_tf32": flag}
        wanted["enable_skip_layer_norm_strict_mode"] = "1"  # norms are summed in float32
        assert asked == [(cuda_model.PROVIDER, wanted)] * 2, "the step and the selection"
        assert np.isfinite(model.slots(2).step(np.arange(2), *quiet(2), whole=False)).all()


def quiet(rows: int) -> tuple[Any, Any, Any]:
    chunk = np.zeros((rows, 3, 64), np.float32)
    return chunk, chunk == 0, np.ones(rows, np.bool_)
