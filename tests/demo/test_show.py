"""What the demo shows: the table, the summary, the picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tiny_bundle import write_tiny_bundle

from demo.onsets import ArrivedPick, Judge, ReferenceOnset
from demo.picture import save_picture
from demo.records import SOURCES, load
from demo.table import PickTable, passed, summary
from demo.traces import station_traces


def onset(number: int) -> ReferenceOnset:
    return ReferenceOnset(
        network="BW",
        station="RJOB",
        location="",
        channel="EHZ",
        phase="P",
        time_ns=1_251_073_207_705_000_000 + number * 10**10,
        uncertainty_s=0.01,
        certain=True,
        note="",
    )


def pick(number: int, shift_s: float = 0.02, phase: str = "P") -> ArrivedPick:
    time_ns = onset(number).time_ns + round(shift_s * 1e9)
    return ArrivedPick(network="BW", station="RJOB", phase=phase, time_ns=time_ns, probability=0.9, latency_s=0.7)


def judged(matches: int, false: int) -> Judge:
    judge = Judge([onset(number) for number in range(8)])
    for number in range(matches):
        judge.judge(pick(number))
    for number in range(false):
        judge.judge(pick(number, phase="S"))
    return judge


@pytest.mark.parametrize(("matches", "false", "good"), [(6, 2, True), (8, 0, True), (5, 0, False), (8, 3, False)])
def test_six_matches_and_two_false_picks_pass(matches: int, false: int, good: bool) -> None:
    """The bar of the demo."""
    assert passed(judged(matches, false)) is good


def test_the_summary_counts_and_names() -> None:
    """Matches, false picks, missed onsets by name, residuals and latency."""
    text = "\n".join(summary(judged(7, 1)))
    assert "7 picks within 0.5 s" in text
    assert "1 picks without one" in text
    assert "1 onsets missed: RJOB P 00:21:17" in text
    assert "P residuals: median +0.020 s, median size 0.020 s" in text
    assert "0.70 s of data after its onset" in text


def test_where_there_is_no_terminal_each_pick_is_a_line_as_it_comes() -> None:
    """Logs of automatic runs show every pick with its recorded time and residual."""
    text = io.StringIO()
    table = PickTable(Console(file=text, width=120))
    judge = Judge([onset(0)])
    with table.shown():
        table.add(judge.judge(pick(0)))
        line = text.getvalue().splitlines()[-1]
        table.add(judge.judge(pick(0, 3.0)))
    assert line.split() == ["2009-08-24", "00:20:07.725", "BW.RJOB", "P", "0.90", "+0.02", "s"]
    assert text.getvalue().splitlines()[-1].endswith("no reference onset")


def test_on_a_terminal_the_table_holds_every_pick_in_the_end() -> None:
    """However many fitted on the screen while it was live."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120, height=12)
    table = PickTable(console)
    judge = Judge([])
    with table.shown():
        for number in range(20):
            table.add(judge.judge(pick(number)))
    text.truncate(0)
    console.print(table.whole())
    assert text.getvalue().count("BW.RJOB") == 20


def test_the_picture_is_a_png_of_some_size(tmp_path: Path) -> None:
    """Made from streamed records, picks and onsets, with one cell an onset."""
    served = [load(source) for source in SOURCES if source.key == "jochberg_2009"]
    traces = station_traces(served, write_tiny_bundle(tmp_path / "tiny"))
    judge = Judge([onset(0)])
    judge.judge(pick(0))
    save_picture(tmp_path / "picks.png", traces, [onset(0)], judge.verdicts, "title")
    data = (tmp_path / "picks.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") > 1000


def test_the_traces_of_the_picture_lie_on_the_grid_of_the_daemon(tmp_path: Path) -> None:
    """100 Hz data pass unchanged, begin at their own time, and chunks start at multiples of 64."""
    served = [load(source) for source in SOURCES if source.key == "jochberg_2009"]
    (trace,) = station_traces(served, write_tiny_bundle(tmp_path / "tiny"))
    assert trace.first_slot % 64 == 0
    vertical = served[0].stream.select(channel="EHZ")[0]
    first = int(trace.valid[0].argmax())
    np.testing.assert_array_equal(trace.waveforms[0][trace.valid[0]], vertical.data)
    assert trace.times_ns[first] == pytest.approx(vertical.stats.starttime.ns, abs=5_000_000)
