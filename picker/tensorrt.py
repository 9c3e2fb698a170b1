"""TensorRT, imported where it is used: one adapter over ``tensorrt`` (10.x and 11) and ``tensorrt_rtx``.

``tensorrt`` builds and runs on the GPU of the machine. ``tensorrt_rtx`` (TensorRT for RTX) builds ahead of time for a
compute capability that is named, on a machine without a GPU too, and runs on those GPUs alone.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from picker.errors import ConfigError

MODULES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Each library with the names that it may be imported by: NVIDIA's wheels name the bindings apart."""
LEAST = {"tensorrt": (10, 0), "tensorrt_rtx": (1, 2)}
"""The oldest version of each that has strongly typed networks and tensors addressed by name."""
EXTRAS = {"tensorrt": "onset[tensorrt]", "tensorrt_rtx": "onset[rtx]"}


@dataclass(frozen=True)
class Library:
    """An imported library, and what it has said of errors since it was last asked."""

    name: str
    version: str
    module: ModuleType
    logger: Any
    said: list[str] = field(default_factory=list, compare=False)

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for a GPU that is named, rather than for the one that is there."""
        return self.name == "tensorrt_rtx"

    def complaints(self) -> str:
        """The errors logged since the last call, in one line."""
        lines = [" ".join(line.split()) for line in dict.fromkeys(self.said)]
        self.said.clear()
        return "; ".join(lines) or "it gives no reason"


def library(name: str | None = None) -> Library:
    """The library of that name, or the first that is installed; raises ConfigError that names the extra to install.

    Raises ConfigError too where it is older than Onset can use, or cannot load its own shared library.
    """
    for candidate in MODULES if name is None else (name,):
        module = _imported(candidate)
        if module is not None:
            return _opened(candidate, module)
    if name is None:
        raise ConfigError(
            "neither tensorrt nor tensorrt_rtx is installed: pip install 'onset[tensorrt]' (or 'onset[rtx]' for "
            "TensorRT for RTX)"
        )
    raise ConfigError(f"{name} is not installed: pip install '{EXTRAS[name]}'")


def _imported(name: str) -> ModuleType | None:
    for module in MODULES[name]:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            raise ConfigError(
                f"{name} is installed but cannot be loaded ({error}): install it again with its libraries, "
                f"pip install --force-reinstall '{EXTRAS[name]}'"
            ) from error
    return None


def _opened(name: str, module: ModuleType) -> Library:
    version = str(getattr(module, "__version__", "unknown"))
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < LEAST[name]:
        raise ConfigError(
            f"{name} {version} is installed, Onset needs {'.'.join(map(str, LEAST[name]))} or later: "
            f"pip install --upgrade '{EXTRAS[name]}'"
        )
    logger, said = _logger(module)
    return Library(name=name, version=version, module=module, logger=logger, said=said)


@cache
def _logger(module: ModuleType) -> tuple[Any, list[str]]:
    """The logger of this process, for the library takes one only: errors are kept, the rest is dropped."""
    said: list[str] = []
    grave = (module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR)

    def log(self: Any, severity: Any, message: str) -> None:
        if severity in grave:
            said.append(message)

    return type("Complaints", (module.ILogger,), {"__init__": _base_init(module.ILogger), "log": log})(), said


def _base_init(base: Any) -> Callable[[Any], None]:
    """A constructor that calls its base by name, as pybind11 demands."""

    def init(self: Any) -> None:
        base.__init__(self)

    return init


@dataclass(frozen=True)
class Gpu:
    """A GPU as far as a plan depends on it; without a name, any of that compute capability."""

    capability: tuple[int, int]
    name: str = ""

    @property
    def label(self) -> str:
        """For a file name, for example ``nvidia-h200-sm90``."""
        words = re.findall(r"[a-z0-9]+", self.name.lower())
        return "-".join([*words, f"sm{self.capability[0]}{self.capability[1]}"])

    def for_plans_of(self, library: Library) -> Gpu:
        """Plans of TensorRT for RTX hold on every GPU of a compute capability, those of TensorRT on one model."""
        return Gpu(self.capability) if library.ahead_of_time else self


def capability_of(text: str) -> tuple[int, int]:
    """A compute capability from text such as ``8.9``; raises ConfigError."""
    found = re.fullmatch(r"(\d{1,2})\.(\d)", text)
    if not found:
        raise ConfigError(f"compute capability {text!r} is not a number such as 8.9")
    return int(found[1]), int(found[2])
