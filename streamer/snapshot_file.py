"""The snapshot on disk: one file that is whole or refused, and the one before it.

| part | content |
|---|---|
| magic | ``onset snapshot`` and a newline |
| length | of the header, 8 bytes, little endian |
| header | JSON: layout, bundle, time, resume positions, sizes of what follows |
| tree | the stations and trackers, see ``streamer.snapshot_tree`` |
| arrays | the model states, one array after the other, C order |
| check | CRC-32 of all before it, 4 bytes, little endian |

A new file is written beside, forced to the disk, and renamed; the one it replaces stays as ``<name>.previous``. So a
power cut at any instant leaves a whole file under one of the two names.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"onset snapshot\n"
LAYOUT = 3
"""Raised whenever an older snapshot cannot be put back; ``tests/streamer/test_snapshot_layout.py`` says when."""
LARGEST_HEADER = 50_000_000


class SnapshotRefused(Exception):
    """A snapshot that is not to be used; the text says why."""


@dataclass(frozen=True, kw_only=True)
class SnapshotFile:
    """What a file holds. ``header`` is JSON; ``arrays`` are the state tensors, stations first."""

    header: dict[str, Any]
    tree: bytes
    arrays: tuple[NDArray[Any], ...]


def previous(path: Path) -> Path:
    """Where the snapshot before the one at ``path`` is."""
    return path.with_name(path.name + ".previous")


def write(path: Path, content: SnapshotFile) -> int:
    """Write ``content`` to ``path`` as described above and return its size in bytes; raises OSError."""
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            check = 0
            for part in _parts(content):
                file.write(part)
                check = zlib.crc32(part, check)
            file.write(check.to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if path.exists():
            path.replace(previous(path))
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    _sync_folder(path.parent)
    return size


def read(path: Path) -> SnapshotFile:
    """Read the file at ``path``; raises SnapshotRefused for what is not whole or not of this layout, and OSError."""
    data = memoryview(path.read_bytes())
    start = len(MAGIC) + 8
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise SnapshotRefused("not a snapshot")
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if length > LARGEST_HEADER or len(data) < start + length + 4:
        raise SnapshotRefused("truncated")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise SnapshotRefused("truncated or damaged: its check sum is wrong")
    header = json.loads(bytes(data[start : start + length]))
    if header["layout"] != LAYOUT:
        raise SnapshotRefused(f"of layout {header['layout']}, this Onset reads {LAYOUT}")
    position = start + length + header["tree_bytes"]
    arrays = []
    for shape, dtype in header["arrays"]:
        count = math.prod(shape)
        arrays.append(np.frombuffer(data, dtype, count, position).reshape(shape).copy())
        position += count * np.dtype(dtype).itemsize
    if position != len(data) - 4:
        raise SnapshotRefused("its parts are not as long as it says")
    return SnapshotFile(
        header=header, tree=bytes(data[start + length : start + length + header["tree_bytes"]]), arrays=tuple(arrays)
    )


def _parts(content: SnapshotFile) -> Iterator[bytes | memoryview]:
    arrays = [np.ascontiguousarray(array) for array in content.arrays]
    header = {
        **content.header,
        "layout": LAYOUT,
        "tree_bytes": len(content.tree),
        "arrays": [[list(array.shape), array.dtype.str] for array in arrays],
    }
    text = json.dumps(header).encode()
    yield MAGIC
    yield len(text).to_bytes(8, "little")
    yield text
    yield content.tree
    for array in arrays:
        yield array.reshape(-1).view(np.uint8).data


def _sync_folder(folder: Path) -> None:
    """Force the renames to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
