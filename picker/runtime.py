"""ONNX Runtime, imported where it is used, with an answer for the two ways its installation goes wrong."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from picker.errors import ConfigError


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def onnxruntime() -> ModuleType:
    """The ``onnxruntime`` module; raises ConfigError when neither or both of its builds are installed.

    The CPU build (``onnxruntime``) and the GPU build (``onnxruntime-gpu``) unpack into the same folder: with both
    installed, whichever came last wins silently, so both is an error.
    """
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if not builds:
        raise ConfigError("ONNX Runtime is not installed: pip install 'onset[cpu]' (or 'onset[gpu]' for CUDA)")
    if len(builds) == 2:
        raise ConfigError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "pip uninstall both, then install exactly one of 'onset[cpu]' and 'onset[gpu]'"
        )
    import onnxruntime as module

    return module  # type: ignore[no-any-return]
