"""ONNX Runtime is installed exactly once, or the user is told what to do."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from picker import runtime
from picker.errors import ConfigError


def pretend(monkeypatch: pytest.MonkeyPatch, **folders: str) -> None:
    """Only these distributions are installed, each in its folder; ``_`` in a name is a hyphen."""
    installed = {name.replace("_", "-"): Path(folder) for name, folder in folders.items()}

    class Installed:
        def __init__(self, name: str) -> None:
            if name not in installed:
                raise PackageNotFoundError(name)
            self.folder = installed[name]

        def locate_file(self, path: str) -> Path:
            return self.folder / path

    monkeypatch.setattr(runtime, "distribution", Installed)


def test_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both extras."""
    pretend(monkeypatch)
    with pytest.raises(ConfigError, match=r"onset\[cpu\].*onset\[gpu\]"):
        runtime.onnxruntime()


def test_both_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other silently, so both is an error that says which to keep."""
    pretend(monkeypatch, onnxruntime="site", onnxruntime_gpu="site")
    with pytest.raises(ConfigError, match="both installed"):
        runtime.onnxruntime()


def test_both_builds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In folders of their own neither overwrites the other: the first on the path is taken."""
    pretend(monkeypatch, onnxruntime="site", onnxruntime_gpu="wheels")
    assert hasattr(runtime.onnxruntime(), "InferenceSession")


@pytest.mark.parametrize("build", ["onnxruntime", "onnxruntime_gpu"])
def test_either_build(monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    """One of them is right, whichever."""
    pretend(monkeypatch, **{build: "site"})
    assert hasattr(runtime.onnxruntime(), "InferenceSession")
