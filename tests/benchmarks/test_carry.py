"""Files carried in parts are the same files, or the part at fault is named."""

from __future__ import annotations

from pathlib import Path

import carry
import pytest


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    source = tmp_path / "wheels"
    source.mkdir()
    (source / "large.whl").write_bytes(bytes(range(256)) * 10)
    (source / "empty.txt").write_bytes(b"")
    assert carry.split(source, tmp_path / "parts", 1000) == 2
    return tmp_path / "parts"


def test_joined_files_are_those_that_were_split(parts: Path, tmp_path: Path) -> None:
    """Whatever the size of a part; an empty file too."""
    assert sorted(path.name for path in parts.iterdir()) == [
        "empty.txt.000", "large.whl.000", "large.whl.001", "large.whl.002", "manifest.json",
    ]  # fmt: skip
    assert carry.main(["join", str(parts), str(tmp_path / "out")]) == 0
    for file in (tmp_path / "wheels").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_a_part_at_fault_is_named_and_its_file_not_written(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing and damaged parts are told apart; other files are put together all the same."""
    (parts / "large.whl.000").unlink()
    (parts / "large.whl.002").write_bytes(b"x")
    assert carry.main(["join", str(parts), str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "large.whl.000: missing" in said
    assert "large.whl.002: damaged" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["empty.txt"]
