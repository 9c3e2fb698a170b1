"""A file holds one noun and a function one thought: neither grows without end. Nor do the weights that are tracked."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("picker", "pretrain", "export", "streamer", "demo", "benchmarks")
MOST_FILE_LINES = 350
MOST_FUNCTION_LINES = 60
MOST_WEIGHTS_MIB = 25
WEIGHTS = (".safetensors", ".onnx", ".onnx_data", ".pt", ".pth", ".ckpt", ".bin", ".plan", ".engine")
"""How the names of files end that hold weights, whoever wrote them."""


def sources() -> list[Path]:
    """Every Python file of the packages."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def long_functions(text: str) -> Iterator[str]:
    """Functions of a module that are too long, with their length."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                yield f"{node.name} ({lines} lines)"


def test_files_are_short() -> None:
    """No file of the packages is longer than 350 lines."""
    assert len(sources()) > 90
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_FILE_LINES} == {}


def test_functions_are_short() -> None:
    """No function of the packages is longer than 60 lines."""
    found = {str(path.relative_to(ROOT)): list(long_functions(path.read_text())) for path in sources()}
    assert {name: functions for name, functions in found.items() if functions} == {}


@pytest.mark.parametrize(("lines", "expected"), [(60, []), (61, ["f (61 lines)"])])
def test_the_count_of_lines(lines: int, expected: list[str]) -> None:
    """A function is as long as from its first line to its last; methods count like others."""
    body = "\n".join("        pass" for _ in range(lines - 1))
    assert list(long_functions(f"class A:\n    def f(self):\n{body}\n")) == expected


def weights(root: Path) -> dict[str, int]:
    """Bytes of every file of weights that git tracks or would track; without a checkout the test is skipped."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = [name for name in listing.split("\0") if name.endswith(WEIGHTS)]
    return {name: (root / name).stat().st_size for name in sorted(set(names)) if (root / name).is_file()}


def test_weights_are_small() -> None:
    """All tracked weights together stay under 25 MiB: whoever clones the project fetches them."""
    found = weights(ROOT)
    assert "models/small/model.onnx" in found
    assert sum(found.values()) < MOST_WEIGHTS_MIB * 2**20, found


def test_weights_are_counted_before_they_are_committed(tmp_path: Path) -> None:
    """Tracked or about to be, in any folder; neither what is ignored nor other files."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("runs/\n")
    for name, size in (("models/a.safetensors", 3), ("b.onnx", 5), ("runs/c.safetensors", 7), ("d.md", 9)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert weights(tmp_path) == {"b.onnx": 5, "models/a.safetensors": 3}
