"""An observatory's own data: miniSEED with picks in CSV or QuakeML, from the command to traces with labels in folds."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pymseed
import pytest
from waveforms import START_NS, noise, write_miniseed

from picker.errors import ConfigError
from pretrain.cli import main
from pretrain.data.instants import time_ns_of
from pretrain.data.pack import load_pack
from pretrain.data.picks import phase_of, read_observed
from pretrain.data.reading import Reading
from pretrain.data.shards import open_folder
from pretrain.data.trace import Trace

SECOND = 10**9
needs_obspy = pytest.mark.skipif(find_spec("obspy") is None, reason="needs the obspy extra")
quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""obspy reads its entry points in a way that Python has deprecated."""


def at(after_s: float) -> str:
    """An instant after START_NS as ISO 8601."""
    return f"{np.datetime_as_string(np.datetime64(START_NS + round(after_s * SECOND), 'ns'))}Z"


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Picks with the columns of all the rows."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def pick(phase: str, after_s: float, station: str = "CHI", /, **more: object) -> dict[str, object]:
    """A row of network CM."""
    return {"network": "CM", "station": station, "phase": phase, "time": at(after_s), **more}


def write_station(
    folder: Path, station: str = "CHI", seconds: int = 400, rate_hz: float = 100.0, components: str = "ZNE"
) -> Path:
    """Noise with an impulse on every component at each whole hundred of seconds."""
    pieces = []
    for number, component in enumerate(components):
        samples = noise(round(seconds * rate_hz), number, 50)[0]
        samples[round(100 * rate_hz) :: round(100 * rate_hz)] = 50_000
        pieces.append((f"CM_{station}_00_H_H_{component}", START_NS, rate_hz, samples))
    return write_miniseed(folder / f"{station}.mseed", pieces)


def packed(tmp_path: Path, picks: Path, *more: str) -> list[Trace]:
    """What the command packs of the folder ``days`` and the picks."""
    out = tmp_path / "own.npz"
    assert main(["pack", str(out), "--picked", str(tmp_path / "days"), str(picks), *more]) == 0
    return load_pack(out)


def peak_at(trace: Trace, label: float) -> bool:
    """Whether the impulse lies under a label, to within a sample."""
    near = slice(round(label) - 5, round(label) + 6)
    return abs(int(np.abs(trace.waveform[0, near]).argmax()) - 5) <= 1


def test_windows_are_cut_around_the_picks_of_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels lie on their waveform, with their weights; analysts' picks make no noise windows."""
    write_station(tmp_path / "days")
    rows = [pick("Pg", 100, weight=0.5), pick("S", 103), pick("P", 300)]
    traces = packed(tmp_path, write_csv(tmp_path / "picks.csv", rows))
    assert [(trace.kind, trace.status) for trace in traces] == [("labelled", "manual")] * 2
    assert {trace.samples for trace in traces} == {12_000}
    (first,) = (trace for trace in traces if len(trace.labels) == 2)
    (other,) = (trace for trace in traces if len(trace.labels) == 1)
    assert [(label.phase, label.weight) for label in first.labels] == [("P", 0.5), ("S", 1.0)]
    assert peak_at(first, first.labels[0].sample)
    assert peak_at(other, other.labels[0].sample)
    assert first.labels[1].sample - first.labels[0].sample == pytest.approx(300, abs=0.01)
    assert first.source == "days/CM.CHI"
    assert "days: 2 traces" in capsys.readouterr().out


@pytest.mark.parametrize("rate_hz", [40.0, 50.0, 200.0])
def test_other_sampling_rates_are_resampled_and_a_single_vertical_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate_hz: float
) -> None:
    """The onset stays under its label; the horizontals are not valid."""
    write_station(tmp_path / "days", rate_hz=rate_hz, components="Z")
    (trace,) = packed(tmp_path, write_csv(tmp_path / "picks.csv", [pick("P", 200)]))
    assert peak_at(trace, trace.labels[0].sample)
    assert trace.valid[0].all()
    assert not trace.valid[1:].any()
    assert "1  used: 2 component(s) missing or constant" in capsys.readouterr().out


def test_nan_and_constant_traces_are_not_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A float channel with NaN, and one that is dead: not valid; a pick of a wholly dead station is counted."""
    samples = np.tile(noise(20_000, 1)[0], (3, 1))
    samples[1, 9_000:9_500], samples[2] = np.nan, 7.0
    (tmp_path / "days").mkdir()
    for station, data in (("CHI", samples), ("YOT", np.full_like(samples, 3.0))):
        with pymseed.MS3TraceList() as traces:
            for component, values in zip("ZNE", data, strict=True):
                traces.add_data(f"FDSN:CM_{station}_00_H_H_{component}", values, "f", 100.0, starttime=START_NS)
            traces.to_file(
                str(tmp_path / "days" / f"{station}.mseed"), overwrite=True, encoding=pymseed.DataEncoding.FLOAT32
            )
    rows = [pick("P", 100), pick("P", 100, "YOT")]
    (trace,) = packed(tmp_path, write_csv(tmp_path / "picks.csv", rows))
    assert trace.waveform.shape[0] == 3
    assert np.isfinite(trace.waveform).all()
    assert (~trace.valid).sum(axis=1).tolist() == [0, 500, 12_000]
    assert "1  skipped: picks at which there are no data of their station" in capsys.readouterr().out


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other phases, picks outside the data or of a station that is not there, and files that are no miniSEED."""
    write_station(tmp_path / "days")
    (tmp_path / "days" / "bad.mseed").write_bytes(b"nothing of the kind" * 40)
    write_miniseed(tmp_path / "days" / "slow.mseed", [("CM_SLO_00_L_H_Z", START_NS, 1.0, noise(400)[0])])
    write_miniseed(tmp_path / "days" / "short.mseed", [("CM_SHO_00_H_H_Z", START_NS, 100.0, noise(400)[0])])
    rows = [pick("P", 100), pick("PcP", 102), pick("Lg", 103), pick("Lg", 104), pick("", 105)]
    rows += [pick("S", 4000), pick("P", 10, "ZZZ"), pick("P", -20)]
    traces = packed(tmp_path, write_csv(tmp_path / "picks.csv", rows))
    assert len(traces) == 1
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "1 skipped: picks of phase PcP", "2 skipped: picks of phase Lg", "1 skipped: picks of phase (none)",
        "3 skipped: picks at which there are no data of their station", "1 skipped: a file that cannot be read",
        "1 skipped: records shorter than 10 s", "skipped: sampling rate 1.0 Hz",
    ):  # fmt: skip
        assert words in said, words


def test_location_and_channel_of_a_pick_choose_the_instrument(tmp_path: Path) -> None:
    """Blank is any; a broad-band and an accelerometer of one station both have the pick unless it names one."""
    for instrument, location in (("H_H", "00"), ("H_N", "10")):
        pieces = [
            (f"CM_CHI_{location}_{instrument}_{c}", START_NS, 100.0, noise(20_000, k, 50)[0])
            for k, c in enumerate("ZNE")
        ]
        write_miniseed(tmp_path / "days" / f"{instrument}.mseed", pieces)

    def names(**more: object) -> set[str]:
        traces = packed(tmp_path, write_csv(tmp_path / "picks.csv", [pick("P", 100) | more]))
        return {trace.name.rpartition(".20")[0] for trace in traces}

    assert names() == names(location="", channel="") == {"CM.CHI.00.HH", "CM.CHI.10.HN"}
    assert names(location="10") == names(channel="HNZ") == {"CM.CHI.10.HN"}
    assert names(channel="HH") == {"CM.CHI.00.HH"}


def test_machines_picks_are_pseudo_labels_and_quiet_between_them_is_noise(tmp_path: Path) -> None:
    """Probabilities are weights; noise windows keep away from all picks."""
    write_station(tmp_path / "days", seconds=600)
    rows = [pick("P", 100, probability=0.7), pick("S", 105, probability=0.0)]
    traces = packed(tmp_path, write_csv(tmp_path / "picks.csv", rows))
    (pseudo,) = (trace for trace in traces if trace.kind == "pseudo")
    quiet = [trace for trace in traces if trace.kind == "noise"]
    assert (pseudo.status, [label.weight for label in pseudo.labels]) == ("pseudo", [0.7])
    assert [(label.phase, label.weight) for label in pseudo.doubtful] == [("S", 0.0)], "a weight of none is doubt"
    assert len(quiet) == 4
    assert all(not trace.labels and trace.status == "noise" for trace in quiet)


def test_of_an_event_the_first_of_a_phase_is_the_arrival(tmp_path: Path) -> None:
    """A later Pg is doubtful; the same pick twice is one."""
    write_station(tmp_path / "days")
    rows = [pick("Pn", 100, event="a"), pick("Pg", 102, event="a"), pick("Pn", 100.01, event="a")]
    (trace,) = packed(tmp_path, write_csv(tmp_path / "picks.csv", rows))
    assert len(trace.labels) == len(trace.doubtful) == 1
    assert trace.doubtful[0].sample - trace.labels[0].sample == pytest.approx(200, abs=0.01)


def test_events_are_held_out_whole_and_splits_are_kept_apart(tmp_path: Path) -> None:
    """All stations of an event are of one fold; ``--split dev`` takes the windows of dev, none that has both."""
    rows = []
    for station in ("CHI", "YOT", "FLO2"):
        write_station(tmp_path / "days", station, seconds=7200, rate_hz=20.0)
        for number in range(20):
            split = "dev" if number % 5 == 4 else "train"
            rows.append(pick("P", 300 + 330 * number, station, event=f"e{number}", split=split))
    rows.append(pick("S", 305 + 330 * 4, event="e99", split="train"))
    picks = write_csv(tmp_path / "picks.csv", rows)
    traces = packed(tmp_path, picks, "--tune-share", "0.4")
    assert len(traces) == 48
    folds: dict[str, set[str]] = {}
    for trace in traces:
        folds.setdefault(trace.group, set()).add(trace.fold)
    assert all(len(fold) == 1 for fold in folds.values())
    assert {trace.fold for trace in traces} == {"train", "tune"}
    dev = packed(tmp_path, picks, "--split", "dev")
    assert len(dev) == 11, "the window with picks of both splits is left out"
    assert {trace.split for trace in dev} == {"dev"}


def test_a_folder_of_shards_takes_it_too(tmp_path: Path) -> None:
    """With labels, and done when asked again."""
    write_station(tmp_path / "days")
    picks = write_csv(tmp_path / "picks.csv", [pick("P", 100), pick("S", 110), pick("P", 300)])
    for _ in range(2):
        command = ["pack", str(tmp_path / "out"), "--picked", str(tmp_path / "days"), str(picks), "--workers", "1"]
        assert main(command) == 0
    assert sorted(open_folder(tmp_path / "out").catalogue.label_count.tolist()) == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network,station,time\nCM,CHI,2019-12-24T19:00:00Z\n", "no column phase; wanted are network, station, phase"),
        ("network,station,phase,time\nCM,CHI,P,yesterday\n", "picks.csv:2: 'yesterday' is no time"),
        ("network,station,phase,time\nCM,CHI,P,2019-13-24T19:00:00\n", "picks.csv:2: "),
        ("network,station,phase,time\nCM,,P,2019-12-24T19:00:00\n", "picks.csv:2: no station"),
        ("network,station,phase,time,weight\nCM,CHI,P,2019-12-24T19:00:00,3\n", "weight 3 is not from 0 to 1"),
        ("network,station,phase,time,weight\nCM,CHI,P,2019-12-24T19:00:00,nan\n", "weight nan is not from 0 to 1"),
        (
            "network,station,phase,time\nCM,CHI,Lg,2019-12-24T19:00:00\n",
            "no pick of P or S in it; 1 x picks of phase Lg",
        ),
        ("", "no column network, station, phase, time"),
    ],
)
def test_a_csv_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    """File, line, and what is wrong in it."""
    write_station(tmp_path / "days")
    (tmp_path / "picks.csv").write_text(text)
    command = ["pack", str(tmp_path / "own.npz"), "--picked", str(tmp_path / "days"), str(tmp_path / "picks.csv")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    command[-1] = str(tmp_path / "none.csv")
    assert main(command) == 2
    assert "none.csv: no such file of picks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "2019-12-24T19:00:00.25Z", "2019-12-24 19:00:00.25", "2019-12-24T21:00:00,250+02:00",
        "2019-12-24T12:00:00.250000000999-0700", "20191224T190000.25Z", " 2019-12-24T19:00:00.25 UTC ",
    ],
)  # fmt: skip
def test_times_are_utc_unless_they_name_a_zone(text: str) -> None:
    """To the nanosecond."""
    assert time_ns_of(text) == START_NS + SECOND // 4


def test_what_is_no_time_is_refused() -> None:
    """Also one without a time of day: midnight would be a guess."""
    for text in ("2019-12-24", "1577214000", "24/12/2019 19:00:00", "2019-12-24T25:00:00Z", ""):
        with pytest.raises(ValueError, match=r"is no time|must be in|hour"):
            time_ns_of(text)
    assert time_ns_of("1969-12-31T23:59:59.5Z") == -SECOND // 2


def test_phases() -> None:
    """Crustal names, onsets and qualities; nothing else."""
    assert {phase_of(name) for name in ("P", "Pg", "Pn", "Pb", "P*", "p", "iP", "EPn", "P1")} == {"P"}
    assert {phase_of(name) for name in ("S", "Sg", "Sn", "Sb", "s", "eS", "ISg0")} == {"S"}
    assert {phase_of(name) for name in ("PP", "SS", "PcP", "PKP", "Lg", "AML", "X", "", "pP", "sP")} == {None}


def write_quakeml(path: Path) -> Path:
    """Two events: manual picks whose phases the arrivals name, an automatic one, a rejected one, and others."""
    from obspy import UTCDateTime
    from obspy.core.event import Arrival, Catalog, Event, Origin, Pick, WaveformStreamID

    def made(after_s: float, hint: str | None, station: str = "CHI", **more: object) -> Pick:
        where = WaveformStreamID(network_code="CM", station_code=station, location_code="00", channel_code="HHZ")
        return Pick(time=UTCDateTime(ns=START_NS + round(after_s * SECOND)), phase_hint=hint, waveform_id=where, **more)

    picks = [
        made(100, "S", evaluation_mode="manual"), made(103, "Sg", evaluation_mode="manual"),
        made(104, "S", evaluation_mode="manual", evaluation_status="rejected"), made(110, "AML"),
        made(300, "P", evaluation_mode="automatic"),
    ]  # fmt: skip
    origin = Origin(time=UTCDateTime(ns=START_NS), longitude=0, latitude=0)
    origin.arrivals = [Arrival(pick_id=picks[0].resource_id, phase="Pn")]
    first = Event(picks=picks[:4], origins=[origin], preferred_origin_id=origin.resource_id)
    path.parent.mkdir(exist_ok=True)
    Catalog([first, Event(picks=picks[4:])]).write(str(path), format="QUAKEML")
    return path


@needs_obspy
@quiet
def test_quakeml_gives_the_same_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The arrival's phase counts, not the hint; automatic picks weigh half; rejected ones are counted."""
    write_station(tmp_path / "days")
    traces = packed(tmp_path, write_quakeml(tmp_path / "events.xml"))
    manual, automatic = sorted(traces, key=lambda trace: -len(trace.labels))
    assert [(label.phase, label.weight) for label in manual.labels] == [("P", 1.0), ("S", 1.0)]
    assert peak_at(manual, manual.labels[0].sample)
    assert (automatic.kind, automatic.status) == ("labelled", "auto")
    assert [(label.phase, label.weight) for label in automatic.labels] == [("P", 0.5)]
    said = " ".join(capsys.readouterr().out.split())
    assert "1 skipped: picks that were rejected" in said
    assert "1 skipped: picks of phase AML" in said


@needs_obspy
@quiet
def test_xml_that_is_no_quakeml_is_named(tmp_path: Path) -> None:
    """Whatever the parser makes of it."""
    for number, text in enumerate(("<html></html>", "no xml at all", "")):
        path = tmp_path / f"events{number}.xml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"events{number}\.xml: (cannot be read as QuakeML|no pick of P or S)"):
            read_observed(path, Reading())


def test_without_obspy_quakeml_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    path = tmp_path / "events.xml"
    path.write_text("<html></html>")
    monkeypatch.setitem(sys.modules, "obspy", None)
    with pytest.raises(ConfigError, match=r"QuakeML is read by obspy: pip install 'onset\[obspy\]'"):
        read_observed(path, Reading())
