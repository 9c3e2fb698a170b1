"""The records of many files in order of time, whatever files they are in, with few of them in memory.

A file is opened when the merge comes to its time and closed with its last record. Of an open file memory holds the
places of its records and a block of its bytes; a record is decoded when it is its turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from streamer.archive.plan import Index, PlannedFile, Tally, index
from streamer.archive.selection import Selection
from streamer.decode import decode_each
from streamer.errors import BadRecord
from streamer.record import Record

BLOCK_BYTES = 65_536


class ArchiveReader:
    """Yields records by start time; of equal ones the file whose name comes first. Iterate it once."""

    def __init__(self, files: Sequence[PlannedFile], selection: Selection, tally: Tally) -> None:
        self._selection, self._tally = selection, tally
        self._open: set[_OpenFile] = set()
        self.most_open = 0
        """Files that were open at once."""
        self._heap: list[tuple[int, int, PlannedFile | _OpenFile]] = [
            (file.not_before_ns, rank, file) for rank, file in enumerate(files)
        ]
        heapq.heapify(self._heap)

    def __iter__(self) -> Iterator[Record]:
        heap = self._heap
        while heap:
            _, rank, file = heap[0]
            if isinstance(file, PlannedFile):
                opened = self._opened(file)
                if opened is None:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, (opened.next_ns, rank, opened))
                continue
            yield from self._take(file)
            if file.done:
                heapq.heappop(heap)
                self._close(file)
            else:
                heapq.heapreplace(heap, (file.next_ns, rank, file))

    def _opened(self, file: PlannedFile) -> _OpenFile | None:
        try:
            found = index(file.path, self._selection)
        except (OSError, BadRecord) as error:
            self._tally.lose(file.path, error)
            self._tally.bytes_done += file.size
            return None
        if found.bad:
            self._tally.refused.update(found.bad)
            self._tally.warn("damaged parts of a file left out", file.path, parts=found.bad.total())
        opened = _OpenFile(file, found)
        if opened.done:
            self._tally.bytes_done += file.size
            return None
        self._open.add(opened)
        self.most_open = max(self.most_open, len(self._open))
        return opened

    def _close(self, file: _OpenFile) -> None:
        self._open.discard(file)
        self._tally.bytes_done += file.planned.size - file.taken_bytes

    def _take(self, file: _OpenFile) -> Iterator[Record]:
        try:
            raw = file.take()
        except OSError as error:
            self._tally.lose(file.planned.path, error)
            return
        self._tally.bytes_done += len(raw)
        for item in decode_each(raw):
            if isinstance(item, BadRecord):
                self._refuse(file, item)
                continue
            record = self._selection.within(item)
            if record is not None:
                self._tally.records += 1
                yield record

    def _refuse(self, file: _OpenFile, error: BadRecord) -> None:
        """Count a record that cannot be used; damage is also said, once a file."""
        self._tally.refused[error.reason] += 1
        if error.reason == "corrupt" and not file.damage_told:
            file.damage_told = True
            self._tally.warn("damaged record left out", file.planned.path, detail=str(error))


class _OpenFile:
    """A file that is being read. No descriptor is kept: a day of an archive has more files than a process may open."""

    def __init__(self, planned: PlannedFile, found: Index) -> None:
        self.planned = planned
        self.taken_bytes = 0
        self.damage_told = bool(found.bad)
        self._index = found
        self._position = 0
        self._block, self._block_at = b"", 0

    @property
    def done(self) -> bool:
        """Whether all its records were taken."""
        return self._position >= len(self._index.starts_ns)

    @property
    def next_ns(self) -> int:
        """Start of the next record."""
        return int(self._index.starts_ns[self._position])

    def take(self) -> bytes:
        """The bytes of the next record; raises OSError where it cannot be read, and then has no further one."""
        offset, length = int(self._index.offsets[self._position]), int(self._index.lengths[self._position])
        first = offset - self._block_at
        if first < 0 or first + length > len(self._block):
            try:
                with self.planned.path.open("rb") as file:
                    file.seek(offset)
                    self._block, self._block_at, first = file.read(max(length, BLOCK_BYTES)), offset, 0
                if len(self._block) < length:
                    raise OSError("it has become shorter since it was opened")
            except OSError:
                self._position = len(self._index.starts_ns)
                raise
        self._position += 1
        self.taken_bytes += length
        return self._block[first : first + length]
