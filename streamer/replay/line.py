"""Command lines out of a byte stream, however it was cut into pieces; a line without end is cut off."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_LINE_BYTES = 253  # SeedLink 4.0: 255 with <cr><lf>
_TERMINATOR = re.compile(rb"[\r\n]")


class LineTooLongError(Exception):
    """More bytes without a line end than a command may have."""


class LineBuffer:
    """Holds at most one unfinished line of ``MAX_LINE_BYTES``."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield each line that ``data`` completes, terminated by CR, LF or both; empty ones are left out.

        Bytes outside ASCII become U+FFFD, which no command holds. Raises LineTooLongError; the buffer is then done.
        """
        position = 0
        for match in _TERMINATOR.finditer(data):
            self._take(data, position, match.start())
            position = match.end()
            line, self._pending = bytes(self._pending), bytearray()
            if line.strip():
                yield line.decode("ascii", errors="replace")
        self._take(data, position, len(data))

    def _take(self, data: bytes, start: int, stop: int) -> None:
        if len(self._pending) + stop - start > MAX_LINE_BYTES:
            self._pending.clear()
            raise LineTooLongError
        self._pending += data[start:stop]
