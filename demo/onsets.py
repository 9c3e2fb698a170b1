"""The reference onsets of the demo, and what a pick is in their light."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

REFERENCE = Path(__file__).parent / "reference_onsets.csv"
TOLERANCE_S = 0.5
ANY_PHASE = "?"


@dataclass(frozen=True, kw_only=True)
class ReferenceOnset:
    """An onset read by eye. ``time_ns`` is int ns UTC in the time of the original recording."""

    network: str
    station: str
    location: str
    channel: str
    phase: str
    time_ns: int
    uncertainty_s: float
    certain: bool
    note: str


@dataclass(frozen=True, kw_only=True)
class ArrivedPick:
    """A pick as the subscriber got it. ``time_ns`` is in the time of the original recording, int ns UTC."""

    network: str
    station: str
    phase: str
    time_ns: int
    probability: float
    latency_s: float
    """Data time between the onset and the last sample that the decision needed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A pick and its onset. ``kind``: "match", "unsure" (near an uncertain onset) or "false"."""

    pick: ArrivedPick
    kind: str
    onset: ReferenceOnset | None = None

    @property
    def residual_s(self) -> float | None:
        """Pick minus onset, or None where there is no onset."""
        return None if self.onset is None else (self.pick.time_ns - self.onset.time_ns) / 1e9


def load_onsets(path: Path = REFERENCE) -> list[ReferenceOnset]:
    """Read the table of onsets; lines that begin with '#' are comments."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [
            ReferenceOnset(
                network=row["network"],
                station=row["station"],
                location=row["location"],
                channel=row["channel"],
                phase=row["phase"],
                time_ns=parse_ns(row["time"]),
                uncertainty_s=float(row["uncertainty_s"]),
                certain=row["certain"] == "yes",
                note=row["note"],
            )
            for row in rows
        ]


def parse_ns(text: str) -> int:
    """Int ns UTC of an ISO 8601 text with a Z, exact to the microsecond."""
    instant = datetime.fromisoformat(text)
    return int(instant.replace(microsecond=0).timestamp()) * 1_000_000_000 + instant.microsecond * 1000


class Judge:
    """Gives each pick its onset; a certain onset is given away once."""

    def __init__(self, onsets: Iterable[ReferenceOnset]) -> None:
        self._onsets = list(onsets)
        self._taken: set[ReferenceOnset] = set()
        self.verdicts: list[Verdict] = []

    def judge(self, pick: ArrivedPick) -> Verdict:
        """The nearest free certain onset of the same phase within TOLERANCE_S, else an uncertain one, else none."""
        near = [o for o in self._onsets if (o.network, o.station) == (pick.network, pick.station)]
        near.sort(key=lambda onset: abs(onset.time_ns - pick.time_ns))
        matching = (o for o in near if o.certain and o not in self._taken and _matches(pick, o))
        unsure = (o for o in near if not o.certain and _matches(pick, o))
        if onset := next(matching, None):
            self._taken.add(onset)
            verdict = Verdict(pick=pick, kind="match", onset=onset)
        elif onset := next(unsure, None):
            verdict = Verdict(pick=pick, kind="unsure", onset=onset)
        else:
            verdict = Verdict(pick=pick, kind="false")
        self.verdicts.append(verdict)
        return verdict

    def of_kind(self, kind: str) -> list[Verdict]:
        """The verdicts of one kind so far, in the order of arrival."""
        return [verdict for verdict in self.verdicts if verdict.kind == kind]

    @property
    def missed(self) -> list[ReferenceOnset]:
        """Certain onsets that no pick has matched so far."""
        return [onset for onset in self._onsets if onset.certain and onset not in self._taken]


def _matches(pick: ArrivedPick, onset: ReferenceOnset) -> bool:
    reach_s = TOLERANCE_S if onset.certain else max(TOLERANCE_S, onset.uncertainty_s)
    return onset.phase in (pick.phase, ANY_PHASE) and abs(pick.time_ns - onset.time_ns) <= reach_s * 1e9
