"""Picks of records as CSV: trace_name, phase, sample (from the first one of the record, 100 Hz), probability."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from picker.errors import ConfigError
from pretrain.data.trace import RATE_HZ
from pretrain.metric import PHASES, TracePick

COLUMNS = ("trace_name", "phase", "sample", "probability")
MORE = ("stated_probability", "uncertainty_s")
"""Further columns of our own picks: as the daemon would tell them."""


def write_picks(path: str | Path, picks: Iterable[TracePick]) -> None:
    """Write picks; ``probability`` is the network's, for thresholds to cut."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *MORE))
        for pick in picks:
            told, width = pick.stated_probability, pick.uncertainty_samples
            more = (
                "" if told is None else f"{told:.6f}",
                "" if width is None else f"{width / RATE_HZ:.4f}",
            )
            writer.writerow((pick.trace_name, pick.phase, f"{pick.sample:.3f}", f"{pick.probability:.8f}", *more))


def read_trace_picks(path: str | Path) -> list[TracePick]:
    """Picks of P and S of any picker; raises ConfigError that names the file and the line."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of picks")
    picks: list[TracePick] = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                picks.append(
                    TracePick(
                        trace_name=row["trace_name"],
                        phase=row["phase"],
                        sample=float(row["sample"]),
                        probability=float(row["probability"]),
                    )
                )
            except (KeyError, ValueError, TypeError) as error:
                raise ConfigError(f"{path}:{number}: {error}; columns wanted: {', '.join(COLUMNS)}") from error
    return [pick for pick in picks if pick.phase in PHASES]
