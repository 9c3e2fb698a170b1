"""The picks of an observatory, or of a machine: a CSV or a QuakeML file made one list.

CSV: columns network, station, phase and time (ISO 8601; UTC where it names no zone), and where known location, channel
(HHZ or HH), probability or weight (0 to 1), event (an id) and split (train, dev or test). Any other column is left
alone. A blank location is any; write -- for the one that has no code.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.instants import time_ns_of
from pretrain.data.reading import BadTrace, Reading
from pretrain.data.trace import TRAIN

MANUAL, AUTOMATIC, MACHINE_PICK = "manual", "auto", "pseudo"
"""Status of a pick: an analyst's; an automatic one of a catalogue; one that a machine gives a probability for."""
WANTED = ("network", "station", "phase", "time")
_PHASE = re.compile(r"[EI]?(?P<phase>[PS])[GNB*]?[0-4]?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A pick at an instant, int ns UTC; ``phase`` is P or S, ``weight`` (0 to 1) the trust in it.

    Without a ``location`` (None) it is of any; ``channel`` (HHZ, HH) names the instrument, where not empty.
    """

    network: str
    station: str
    phase: str
    time_ns: int
    location: str | None = None
    channel: str = ""
    weight: float = 1.0
    status: str = MANUAL
    event: str = ""
    split: str = TRAIN


def phase_of(name: str) -> str | None:
    """P for P, Pg, Pn and Pb, S for the like, with an onset (iP, ES) or a quality (P1) or without; else None."""
    match = _PHASE.fullmatch(name.strip())
    return match["phase"].upper() if match else None


def unknown_phase(name: str) -> BadTrace:
    """What is said of a pick of another phase."""
    return BadTrace(f"phase {name!r} is neither P nor S", f"picks of phase {name.strip() or '(none)'}")


def read_observed(path: Path, reading: Reading) -> list[Pick]:
    """The picks of a file, in order of time; ``reading`` counts those that are no P or S.

    Raises ConfigError that names the file, the line and what is wrong with it, and where no pick is left.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of picks; give a CSV or a QuakeML file")
    if path.suffix.lower() in (".xml", ".qml", ".quakeml"):
        from pretrain.data.quakeml import read_quakeml

        picks = list(read_quakeml(path, reading))
    else:
        picks = list(_read_csv(path, reading))
    if not picks:
        raise ConfigError(f"{path}: no pick of P or S in it; {reading.reasons() or 'it is empty'}")
    return sorted(picks, key=lambda pick: pick.time_ns)


def _read_csv(path: Path, reading: Reading) -> Iterator[Pick]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = csv.DictReader(file)
            missing = [column for column in WANTED if column not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path}: no column {', '.join(missing)}; wanted are {', '.join(WANTED)}, and where known "
                    "location, channel, probability or weight, event, split"
                )
            for row in rows:
                phase = phase_of(row["phase"] or "")
                if phase is None:
                    reading.skip(unknown_phase(row["phase"] or ""))
                    continue
                try:
                    yield _pick(row, phase)
                except ValueError as error:
                    raise ConfigError(f"{path}:{rows.line_num}: {error}") from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def _pick(row: Mapping[str, str | None], phase: str) -> Pick:
    """The pick of a row; raises ValueError that says which value cannot be."""

    def text(column: str) -> str:
        return (row.get(column) or "").strip()

    for column in ("network", "station"):
        if not text(column):
            raise ValueError(f"no {column}")
    probability, weight = text("probability"), text("weight")
    trust = 1.0
    for column, value in (("probability", probability), ("weight", weight)):
        if value:
            trust *= float(value)
            if not (math.isfinite(float(value)) and 0 <= float(value) <= 1):
                raise ValueError(f"{column} {value} is not from 0 to 1")
    return Pick(
        network=text("network"),
        station=text("station"),
        location=text("location").replace("-", "") if text("location") else None,
        channel=text("channel"),
        phase=phase,
        time_ns=time_ns_of(text("time")),
        weight=trust,
        status=MACHINE_PICK if probability else MANUAL,
        event=text("event"),
        split=text("split") or TRAIN,
    )
