"""Import rules, each proved in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("torch", "triton", "lightning", "obspy", "scipy", "matplotlib", "pandas", "h5py", "onnx", "seisbench")
STREAMER = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "streamer").rglob("*.py")
    if path.name != "__main__.py"
)
PICKER = sorted(f"picker.{path.stem}" for path in (ROOT / "picker").glob("*.py") if path.stem != "__init__")


def loaded(*modules: str, and_then: str = "") -> set[str]:
    """Top-level packages in ``sys.modules`` after importing ``modules`` in a fresh process."""
    code = f"import sys, {', '.join(modules)}\n{and_then}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("modules", [STREAMER, PICKER], ids=["streamer", "picker"])
def test_deployed_modules_reach_no_framework(modules: list[str]) -> None:
    """An observatory installs the daemon without a deep-learning framework, obspy or plotting."""
    assert len(modules) >= 9
    assert not loaded(*modules) & set(FORBIDDEN)


def test_running_the_engine_reaches_no_framework() -> None:
    """Nor does the import of ONNX Runtime, which happens where it is used."""
    assert not loaded("picker.runtime", and_then="picker.runtime.onnxruntime()") & set(FORBIDDEN)


def test_the_check_can_fail() -> None:
    """The same look at a process that does import one of them finds it."""
    assert "onnx" in loaded("onnx")
