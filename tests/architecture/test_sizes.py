"""A file holds one noun and a function one thought: neither grows without end."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("picker", "pretrain", "export", "streamer", "demo", "benchmarks")
MOST_FILE_LINES = 350
MOST_FUNCTION_LINES = 60


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
