"""ONNX Runtime, imported where it is used, with an answer for the two ways its installation goes wrong."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

from picker.errors import ConfigError


def _folder(name: str) -> Path | None:
    """Where a distribution was unpacked; None where it is not installed."""
    try:
        return Path(str(distribution(name).locate_file(""))).resolve()
    except PackageNotFoundError:
        return None


def onnxruntime() -> ModuleType:
    """The ``onnxruntime`` module; raises ConfigError when neither or both of its builds are installed.

    The CPU build (``onnxruntime``) and the GPU build (``onnxruntime-gpu``) unpack into a folder of one name: with both
    in one place, whichever came last wins silently, so both is an error. In two places (``pip install --target``) each
    is whole, and the first on the path is taken.
    """
    cpu, gpu = (_folder(name) for name in ("onnxruntime", "onnxruntime-gpu"))
    if cpu is None and gpu is None:
        raise ConfigError("ONNX Runtime is not installed: pip install 'onset[cpu]' (or 'onset[gpu]' for CUDA)")
    if cpu == gpu:
        raise ConfigError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install exactly one of 'onset[cpu]' and 'onset[gpu]'"
        )
    import onnxruntime as module

    return module  # type: ignore[no-any-return]
