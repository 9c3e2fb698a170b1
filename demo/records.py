"""The demo's records: which files of the installed obspy package they are, and when each is served.

obspy ships these waveforms as test data. They were recorded between 1990 and 2010, so the demo moves each by a whole
number of seconds onto one timeline of four minutes, which begins when the Unterhaching records begin; those keep their
own time. The network code is obspy's where the file has one, else the FDSN code of the network, else XX. Records of
which only one horizontal is there, whose onsets cannot be read (JMI, MBBE), or that begin less than 4 s before their
first onset are left out.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import obspy
from obspy import Stream, Trace, UTCDateTime

PACKAGE = Path(obspy.__file__).parent
SIGNAL = "signal/tests/data"
SEISAN = "io/seisan/tests/data"
TIMELINE_START = UTCDateTime("2010-05-27T16:24:03.680000Z")
LEAD_IN_S = 10.0
"""Quiet data that the model's running normalisation likes to have before an onset."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Records of one occasion. ``key`` names its file, ``name`` tells people, ``at_s`` is their start on the timeline.

    ``channels`` renames the codes of the file to those served, ``station.channel`` to (network, station, channel); what
    it does not name is left out. ``lead_in_s`` is the shortest time from the start to an onset.
    """

    key: str
    name: str
    at_s: int
    lead_in_s: float
    read: Callable[[], Stream]
    channels: Mapping[str, tuple[str, str, str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Served:
    """One source as it is served: ``stream`` in its original time, int32; ``shift_ns`` is added to its times."""

    source: Source
    shift_ns: int
    stream: Stream = field(repr=False)


def _files(*paths: str) -> Callable[[], Stream]:
    def read() -> Stream:
        stream = Stream()
        for path in paths:
            stream += obspy.read(str(PACKAGE / path))
        return stream

    return read


def _text(station: str, start: str, quantum: float, files: Mapping[str, str]) -> Callable[[], Stream]:
    """Reader of text files at 200 Hz with one sample a line, after lines that begin with '#'.

    Their values are counts times ``quantum`` plus a constant; the counts are put back.
    """

    def read() -> Stream:
        stream = Stream()
        for channel, path in files.items():
            data = (PACKAGE / SIGNAL / path).read_bytes()
            text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("ascii")
            values = np.array([float(line) for line in text.split("\n") if line.strip() and line[0] != "#"])
            header = {"station": station, "channel": channel, "sampling_rate": 200.0, "starttime": UTCDateTime(start)}
            stream += Trace((values - values[0]) / quantum, header)
        return stream

    return read


def _example() -> Stream:
    """The stream that ``obspy.read()`` returns; it was filtered once, so its floats are kept to a hundredth."""
    stream = obspy.read()
    for trace in stream:
        trace.data = trace.data * 100.0
    return stream


def _three(network: str, station: str, band: str, to: str) -> dict[str, tuple[str, str, str]]:
    return {f"{station}.{band}{c}": (network, station, f"{to}{c}") for c in "ZNE"}


def _one(network: str, station: str, channel: str, to: str) -> dict[str, tuple[str, str, str]]:
    return {f"{station}.{channel}": (network, station, to)}


SOURCES = (
    Source(
        key="unterhaching",
        name="Unterhaching, Bavaria: four induced earthquakes",
        at_s=0,
        lead_in_s=29.4,
        read=_files(f"{SIGNAL}/BW.UH[1234]._.?H?.D.2010.147.cut.slist.gz"),
        channels={
            **_one("BW", "UH1", "SHZ", "SHZ"),
            **_one("BW", "UH2", "SHZ", "SHZ"),
            **_three("BW", "UH3", "SH", "SH"),
            **_one("BW", "UH4", "EHZ", "EHZ"),
        },
    ),
    Source(
        key="montserrat",
        name="Soufriere Hills, Montserrat: a volcanic earthquake",
        at_s=12,
        lead_in_s=10.6,
        read=_files(f"{SEISAN}/9701-30-1048-54S.MVO_21_1"),
        channels={
            **_three("MV", "MBGA", "SB", "BH"),
            **_three("MV", "MBGB", "SB", "BH"),
            **_three("MV", "MBGE", "SB", "BH"),
            **_three("MV", "MBGH", "SB", "BH"),
            **_one("MV", "MBLG", "S Z", "SHZ"),
            **_one("MV", "MBRY", "S Z", "SHZ"),
            **_one("MV", "MBWH", "S Z", "SHZ"),
        },
        note="75.19 Hz; SEISAN names SB? and S Z served as BH? (broadband) and SHZ (short period)",
    ),
    Source(
        key="jochberg_2005a",
        name="Jochberg, Bavaria: a swarm earthquake below Mount Hochstaufen, 2005-08-01",
        at_s=20,
        lead_in_s=30.6,
        read=_text(
            "RJOB",
            "2005-08-01T14:57:19.850Z",
            0.596274,
            {f"EH{c.upper()}": f"loc_RJOB20050801145719850.{c}" for c in "zne"},
        ),
        channels=_three("BW", "RJOB", "EH", "EH"),
    ),
    Source(
        key="jan_mayen",
        name="Jan Mayen",
        at_s=60,
        lead_in_s=11.1,
        read=_files(f"{SEISAN}/90010319.1320J90"),
        channels={**_one("NS", "JNW", "S Z", "SHZ"), **_one("NS", "JNE", "S Z", "SHZ")},
    ),
    Source(
        key="ceres",
        name="Ceres, South Africa: a distant earthquake",
        at_s=95,
        lead_in_s=30.2,
        read=_files(f"{SEISAN}/2005-07-23-1452-04S.CER___030"),
        channels=_three("XX", "CER", "BH", "BH"),
    ),
    Source(
        key="jochberg_2009",
        name="Jochberg, Bavaria, 2009-08-24: obspy's example",
        at_s=100,
        lead_in_s=4.7,
        read=_example,
        channels=_three("BW", "RJOB", "EH", "EH"),
        note="begins 4.7 s before P",
    ),
    Source(
        key="nonn",
        name="Nonn, Bavaria: a swarm earthquake below Mount Hochstaufen",
        at_s=135,
        lead_in_s=21.3,
        read=_files("io/gse2/tests/data/loc_RNON20040609200559.z"),
        channels=_one("BW", "RNON", "Z", "EHZ"),
    ),
    Source(
        key="jochberg_2005b",
        name="Jochberg, Bavaria, 2005-08-31: a weak one",
        at_s=150,
        lead_in_s=31.1,
        read=_files("io/gse2/tests/data/loc_RJOB20050831023349.z"),
        channels=_one("BW", "RJOB", "Z", "EHZ"),
        note="vertical only, while RJOB had three components before",
    ),
    Source(
        key="rotzenmuehle",
        name="Rotzenmuehle, Bavaria: the Vogtland swarm of 2008",
        at_s=160,
        lead_in_s=7.3,
        read=_text("ROTZ", "2008-10-28T08:30:13.070Z", 0.596274, {"EHZ": "rotz_20081028.gz"}),
        channels=_one("BW", "ROTZ", "EHZ", "EHZ"),
        note="begins 7.3 s before P",
    ),
)


def load(source: Source) -> Served:
    """Read one source and give it the codes it is served with; raises FileNotFoundError where obspy lacks it."""
    stream = Stream()
    for trace in source.read():
        codes = source.channels.get(f"{trace.stats.station}.{trace.stats.channel}")
        if codes is None:
            continue
        trace.stats.network, trace.stats.station, trace.stats.channel = codes
        trace.stats.location = ""
        trace.data = np.rint(trace.data).astype(np.int32)
        stream += trace
    if len(stream) != len(source.channels):
        raise FileNotFoundError(
            f"{source.name}: found {len(stream)} of {len(source.channels)} channels in obspy {obspy.__version__} at "
            f"{PACKAGE}; install an obspy release that ships its test data, such as 1.5"
        )
    stream.sort(["network", "station", "channel"])
    start = min(trace.stats.starttime for trace in stream)
    wanted = TIMELINE_START + source.at_s
    shift_s = round(wanted - start)
    return Served(source=source, shift_ns=shift_s * 1_000_000_000, stream=stream)
