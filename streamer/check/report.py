"""The findings of ``streamer check`` for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamer.check.peers import ServerAnswer
from streamer.check.verdict import StationVerdict, judge


def show_server(console: Console, answer: ServerAnswer, prefer: Sequence[str]) -> bool:
    """Print what one server would give; returns whether all that the settings ask of it can be had."""
    if answer.error is not None:
        console.print(f"server {answer.address}: [red]cannot be used[/]: {escape(answer.error)}", soft_wrap=True)
        return False
    head = f"server {answer.address}: SeedLink {answer.protocol}, {escape(answer.software)}"
    if answer.streams is None:
        console.print(f"{head}. It lists no streams: what it has is seen when it runs", soft_wrap=True)
        return True
    verdicts = judge(answer.streams, prefer)
    picked = sum(bool(verdict.picked) for verdict in verdicts)
    console.print(
        f"{head}. {picked} of {len(verdicts)} stations would be picked; {answer.others} channels are not asked for",
        soft_wrap=True,
    )
    if verdicts:
        console.print(_table(verdicts))
    for selection in answer.unmatched:
        asked = " ".join((selection.station_id, *selection.selectors))
        console.print(f"[red]nothing there fits[/] {escape(asked)}: mend seedlink.streams", soft_wrap=True)
    return picked > 0 and not answer.unmatched


def show_broker(console: Console, address: str, error: str | None) -> bool:
    """Print whether the broker lets the daemon in."""
    if error is None:
        console.print(f"broker {escape(address)}: [green]accepts the connection[/]", soft_wrap=True)
    else:
        console.print(f"broker {escape(address)}: [red]cannot be used[/]: {escape(error)}", soft_wrap=True)
    return error is None


def _table(verdicts: Sequence[StationVerdict]) -> Table:
    table = Table("station", "location", "picked on", "not picked, and why", box=None, pad_edge=False, padding=(0, 2))
    for verdict in verdicts:
        on = " ".join(verdict.picked) or "[red]nothing[/]"
        if verdict.vertical_only:
            on += " [yellow](vertical only: S will be rare)[/]"
        table.add_row(
            f"{verdict.network}.{verdict.station}",
            (verdict.location or "--") if verdict.picked else "",
            on,
            escape(", ".join(f"{channel} {reason}" for channel, reason in verdict.refused)),
        )
    return table
