"""docs/architecture.md agrees with the code where it can be compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamer.station
from picker.model.config import PRESETS, preset
from picker.model.picker import Picker
from picker.model.state import describe

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def policies_in_code() -> list[str]:
    """Rows of the table in the docstring of ``streamer.station``, each on one line, in the document's spelling."""
    rows: list[str] = []
    for line in (streamer.station.__doc__ or "").splitlines():
        if line.startswith("|"):
            rows.append(line)
        elif rows and not rows[-1].endswith("|"):
            rows[-1] += " " + line.strip()
    return [row.replace("``", "`") for row in rows]


def test_policies_are_those_of_the_code() -> None:
    """The table of policies is the same in both places, row by row."""
    (table,) = re.findall(r"<!-- policies -->\n(.*?)\n<!-- end of policies -->", TEXT, re.DOTALL)
    assert len(policies_in_code()) > 10
    assert table.splitlines() == policies_in_code()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_sizes_stated(name: str) -> None:
    """Parameters and state of each preset are those of the table, to its digits."""
    (row,) = re.findall(rf"^\| `{name}` \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.MULTILINE)
    model = Picker(preset(name))
    parameters = sum(weight.numel() for weight in model.parameters())
    state_bytes = sum(tensor.size_bytes for tensor in describe(model.initial_state(1)))
    assert row == (f"{parameters / 1e6:.2f}", f"{state_bytes / 1e6:.2f}")


def test_files_named_exist() -> None:
    """Each Python file that the document names with its folder is there."""
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", TEXT))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
