"""Finding a TensorRT library: absent, too old, broken, or there; each with one clear error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from picker.errors import ConfigError
from picker.tensorrt import MODULES, library

GOOD = """\
class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING = range(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which alone the libraries are imported."""
    for name in (name for names in MODULES.values() for name in names):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def install(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name)
    (folder / f"{name}.py").write_text(text)


@pytest.mark.usefixtures("folder")
def test_absent() -> None:
    """The extra to install is named, for the library that was asked for."""
    with pytest.raises(ConfigError, match=r"pip install 'onset\[tensorrt\]' .or 'onset\[rtx\]'"):
        library()
    with pytest.raises(ConfigError, match=r"tensorrt_rtx is not installed: pip install 'onset\[rtx\]'"):
        library("tensorrt_rtx")


def test_too_old(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version without strongly typed networks is refused with both versions."""
    install(folder, "tensorrt", f"{GOOD}\n__version__ = '8.6.1'\n", monkeypatch)
    with pytest.raises(ConfigError, match=r"tensorrt 8\.6\.1 is installed, Onset needs 10\.0 or later"):
        library()


def test_broken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bindings without their shared library, as a half installation leaves them."""
    install(folder, "tensorrt", "raise ImportError('libnvinfer.so.10: cannot open shared object file')", monkeypatch)
    with pytest.raises(ConfigError, match=r"cannot be loaded \(libnvinfer"):
        library()


@pytest.mark.parametrize(("name", "module"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt_rtx_bindings")])
def test_there(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    """Under either of its names; errors are kept until they are asked for, the rest is dropped."""
    install(folder, module, f"{GOOD}\n__version__ = '11.2.0'\n", monkeypatch)
    found = library()
    assert (found.name, found.version, found.ahead_of_time) == (name, "11.2.0", name == "tensorrt_rtx")
    found.logger.log(1, "no\nkernel")
    found.logger.log(1, "no\nkernel")
    found.logger.log(2, "a warning")
    assert found.complaints() == "no kernel"
    assert found.complaints() == "it gives no reason"
