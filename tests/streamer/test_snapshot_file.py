"""The snapshot file is whole or refused, and replacing it never leaves none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamer import snapshot_file
from streamer.snapshot_file import MAGIC, SnapshotFile, SnapshotRefused, previous, read, write

CONTENT = SnapshotFile(
    header={"bundle_digest": "abc", "created_ns": 5},
    tree=bytes(range(256)) * 3,
    arrays=(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.zeros((0, 5), np.float32)),
)


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    """Header, tree, and arrays with shape and type."""
    size = write(tmp_path / "s", CONTENT)
    found = read(tmp_path / "s")
    assert size == (tmp_path / "s").stat().st_size
    assert CONTENT.header.items() <= found.header.items()
    assert found.tree == CONTENT.tree
    for one, other in zip(found.arrays, CONTENT.arrays, strict=True):
        assert one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    found.arrays[0][0] = 7  # the engine writes into it


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """At every length short of the whole."""
    write(tmp_path / "s", CONTENT)
    whole = (tmp_path / "s").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(SnapshotRefused):
            read(tmp_path / "cut")


def test_file_with_one_wrong_byte_is_refused(tmp_path: Path) -> None:
    """Anywhere: in the header, in the tree, in a state, in the check itself."""
    write(tmp_path / "s", CONTENT)
    whole = (tmp_path / "s").read_bytes()
    for position in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[position] ^= 0x10
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(SnapshotRefused):
            read(tmp_path / "broken")


def test_other_layout_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later Onset's file says so."""
    monkeypatch.setattr(snapshot_file, "LAYOUT", 999)
    write(tmp_path / "s", CONTENT)
    monkeypatch.undo()
    with pytest.raises(SnapshotRefused, match="layout 999"):
        read(tmp_path / "s")


def test_replaced_file_stays_as_the_previous_one(tmp_path: Path) -> None:
    """Two writes: the newest under the name, the one before beside it, nothing else."""
    write(tmp_path / "s", SnapshotFile(header={"number": 1}, tree=b"1", arrays=()))
    write(tmp_path / "s", SnapshotFile(header={"number": 2}, tree=b"2", arrays=()))
    assert read(tmp_path / "s").header["number"] == 2
    assert read(previous(tmp_path / "s")).header["number"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"s", "s.previous"}


KILLED = """
import os, sys, threading, time
import numpy as np
from pathlib import Path
from streamer.snapshot_file import SnapshotFile, write
path = Path(sys.argv[1])
write(path, SnapshotFile(header={"number": 0}, tree=b"0", arrays=()))
print("begun", flush=True)
number = 0
while True:
    number += 1
    write(path, SnapshotFile(header={"number": number}, tree=b"x" * 200_000, arrays=(np.zeros(200_000),)))
"""


@pytest.mark.parametrize("after_s", [0.05, 0.11, 0.17, 0.23])
def test_kill_while_writing_leaves_a_whole_one(tmp_path: Path, after_s: float) -> None:
    """kill -9 at some instant of an endless series of writes: one of the two files is whole."""
    path = tmp_path / "s"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
    whole = [one for one in (path, previous(path)) if one.exists() and _is_whole(one)]
    assert whole


def _is_whole(path: Path) -> bool:
    try:
        read(path)
    except SnapshotRefused:
        return False
    return True


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="needs a device that is full")
def test_full_disk_keeps_the_old_one(tmp_path: Path) -> None:
    """A write that fails leaves what was there, and nothing beside it."""
    path = tmp_path / "s"
    write(path, SnapshotFile(header={"number": 1}, tree=b"1", arrays=()))
    (tmp_path / "s.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        write(path, CONTENT)
    assert read(path).header["number"] == 1
    assert not (tmp_path / "s.part").exists()


def test_file_begins_with_words_for_people(tmp_path: Path) -> None:
    """``head -1`` says what it is."""
    write(tmp_path / "s", CONTENT)
    assert (tmp_path / "s").read_bytes().startswith(MAGIC)
