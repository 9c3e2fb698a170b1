"""What no file of the project may hold: paths of one machine, package hosts, and work left undone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "path of one machine": r"(?<![\w.~*/-])/(?:home|root|Users|work)/\w",
    "package host": r"(?:pypi|pytorch|pythonhosted|debian|npmjs)\.org\b",
    "work left undone": r"\b(?:TODO|FIXME|raise NotImplementedError|breakpoint\(\))",
    "conflict": r"^(?:<{7}|>{7}) ",
}
ALLOWED = {Path(__file__).relative_to(ROOT)}
"""This file names what it looks for."""


def tracked() -> list[Path]:
    """Files that git tracks or would track, relative to the root; without a checkout the test is skipped."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = [Path(name) for name in listing.split("\0") if name]
    return [name for name in names if (ROOT / name).is_file() and name not in ALLOWED]


def complaints(text: str) -> list[str]:
    """What is wrong with a text, with the words found."""
    return [
        f"{what}: {found[0]}"
        for what, pattern in FORBIDDEN.items()
        for found in re.finditer(pattern, text, re.MULTILINE)
    ]


def test_no_file_holds_forbidden_text() -> None:
    """Every tracked text file is free of them."""
    names = tracked()
    assert Path("pyproject.toml") in names
    found = {}
    for name in names:
        data = (ROOT / name).read_bytes()
        if b"\0" not in data and (wrong := complaints(data.decode("utf-8"))):
            found[str(name)] = wrong
    assert found == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("open('/home/ada/x')", True),
        ("/work/" + "main/x", True),
        ("pip install -i https://pypi.org/simple", True),
        ("    raise NotImplementedError", True),
        ("# TODO: mend", True),
        ("/usr/sbin/mosquitto, /opt/onset, picker/work/x, ~/work/x", False),
        ("seisbench on PyPI, roots, homework", False),
    ],
)
def test_the_patterns(text: str, wrong: bool) -> None:
    """The patterns find what they should and spare what they should."""
    assert bool(complaints(text)) == wrong
