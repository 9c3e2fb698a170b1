"""The import contracts of pyproject.toml, run as `make check` runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("picker", "pretrain", "export", "streamer", "demo")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in ``folder``."""
    code = "import sys; from importlinter.cli import lint_imports; sys.path.insert(0, ''); sys.exit(lint_imports())"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_hold() -> None:
    """No room imports what it may not, directly or through others."""
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("streamer/instant.py", "import torch"),
        ("streamer/instant.py", "import pretrain.metric"),
        ("picker/pick.py", "import streamer.instant"),
        ("picker/pick.py", "import picker.model.config"),
        ("pretrain/data/folds.py", "import demo.onsets"),
    ],
)
def test_the_contracts_can_break(tmp_path: Path, module: str, statement: str) -> None:
    """Each forbidden import, put into a copy of the tree, is found."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "out"))
    with (tmp_path / module).open("r+") as file:
        file.seek(0, 2)
        file.write(f"\n{statement}\n")
    result = lint_imports(tmp_path)
    assert result.returncode != 0
    assert "BROKEN" in result.stdout, result.stdout + result.stderr
