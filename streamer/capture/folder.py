"""The files of a recording: begun, added to, closed, compressed and deleted. Blocking: for a worker thread."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from streamer.capture.entry import Entry, Header, encode
from streamer.capture.settings import CaptureSettings

SUFFIX = ".capture"
COMPRESSED = ".capture.gz"
FILES_OF_MOST = 8
"""A file ends at this part of the most that the folder may hold, so that room is made in steps."""
COMPRESS_BLOCK = 1 << 20


def capture_files(folder: Path) -> list[Path]:
    """The captures in ``folder``, oldest first: they are named by when they begin."""
    return sorted(path for path in folder.iterdir() if path.name.endswith((SUFFIX, COMPRESSED)))


class CaptureFolder:
    """Writes one recording into ``folder``. ``write``, ``close`` raise OSError; what was written before stays usable.

    ``header`` is that of the first part, its ``part`` and ``started_ns`` are set for each file.
    """

    def __init__(
        self,
        folder: Path,
        settings: CaptureSettings,
        header: Header,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.folder = folder
        self.finished: list[Path] = []
        """Files closed and not yet compressed."""
        self._settings, self._header, self._clock_ns = settings, header, clock_ns
        self._part = 0
        self._file: BinaryIO | None = None
        self._path = folder
        self._begun_ns = self._size = 0

    @property
    def most_bytes(self) -> int:
        """Size at which a file ends."""
        return max(1, round(self._settings.max_gb * 1e9 / FILES_OF_MOST))

    def write(self, entries: Sequence[Entry]) -> int:
        """Add entries and hand them to the system; returns how many bytes. A new file is begun where it is time."""
        if self._file is not None and self._due():
            self.close()
        file = self._file or self._begin()
        data = b"".join(map(encode, entries))
        file.write(data)
        file.flush()
        self._size += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            self.finished.append(self._path)
            file.close()

    def _due(self) -> bool:
        return self._size >= self.most_bytes or self._clock_ns() - self._begun_ns >= self._settings.rotate_h * 3600e9

    def _begin(self) -> BinaryIO:
        self.folder.mkdir(exist_ok=True)
        self._make_room()
        self._begun_ns, self._part = self._clock_ns(), self._part + 1
        begun = datetime.fromtimestamp(self._begun_ns // 1_000_000_000, UTC)
        fraction = self._begun_ns // 1000 % 1_000_000
        self._path = self.folder / f"{begun:%Y%m%dT%H%M%S}.{fraction:06d}Z{SUFFIX}"
        self._file = self._path.open("xb")
        line = replace(self._header, part=self._part, started_ns=self._begun_ns).encode()
        self._file.write(line)
        self._size = len(line)
        return self._file

    def _make_room(self) -> None:
        """Delete the oldest files, so that the folder holds no more than it may when the next file is full."""
        if self._part == 0:  # what a killed process has left
            for path in self.folder.glob(f"*{SUFFIX}.part"):
                path.unlink(missing_ok=True)
        files = [(path, path.stat().st_size) for path in capture_files(self.folder)]
        excess = sum(size for _, size in files) - (round(self._settings.max_gb * 1e9) - self.most_bytes)
        for path, size in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def compress(path: Path, stopping: Callable[[], bool] = lambda: False) -> None:
    """Put a gzip of ``path`` in its place; nothing has changed where it is stopped or raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        with path.open("rb") as source, gzip.open(part, "wb", compresslevel=6) as sink:
            while block := source.read(COMPRESS_BLOCK):
                sink.write(block)
                if stopping():
                    return
        shutil.copystat(path, part)
        part.replace(path.with_name(path.name + ".gz"))
        path.unlink()
    finally:
        part.unlink(missing_ok=True)
