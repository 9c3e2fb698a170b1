"""Pick messages for people and for pipes: what ``streamer watch`` shows of each."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from streamer.instant import utc_ns

ROWS = 30
HEADINGS = ("time (UTC)", "channel", "phase", "probability", "latency", "status")
WIDTHS = (27, 16, 5, 11, 9, 11)
NUMBERS = ("probability", "latency")
STYLES = {"provisional": "dim", "retracted": "strike dim"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is shown of one pick; ``latency_s`` is None and ``status`` empty where the message does not say."""

    id: str
    time: str
    nslc: str
    phase: str
    probability: float
    latency_s: float | None
    revision: int
    status: str

    def cells(self) -> tuple[str, ...]:
        """The texts under HEADINGS."""
        latency = "" if self.latency_s is None else f"{self.latency_s:.2f} s"
        return self.time, self.nslc, self.phase, f"{self.probability:.2f}", latency, self.status

    def holds_against(self, other: Row | None) -> bool:
        """Whether it is what is known of the pick, after ``other``: the highest revision, a final one before others."""
        return other is None or self._rank >= other._rank

    @property
    def _rank(self) -> tuple[int, bool]:
        return self.revision, self.status != "provisional"


def read_row(payload: bytes) -> Row:
    """The row of a pick message of this schema version or a later one; raises ValueError where it is not one."""
    try:
        message = json.loads(payload)
        codes, analytics = message["channel"]["properties"], message["analyticsInfo"]
        onset = analytics.get("extensions", {}).get("onset", {})
        published = onset.get("published_time")
        return Row(
            id=str(message["id"]),
            time=str(message["time"]),
            nslc=".".join(str(codes[key]) for key in ("network", "station", "location", "channel")),
            phase=str(message["phase"]),
            probability=float(analytics["predictions"][0]["probability"]),
            latency_s=(utc_ns(published) - utc_ns(message["time"])) / 1e9 if published else None,
            revision=int(onset.get("revision", 1)),
            status=str(onset.get("status", "")),
        )
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a pick message ({type(error).__name__}: {error})") from error


class View(Protocol):
    """Shows messages as they come."""

    def shown(self) -> AbstractContextManager[object]:
        """While it is open the view is on the screen."""
        ...

    def add(self, payload: bytes) -> None:
        """Show one message; raises ValueError where it cannot be read."""
        ...


class JsonView:
    """One line of JSON a message, repetitions included."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def shown(self) -> AbstractContextManager[object]:
        """See View."""
        return nullcontext()

    def add(self, payload: bytes) -> None:
        """See View."""
        line = json.dumps(json.loads(payload), separators=(",", ":"), ensure_ascii=False)
        self._console.file.write(line + "\n")
        self._console.file.flush()


class TableView:
    """A live table of the last picks on a terminal; a line each where the output goes elsewhere.

    A message with the id of a row already there replaces it, unless it is an older revision; a retracted pick is struck
    out.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, Row] = {}
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(self._table(), console=console, refresh_per_second=4)
        else:
            self._print(HEADINGS)

    def shown(self) -> AbstractContextManager[object]:
        """See View."""
        return self._live or nullcontext()

    def add(self, payload: bytes) -> None:
        """See View."""
        row = read_row(payload)
        if self._live is None:
            self._print(row.cells())
            return
        if not row.holds_against(self._rows.get(row.id)):
            return
        self._rows[row.id] = row
        while len(self._rows) > ROWS:
            del self._rows[next(iter(self._rows))]
        self._live.update(self._table())

    def _print(self, cells: tuple[str, ...]) -> None:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        self._console.file.write(line.rstrip() + "\n")
        self._console.file.flush()

    def _table(self) -> Table:
        table = Table(title="picks")
        for heading in HEADINGS:
            table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=True)
        for row in self._rows.values():
            table.add_row(*row.cells(), style=STYLES.get(row.status))
        return table
