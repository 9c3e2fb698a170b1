"""miniSEED files as a source of records: an index of where each record lies, its bytes read when it is its turn."""

from __future__ import annotations

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import structlog
from pymseed import DataEncoding, MiniSEEDError, MS3Record

from picker.errors import ConfigError
from streamer.errors import BadRecord
from streamer.replay.packet import served_in_v3
from streamer.replay.repack import needs_repack, repack
from streamer.replay.settings import ReplaySettings
from streamer.replay.stream import V3_RECORD_BYTES, StreamName, parse_source_id

_RECORD_START = re.compile(rb"MS\x03|[0-9 \x00]{6}[DRQM][ \x00]")
_OPEN_FILES = 32

log = structlog.get_logger(__name__)


class FileSpan(NamedTuple):
    """Where the bytes of a record are."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record: whose it is, its time span (ns UTC, ``end_ns`` as in Packet) and its bytes or where they are.

    ``number`` is the sequence number that it had, None where it gets one.
    """

    name: StreamName
    format: str
    subformat: str
    start_ns: int
    end_ns: int
    data: bytes | FileSpan
    number: int | None = None

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.data.length if isinstance(self.data, FileSpan) else len(self.data)

    @property
    def in_v3(self) -> bool:
        """Whether SeedLink v3 can carry it."""
        return served_in_v3(self.format, self.length, self.name)


@dataclass
class Source:
    """All records of a replay by station ID, in order of record end, and a count of what was left out, by reason."""

    stations: dict[str, list[SourceRecord]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def records(self) -> Iterator[SourceRecord]:
        """Every record, station by station."""
        return (record for records in self.stations.values() for record in records)


class RecordReader:
    """Reads record bytes, keeping a few files open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, record: SourceRecord) -> bytes:
        """The bytes of a record; raises BadRecord when its file has changed or gone since it was indexed."""
        if isinstance(record.data, bytes):
            return record.data
        path, offset, length = record.data
        try:
            descriptor = self._descriptor(path)
            data = os.pread(descriptor, length, offset)
        except OSError as error:
            raise BadRecord("unreadable", f"{path}: {error.strerror}") from None
        if len(data) != length:
            raise BadRecord("truncated", f"{path} has become shorter since the replay began")
        return data

    def _descriptor(self, path: Path) -> int:
        if path in self._open:
            self._open.move_to_end(path)
        else:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[path] = os.open(path, os.O_RDONLY)
        return self._open[path]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])


def load_source(settings: ReplaySettings) -> Source:
    """Index the records of all files; raises ConfigError for a missing or unreadable path, or no record at all."""
    source = Source()
    for path, named in miniseed_files(settings.paths):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        found = _load_file(source, path, content, settings)
        if named and not found:
            raise ConfigError(f"{path}: no miniSEED record in this file (is it miniSEED 2 or 3?)")
    if not source.stations:
        raise ConfigError(f"no miniSEED record in {', '.join(map(str, settings.paths))}")
    for records in source.stations.values():
        records.sort(key=lambda record: (record.end_ns, record.start_ns))
    _warn_about_v3(source)
    return source


def miniseed_files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
    """Files to read, each with whether it was named itself; those in folders leave out hidden names."""
    for path in paths:
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file())
            yield from ((file, False) for file in inside if not _hidden(file.relative_to(path)))
        elif path.exists():
            yield path, True
        else:
            raise ConfigError(f"{path}: no such file or folder")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _load_file(source: Source, path: Path, content: bytes, settings: ReplaySettings) -> int:
    found, bad = 0, Counter[str]()
    for offset, length in record_spans(content, bad):
        raw = content[offset : offset + length]
        try:
            records = _source_records(raw, FileSpan(path, offset, length), settings)
        except (BadRecord, MiniSEEDError) as error:
            bad[error.reason if isinstance(error, BadRecord) else "undecodable"] += 1
            continue
        found += 1
        for record in records:
            source.stations.setdefault(record.name.station_id, []).append(record)
    source.skipped += bad
    if bad and found:
        log.warning("bad miniSEED left out", path=str(path), records=found, **bad)
    elif bad:
        log.debug("not miniSEED", path=str(path))
    return found


def record_spans(content: bytes | mmap, bad: Counter[str]) -> Iterator[tuple[int, int]]:
    """Offset and length of each intact record; anything else is skipped up to the next that begins like one."""
    view, offset = memoryview(content), 0
    while offset < len(content):
        try:
            length = MS3Record.parse(view[offset:]).reclen
        except (MiniSEEDError, ValueError):
            bad["corrupt"] += 1
            following = _RECORD_START.search(content, offset + 1)
            if following is None:
                return
            offset = following.start()
        else:
            yield offset, length
            offset += length


def _source_records(raw: bytes, span: FileSpan, settings: ReplaySettings) -> list[SourceRecord]:
    if settings.repack_s is not None and needs_repack(raw, settings.repack_s, settings.record_length):
        return [describe(piece, piece) for piece in repack(raw, settings.repack_s, settings.record_length)]
    return [describe(raw, span)]


def describe(raw: bytes, data: bytes | FileSpan) -> SourceRecord:
    """What a record is, by its header; ``data`` is it or where it is. Raises BadRecord, MiniSEEDError, ValueError."""
    header = MS3Record.parse(raw)
    name = parse_source_id(header.sourceid)
    rate_hz, samples = header.samprate, header.samplecnt
    log_record = header.encoding == DataEncoding.TEXT
    duration_ns = round(samples * 1e9 / rate_hz) if rate_hz > 0 and not log_record else 0
    return SourceRecord(
        name=name,
        format=str(header.formatversion),
        subformat="L" if log_record else "D",
        start_ns=header.starttime,
        end_ns=header.starttime + duration_ns,
        data=data,
    )


def _warn_about_v3(source: Source) -> None:
    left_out = [record for record in source.records if not record.in_v3]
    if left_out:
        lengths = sorted({f"{record.length} bytes of miniSEED {record.format}" for record in left_out})
        log.warning(
            "records that SeedLink v3 clients will not get (v4 clients will)",
            records=len(left_out),
            because=f"v3 carries miniSEED 2 of {V3_RECORD_BYTES} bytes, these have {', '.join(lengths[:4])}",
            mend="--repack-s 1.0 encodes them again",
            streams=", ".join(sorted({f"{r.name.station_id}_{r.name.stream_id}" for r in left_out})[:6]),
        )
