"""What became of the traces that were read: how many are usable, what is notable about them, why others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from picker.errors import ConfigError


class BadTrace(ConfigError):
    """A trace that cannot be used; ``reason`` is the kind of fault, the message says all."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(kw_only=True)
class Reading:
    """Counts of traces: ``read`` and used, ``left_out`` by a budget at least, ``skipped`` by reason, with ``notes``."""

    read: int = 0
    left_out: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def skip(self, error: Exception) -> None:
        """Count a trace or a file that ``error`` made unusable."""
        self.skipped[reason_of(error)] += 1

    def add(self, other: Reading) -> None:
        """Add another's counts."""
        self.read, self.left_out = self.read + other.read, self.left_out + other.left_out
        self.skipped.update(other.skipped)
        self.notes.update(other.notes)

    def lines(self) -> Iterator[str]:
        """One line for each count that is not zero, but for that of the traces read."""
        for reason, count in sorted(self.skipped.items()):
            yield f"{count:8d}  skipped: {reason}"
        for note, count in sorted(self.notes.items()):
            yield f"{count:8d}  used: {note}"
        if self.left_out:
            yield f"{self.left_out:8d}  or more left out by the budget"

    def reasons(self) -> str:
        """Why traces were skipped, on one line."""
        return "; ".join(f"{count} x {reason}" for reason, count in self.skipped.items())

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        words = {"skipped": dict(self.skipped), "notes": dict(self.notes)}
        return {"read": self.read, "left_out": self.left_out, **words}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Reading:
        """The reading of ``to_dict``."""
        return cls(
            read=int(str(values["read"])),
            left_out=int(str(values["left_out"])),
            skipped=Counter(values["skipped"]),  # type: ignore[call-overload]
            notes=Counter(values["notes"]),  # type: ignore[call-overload]
        )


def reason_of(error: Exception) -> str:
    """The kind of fault behind an error met in reading."""
    if isinstance(error, BadTrace):
        return error.reason
    if isinstance(error, KeyError):
        return "no waveform of that name"
    if isinstance(error, ConfigError):
        return str(error)
    return "a value that cannot be read"
