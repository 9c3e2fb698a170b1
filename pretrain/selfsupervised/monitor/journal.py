"""The journal of a run: ``log.jsonl``, one JSON object a line.

    {"step": 1200, "seconds": 84.1, "kind": "train", "loss": 3.21, ...}

``kind`` is ``train``, ``validation`` or ``event``; the rest are flat numbers (an event's ``text`` says what happened).
JSON knows neither NaN nor infinity: they become null.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from picker.errors import ConfigError

FILE = "log.jsonl"
Kind = Literal["train", "validation", "event"]
TRAIN: Literal["train"] = "train"
VALIDATION: Literal["validation"] = "validation"
EVENT: Literal["event"] = "event"
Entry = dict[str, Any]


class Journal:
    """Appends to ``log.jsonl`` of a run folder, a whole line at a time; one process of a run may write.

    ``seconds`` counts from the start of the run, the time of earlier parts included.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.clock = folder / FILE, clock
        self._mend()
        self._began = clock() - self._spent_s()

    def write(self, step: int, kind: Kind, values: Mapping[str, Any]) -> None:
        """Append one line. Values are numbers (tensors of one number too), in an event also text."""
        entry: Entry = {"step": step, "seconds": round(self.clock() - self._began, 3), "kind": kind}
        entry |= {name: value if isinstance(value, int | str) else float(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(entry), allow_nan=False) + "\n")

    def event(self, step: int, text: str) -> None:
        """Append a line that says what happened."""
        self.write(step, EVENT, {"text": text})

    def forget_after(self, step: int) -> None:
        """Cut back to ``step``, where a run is taken up again; time goes on from there too."""
        forget_after(self.path, step)
        self._began = self.clock() - self._spent_s()

    def _spent_s(self) -> float:
        if not self.path.is_file():
            return 0.0
        entries = entries_of(self.path)
        return float(entries[-1].get("seconds", 0.0)) if entries else 0.0

    def _mend(self) -> None:
        """Remove the half of a line that a killed run may have left behind."""
        if self.path.is_file() and not (text := self.path.read_text(encoding="utf-8")).endswith("\n"):
            self.path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for numbers that JSON does not know."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def forget_after(path: Path, step: int) -> None:
    """Cut a log back to ``step``: a run that was killed takes up its last save, and logs what came after it again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] > step or not line.endswith("\n"):
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")


def entries_of(path: Path) -> list[Entry]:
    """All lines of a log but a last one cut short; raises ConfigError for another that is no entry."""
    lines, entries = path.read_text(encoding="utf-8").splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            entry["step"] += 0
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise ConfigError(f"{path}, line {number}: not an entry of a log ({error}); remove the line") from error
        entries.append(entry)
    return entries


def read_journal(folder: str | Path) -> list[Entry]:
    """The entries of a run in order; null is NaN again. Raises ConfigError where there is no log or nothing in it."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: no {FILE} in it; name the folder of a run of `pretrain run`")
    entries = entries_of(path)
    if not entries:
        raise ConfigError(f"{path}: is empty; let the run log its first step")
    return [{k: math.nan if v is None else v for k, v in entry.items()} for entry in entries]


def series(entries: Sequence[Entry], kind: Kind, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure in the entries of a kind that have it."""
    found = [(entry["step"], float(entry[name])) for entry in entries if entry.get("kind") == kind and name in entry]
    return [step for step, _ in found], [value for _, value in found]
