"""ONNX Runtime is installed exactly once, or the user is told what to do."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import PackageNotFoundError

import pytest

from picker import runtime
from picker.errors import ConfigError


def pretend(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """Only these distributions are installed."""

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(runtime, "version", version)


def test_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names both extras."""
    pretend(monkeypatch)
    with pytest.raises(ConfigError, match=r"onset\[cpu\].*onset\[gpu\]"):
        runtime.onnxruntime()


def test_both_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other silently, so both is an error that says which to keep."""
    pretend(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(ConfigError, match="both installed"):
        runtime.onnxruntime()


@pytest.mark.parametrize("build", ["onnxruntime", "onnxruntime-gpu"])
def test_either_build(monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    """One of them is right, whichever."""
    pretend(monkeypatch, build)
    assert hasattr(runtime.onnxruntime(), "InferenceSession")
