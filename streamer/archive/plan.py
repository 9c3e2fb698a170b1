"""Which files are read, and from when on each may hold data, so that a file is opened only when its time has come.

A file named as in an SDS archive (``NET.STA.LOC.CHAN.D.YEAR.DAY``) says its station and day by its name: of it only the
first record is looked at. The records of every other file are looked over once, without their samples.
"""

from __future__ import annotations

import calendar
import re
import shutil
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from pymseed import MiniSEEDError, MS3Record, sourceid2nslc

from picker.errors import ConfigError
from streamer.archive.selection import SECOND_NS, Selection
from streamer.decode import LONGEST_RECORD_S
from streamer.errors import BadRecord
from streamer.record import Nslc
from streamer.replay.source import miniseed_files, record_spans

SDS_NAME = re.compile(r"([^.]+)\.([^.]+)\.([^.]*)\.([^.]+)\.[A-Z]\.(\d{4})\.(\d{3})")
DAY_NS = 86_400 * SECOND_NS
MARGIN_NS = round(LONGEST_RECORD_S) * SECOND_NS
"""The record that spans midnight may lie in the file of either day."""
FIRST_BYTES = 65_536
MOST_SAID = 20
"""Warnings of one kind; further cases are only counted."""

_log = structlog.get_logger(__name__)


@dataclass
class Tally:
    """What became of the files and records of an archive."""

    files: int = 0
    unreadable: int = 0
    """Files that could not be read or hold no miniSEED."""
    records: int = 0
    """Records handed on."""
    refused: Counter[str] = field(default_factory=Counter)
    """Records that could not be used, by the reasons of ``streamer.decode``."""
    bytes_done: int = 0
    said: Counter[str] = field(default_factory=Counter)

    def lose(self, path: Path, error: OSError | BadRecord) -> None:
        """Count a file that cannot be read, and say so."""
        self.unreadable += 1
        reason = getattr(error, "strerror", None) or str(error)
        self.warn("file cannot be read: left out", path, reason=reason)

    def warn(self, what: str, path: Path, **more: object) -> None:
        """Say what is wrong with a file, unless the same was said of many."""
        self.said[what] += 1
        if self.said[what] <= MOST_SAID:
            _log.warning(what, path=str(path), **more)
        elif self.said[what] == MOST_SAID + 1:
            _log.warning(f"{what}: further files are only counted")


@dataclass(frozen=True, kw_only=True)
class PlannedFile:
    """A file that holds nothing earlier than ``not_before_ns``."""

    path: Path
    size: int
    not_before_ns: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """Where the records of a file are, in order of their start: starts (n,) ns, offsets (n,) and lengths (n,) bytes."""

    starts_ns: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    bad: Counter[str]
    others: int
    """Intact records that are not wanted."""


@contextmanager
def archive_paths(names: Sequence[str]) -> Iterator[list[Path]]:
    """The paths; standard input (``-``), which cannot be read in order of time, becomes a temporary file.

    Raises ConfigError where there is no room for it.
    """
    paths = [Path(name) for name in names if name != "-"]
    if "-" not in names:
        yield paths
        return
    with tempfile.TemporaryDirectory(prefix="onset-") as folder:
        spooled = Path(folder) / "standard-input"
        try:
            with spooled.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise ConfigError(f"-: standard input cannot be kept in {folder} ({error.strerror}); set TMPDIR") from error
        yield [*paths, spooled]


def plan(paths: Sequence[Path], selection: Selection, tally: Tally) -> list[PlannedFile]:
    """The files of ``paths`` that may hold something wanted, in the order of their names.

    A file named twice is read once. Raises ConfigError for a path that does not exist; a file that cannot be read is a
    warning and counted.
    """
    files = {path.resolve(): path for path, _ in miniseed_files(paths)}
    planned = []
    for resolved, path in sorted(files.items()):
        tally.files += 1
        try:
            one = _planned(resolved, selection)
        except (OSError, BadRecord) as error:
            tally.lose(path, error)
            continue
        if one is not None:
            planned.append(one)
    return planned


def index(path: Path, selection: Selection) -> Index:
    """The records of a file. Raises OSError where it cannot be read, BadRecord where it holds none."""
    bad = Counter[str]()
    found = array("q")  # start, offset, length, start, ...: a tuple a record would take eight times the memory
    wanted: dict[str, bool] = {}
    others = 0
    for offset, length, header in _headers(path, bad):
        sourceid = header.sourceid
        if sourceid not in wanted:
            wanted[sourceid] = _wanted(sourceid, selection)
        start_ns = int(header.starttime)
        rate_hz = float(header.samprate)
        duration_ns = round(header.samplecnt * 1e9 / rate_hz) if rate_hz > 0 else 0
        if wanted[sourceid] and selection.overlaps(start_ns, start_ns + max(duration_ns, 1)):
            found.extend((start_ns, offset, length))
        else:
            others += 1
    if not found and not others:
        raise BadRecord("not_miniseed", "no miniSEED record was found in it")
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    if (np.diff(table[:, 0]) < 0).any():
        table = table[np.argsort(table[:, 0], kind="stable")]
    return Index(starts_ns=table[:, 0], offsets=table[:, 1], lengths=table[:, 2], bad=bad, others=others)


def _headers(path: Path, bad: Counter[str]) -> Iterator[tuple[int, int, MS3Record]]:
    """Offset, length and header of each intact record."""
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            for offset, length in record_spans(content, bad):
                yield offset, length, MS3Record.parse(content[offset : offset + length])


def _planned(path: Path, selection: Selection) -> PlannedFile | None:
    size = path.stat().st_size
    name = SDS_NAME.fullmatch(path.name)
    if name is None:
        starts_ns = index(path, selection).starts_ns
        return PlannedFile(path=path, size=size, not_before_ns=int(starts_ns[0])) if len(starts_ns) else None
    *codes, year, day = name.groups()
    start_ns = (calendar.timegm((int(year), 1, 1, 0, 0, 0)) + (int(day) - 1) * 86_400) * SECOND_NS
    if not selection.has_channel(Nslc(*codes)):
        return None
    if not selection.overlaps(start_ns - MARGIN_NS, start_ns + DAY_NS + MARGIN_NS):
        return None
    return PlannedFile(path=path, size=size, not_before_ns=min(start_ns - MARGIN_NS, _first_ns(path, start_ns)))


def _first_ns(path: Path, otherwise_ns: int) -> int:
    """Start of the first record: a file may begin earlier than its name says."""
    with path.open("rb") as file:
        content = file.read(FIRST_BYTES)
    try:
        return int(MS3Record.parse(content).starttime)
    except (MiniSEEDError, ValueError):
        return otherwise_ns


def _wanted(sourceid: str, selection: Selection) -> bool:
    """Codes that cannot be read are not left out here: they are refused, with their reason, when they are decoded."""
    try:
        nslc = Nslc(*sourceid2nslc(sourceid))
    except ValueError:
        return True
    return selection.has_channel(nslc)
