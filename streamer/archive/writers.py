"""Picks of an archive as CSV or as lines of JSON; QuakeML is ``streamer.archive.quakeml``."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol, TextIO

from picker.errors import ConfigError
from streamer.archive.quakeml import QuakeMLWriter
from streamer.archive.selection import SECOND_NS
from streamer.instant import utc_ns
from streamer.message import PickMessage

FORMATS = ("csv", "jsonl", "quakeml")
SUFFIXES = {".csv": "csv", ".json": "jsonl", ".jsonl": "jsonl", ".xml": "quakeml", ".quakeml": "quakeml"}
COLUMNS = ("time", "network", "station", "location", "channel", "phase", "probability", "flags", "id")
ORDER_NS = 3600 * SECOND_NS
"""How far in data time stations may be apart while they are worked off: more than one round of ``Picking`` holds."""


class PickWriter(Protocol):
    """Anything that picks are written to."""

    def write(self, message: PickMessage) -> None:
        """Write one pick."""
        ...

    def finish(self) -> None:
        """Write what is still held; nothing is written after it."""
        ...


class CsvWriter:
    """A line of names, then one line a pick; flags are separated by spaces."""

    def __init__(self, out: TextIO) -> None:
        self._rows = csv.writer(out, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, message: PickMessage) -> None:
        """See PickWriter."""
        codes, onset = message.channel.properties, message.analytics_info.extensions.onset
        self._rows.writerow(
            (
                message.time,
                codes.network,
                codes.station,
                codes.location,
                codes.channel,
                message.phase,
                message.analytics_info.predictions[0].probability,
                " ".join(onset.quality),
                message.id,
            )
        )

    def finish(self) -> None:
        """See PickWriter."""


class JsonLinesWriter:
    """One line a pick: the payload that the daemon publishes over MQTT."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, message: PickMessage) -> None:
        """See PickWriter."""
        self._out.write(f"{message.encode().decode()}\n")

    def finish(self) -> None:
        """See PickWriter."""


class InOrder:
    """Hands picks on in order of time, though stations are worked off in turns.

    A pick that is decided more than an hour of data late (it was open when a gap began) is handed on at once.
    """

    def __init__(self, writer: PickWriter) -> None:
        self._writer = writer
        self._waiting: list[tuple[str, str, int, PickMessage]] = []
        self._count = 0
        self._newest_ns = 0

    def write(self, message: PickMessage) -> None:
        """See PickWriter."""
        self._count += 1
        heapq.heappush(self._waiting, (message.time, message.id, self._count, message))
        self._newest_ns = max(self._newest_ns, utc_ns(message.time))
        while utc_ns(self._waiting[0][0]) < self._newest_ns - ORDER_NS:
            self._writer.write(heapq.heappop(self._waiting)[-1])

    def finish(self) -> None:
        """See PickWriter."""
        while self._waiting:
            self._writer.write(heapq.heappop(self._waiting)[-1])
        self._writer.finish()


def format_of(out: Path | None, named: str | None) -> str:
    """The format that is named, else that of the file's suffix, else CSV; raises ConfigError for a strange suffix."""
    if named is not None:
        return named
    if out is None:
        return "csv"
    form = SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise ConfigError(f"--out {out}: its suffix names no format; take {', '.join(SUFFIXES)} or give --format")
    return form


def open_writer(form: str, out: Path | None, stdout: TextIO) -> AbstractContextManager[PickWriter]:
    """The writer of ``form`` into ``out`` (None: ``stdout``), finished where the context ends without an error.

    Raises ConfigError where QuakeML lacks obspy or the file cannot be opened, before any work is done, and where a full
    disk or the like stops the writing; BrokenPipeError where the reader of a pipe has gone.
    """
    makers: dict[str, Callable[[TextIO], PickWriter]] = {
        "csv": CsvWriter,
        "jsonl": JsonLinesWriter,
        "quakeml": QuakeMLWriter,
    }
    return _writing(makers[form], out, stdout)


@contextmanager
def _writing(make: Callable[[TextIO], PickWriter], out: Path | None, stdout: TextIO) -> Iterator[PickWriter]:
    if make is QuakeMLWriter:
        QuakeMLWriter.require()
    name = "standard output" if out is None else f"--out {out}"
    try:
        with nullcontext(stdout) if out is None else out.open("w", encoding="utf-8", newline="") as file:
            writer = InOrder(make(file))
            yield writer
            writer.finish()
            file.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # reading has its own answers, so this is a full disk, a missing right or the like
        raise ConfigError(f"{name}: cannot be written ({error.strerror})") from error
