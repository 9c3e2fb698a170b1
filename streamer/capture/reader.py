"""Captures read back: one file or many, whole or cut off, plain or compressed; what is damaged is passed over."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

import structlog

from picker.errors import ConfigError
from streamer.capture.entry import (
    LONGEST_HEADER,
    MARKER,
    CapturedPacket,
    Decoded,
    End,
    Header,
    Hole,
    WrongHeaderError,
    decode,
    decode_header,
)
from streamer.capture.folder import capture_files
from streamer.errors import BadRecord

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WBITS = 31
BLOCK_BYTES = 1 << 16

_log = structlog.get_logger(__name__)


class Placed(NamedTuple):
    """A packet, the server that sent it, the file and where in it the payload is (None: it is compressed)."""

    packet: CapturedPacket
    server: str
    path: Path
    payload_at: int | None


@dataclass
class Tally:
    """What was found besides packets."""

    packets: int = 0
    bytes_done: int = 0
    """Of the files, as they are on the disk."""
    damaged: int = 0
    """Stretches that could not be read and were passed over."""
    lost: int = 0
    """Packets that the capture itself had to leave out."""
    cut_off: list[Path] = field(default_factory=list)
    """Files that end in the middle of a packet."""
    end: End | None = None
    """How the recording ended, None where it was cut off or goes on."""


class Capture:
    """The packets of the files and folders ``paths``, in order of arrival. Iterate it once; ``tally`` says how it went.

    Raises ConfigError for a path that is missing, empty or no capture, before any packet is read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.tally = Tally()
        named = [file for path in paths for file in _files(path)]
        headers = {file: _header(file) for file in dict.fromkeys(file.resolve() for file in named)}
        self.files = sorted(headers.items(), key=lambda item: (item[1].started_ns, item[1].part))
        self.size = sum(file.stat().st_size for file in headers)
        self._tell_missing()

    @property
    def servers(self) -> list[str]:
        """Addresses of the servers recorded."""
        return list(dict.fromkeys(server.address for _, header in self.files for server in header.servers))

    @property
    def bundles(self) -> set[str]:
        """Digests of the models that picked meanwhile."""
        return {header.bundle for _, header in self.files if header.bundle}

    def __iter__(self) -> Iterator[Placed]:
        for path, header in self.files:
            self.tally.end = None
            yield from self._read(path, header)

    def _read(self, path: Path, header: Header) -> Iterator[Placed]:
        done, size = self.tally.bytes_done, path.stat().st_size
        with _content(path) as (data, compressed):
            for decoded in self._entries(path, data):
                self.tally.bytes_done = done + size * decoded.following // len(data)
                match decoded.entry:
                    case End():
                        self.tally.end = decoded.entry
                    case Hole(packets):
                        self.tally.lost += packets
                        _log.warning("the capture lacks packets here", file=str(path), packets=packets)
                    case CapturedPacket(server=index) if index < len(header.servers):
                        self.tally.packets += 1
                        address = header.servers[index].address
                        yield Placed(decoded.entry, address, path, None if compressed else decoded.payload_at)
        self.tally.bytes_done = done + size

    def _entries(self, path: Path, data: bytes | mmap) -> Iterator[Decoded]:
        """The intact entries; what is between them, and an end that is cut off, is counted and said once a file."""
        position, damaged = data.find(b"\n") + 1, 0
        while position < len(data):
            decoded, broken = _intact(data, position)
            if decoded is None:
                decoded = _next_intact(data, position)
                if decoded is None and not broken:
                    self.tally.cut_off.append(path)
                    _log.warning(
                        "capture is cut off in the middle of a packet", file=str(path), bytes=len(data) - position
                    )
                    return
                damaged += 1
                self.tally.damaged += 1
                if damaged == 1:
                    _log.warning(
                        "damaged packet passed over; further ones are only counted", file=str(path), at=position
                    )
                if decoded is None:
                    return
            position = decoded.following
            yield decoded

    def _tell_missing(self) -> None:
        parts: dict[str, list[int]] = {}
        for _, header in self.files:
            parts.setdefault(header.run, []).append(header.part)
        if len(parts) > 1:
            _log.warning("captures of several runs are taken as one, in order of time", runs=len(parts))
        for run, numbers in parts.items():
            missing = sorted(set(range(min(numbers), max(numbers) + 1)).difference(numbers))
            if missing:
                _log.warning("parts of the capture are missing", run=run, parts=missing)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    files = capture_files(path)
    if not files:
        raise ConfigError(f"{path}: no capture in this folder: its files end in .capture or .capture.gz")
    return files


def _compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def _header(path: Path) -> Header:
    try:
        if path.stat().st_size == 0:
            raise ConfigError(f"{path}: is empty: no packet was captured")
        with gzip.open(path) if _compressed(path) else path.open("rb") as file:
            return decode_header(file.readline(LONGEST_HEADER))
    except WrongHeaderError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


@contextmanager
def _content(path: Path) -> Iterator[tuple[bytes | mmap, bool]]:
    """All bytes of a capture, and whether they were compressed; of a compressed one that is cut off, what there is."""
    if not _compressed(path):
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            yield content, False
        return
    blocks, unpacker, reason = [], zlib.decompressobj(wbits=GZIP_WBITS), "it ends too soon"
    try:
        with path.open("rb") as packed:
            while block := packed.read(BLOCK_BYTES):
                blocks.append(unpacker.decompress(block))
    except zlib.error as error:
        reason = str(error)
    if not unpacker.eof:
        _log.warning("compressed capture is damaged: its beginning is used", file=str(path), reason=reason)
    yield b"".join(blocks), True


def _intact(data: bytes | mmap, position: int) -> tuple[Decoded | None, bool]:
    """The entry at ``position``, and whether it is damaged, as opposed to cut off."""
    try:
        return decode(data, position), False
    except BadRecord:
        return None, True


def _next_intact(data: bytes | mmap, position: int) -> Decoded | None:
    while (position := data.find(MARKER, position + 1)) >= 0:
        decoded, _ = _intact(data, position)
        if decoded is not None:
            return decoded
    return None
