"""What the demo shows: a live table of picks on a terminal, lines elsewhere, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from statistics import median

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.onsets import TOLERANCE_S, Judge, ReferenceOnset, Verdict

HEADINGS = ("recorded (UTC)", "station", "phase", "probability", "residual", "")
WIDTHS = (23, 8, 5, 11, 9, 0)
STYLES = {"match": "green", "unsure": "yellow", "false": "red"}
REMARKS = {"match": "", "unsure": "near an uncertain onset, not counted", "false": "no reference onset"}
LEAST_MATCHED, MOST_FALSE = 6, 2


class PickTable:
    """Shows verdicts as they come, and one line of status below them; ``clock`` counts seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._since_s = clock()
        self._verdicts: list[Verdict] = []
        self._status = ""
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def shown(self) -> AbstractContextManager[object]:
        """While it is open the table is on the screen; the full table stays when it closes."""
        if self._live is None:
            self._print(HEADINGS, "bold")
        return self._live or nullcontext()

    def status(self, text: str) -> None:
        """Replace the line below the table, whose seconds count from now; shown on terminals only."""
        self._status, self._since_s = text, self._clock()

    def add(self, verdict: Verdict) -> None:
        """Show one pick."""
        self._verdicts.append(verdict)
        if self._live is None:
            self._print(_cells(verdict), STYLES[verdict.kind])

    def whole(self) -> Table:
        """All picks so far."""
        return _table(self._verdicts)

    @property
    def is_live(self) -> bool:
        """Whether the table is on a terminal, so that the whole of it has not been printed yet."""
        return self._live is not None

    def _render(self) -> RenderableType:
        rows = max(5, self._console.height - 7)
        seconds = f"{self._clock() - self._since_s:.0f} s"
        return Group(_table(self._verdicts[-rows:]), Text(f"{self._status}: {seconds}", style="dim"))

    def _print(self, cells: Sequence[str], style: str) -> None:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        self._console.print(Text(line.rstrip(), style=style), soft_wrap=True)


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="picks, as they arrive over MQTT", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in HEADINGS[3:5] else "left", no_wrap=True)
    for verdict in verdicts:
        table.add_row(*_cells(verdict), style=STYLES[verdict.kind])
    return table


def _cells(verdict: Verdict) -> tuple[str, ...]:
    pick, residual_s = verdict.pick, verdict.residual_s
    residual = f"{residual_s:+.2f} s" if verdict.kind == "match" else ""
    remark = REMARKS[verdict.kind]
    if verdict.kind == "unsure" and residual_s is not None:
        residual = f"({residual_s:+.2f} s)"
    station = f"{pick.network}.{pick.station}"
    return utc(pick.time_ns, 3), station, pick.phase, f"{pick.probability:.2f}", residual, remark


def utc(time_ns: int, digits: int) -> str:
    """``2010-05-27 16:24:33.123``, cut to ``digits`` decimals (at most six)."""
    instant = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    fraction = f"{time_ns % 1_000_000_000:09d}"[:digits]
    return f"{instant:%Y-%m-%d %H:%M:%S}" + (f".{fraction}" if digits else "")


def passed(judge: Judge) -> bool:
    """Whether the run meets the demo's bar."""
    return len(judge.of_kind("match")) >= LEAST_MATCHED and len(judge.of_kind("false")) <= MOST_FALSE


def summary(judge: Judge) -> list[str]:
    """What the picks were worth."""
    matched, unsure, false = (judge.of_kind(kind) for kind in ("match", "unsure", "false"))
    lines = [
        f"{len(matched)} picks within {TOLERANCE_S} s of an onset read by eye (asked for: {LEAST_MATCHED} or more)",
        f"{len(false)} picks without one (allowed: {MOST_FALSE})",
        f"{len(unsure)} picks near an onset that the eye is not sure of (not counted)",
        f"{len(judge.missed)} onsets missed" + (f": {_names(judge.missed)}" if judge.missed else ""),
    ]
    for phase in ("P", "S"):
        residuals = [v.residual_s for v in matched if v.pick.phase == phase and v.residual_s is not None]
        if residuals:
            size_s = median(abs(value) for value in residuals)
            lines.append(f"{phase} residuals: median {median(residuals):+.3f} s, median size {size_s:.3f} s")
    latencies = [verdict.pick.latency_s for verdict in judge.verdicts]
    if latencies:
        lines.append(f"a pick was decided {median(latencies):.2f} s of data after its onset (median)")
    return lines


def _names(onsets: Sequence[ReferenceOnset]) -> str:
    return ", ".join(f"{o.station} {o.phase} {utc(o.time_ns, 0)[11:]}" for o in onsets)
