"""Recorded data as if they came live with no delay: records cut at common instants and handed over cell by cell.

The stations' answers to lateness are meant for arrival over a network. In an archive nothing is late, but records of
one channel may be minutes long where those of another are seconds, so that neither order, by start or by end, is one in
which every sample would be in time. Here time is divided into cells that are a little shorter than
``component_wait_s``, and every record is cut where a cell ends. All data of a cell are handed over before the next
one's: no component is ever ahead of another by more than a station waits for. Within the cell the channel that has been
silent for longest comes first, so that a component that returns is there before the others go on without it.

The chunks are therefore the same for any packetisation, any split into files and any order of the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from streamer.record import Nslc, Record
from streamer.resample import CHUNK_SLOTS, SLOT_NS
from streamer.segment import cut, samples_between

CHUNK_NS = CHUNK_SLOTS * SLOT_NS


def cell_length_ns(component_wait_s: float) -> int:
    """The most whole chunks that are shorter than ``component_wait_s``, one at least."""
    return max(1, (round(component_wait_s * 1e9) - 1) // CHUNK_NS) * CHUNK_NS


class Cells:
    """Cuts records, given in order of start, and yields the pieces cell by cell; ``held`` is how many pieces wait."""

    def __init__(self, length_ns: int) -> None:
        self.length_ns = length_ns
        self.held = 0
        self._cells: dict[int, list[Record]] = {}
        self._ends_ns: Counter[Nslc] = Counter()

    def of(self, records: Iterable[Record]) -> Iterator[Record]:
        """The pieces of all ``records``."""
        for record in records:
            while self._cells and (first := min(self._cells) + 1) * self.length_ns <= record.start_ns:
                yield from self._leave(first - 1)
            self._enter(record)
        while self._cells:
            yield from self._leave(min(self._cells))

    def _enter(self, record: Record) -> None:
        position, cell = 0, record.start_ns // self.length_ns
        while position < len(record.samples):
            end = samples_between(record.start_ns, (cell + 1) * self.length_ns, record.sampling_rate_hz)
            end = min(end, len(record.samples))
            if end > position:
                self._cells.setdefault(cell, []).append(cut(record, position, end))
                self.held += 1
                position = end
            cell += 1

    def _leave(self, cell: int) -> list[Record]:
        """The pieces of a cell: station by station, the channel first that has been silent for longest."""
        pieces = self._cells.pop(cell)
        self.held -= len(pieces)
        silent_since = {piece.nslc: self._ends_ns[piece.nslc] for piece in pieces}
        for piece in pieces:
            self._ends_ns[piece.nslc] = max(self._ends_ns[piece.nslc], piece.end_ns)
        return sorted(pieces, key=lambda piece: (piece.nslc[:2], silent_since[piece.nslc], piece.nslc, piece.start_ns))
