"""The machine that a figure belongs to: processor, operating system, versions, load; and the pinning to one core."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and when a benchmark ran."""

    processor: str
    cores: int
    system: str
    versions: tuple[tuple[str, str], ...]
    """Pairs of program or distribution and version."""
    started: datetime
    core: int | None
    """The only core that the process may run on; None where the system cannot pin."""

    @property
    def slug(self) -> str:
        """Processor and number of cores for a file name, for example ``amd-epyc-2-cores``."""
        words = re.sub(r"\((r|tm)\)|\b(cpu|processor)\b|@.*", " ", self.processor.lower())
        return re.sub(r"[^a-z0-9]+", "-", f"{words} {self.cores} cores").strip("-")

    def lines(self) -> list[str]:
        """One Markdown list item a fact."""
        pinned = "not pinned (the system has no affinity call)" if self.core is None else f"pinned to core {self.core}"
        return [
            f"- processor: {self.processor}, {self.cores} cores, {pinned}",
            f"- system: {self.system}",
            "- versions: " + ", ".join(f"{name} {number}" for name, number in self.versions),
            f"- date: {self.started:%Y-%m-%d %H:%M} UTC",
        ]


def look(distributions: Sequence[str], core: int | None) -> Machine:
    """The machine as it is now, with the versions of those distributions that are installed."""
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        system=f"{_distribution()} ({platform.system()} {platform.release()}, {platform.machine()})",
        versions=(("Python", platform.python_version()), *_versions(distributions)),
        started=datetime.now(UTC),
        core=core,
    )


def pin(core: int | None = None) -> int | None:
    """Confine this process to ``core`` (default: the last one allowed); returns it, None where that is not possible.

    Raises ValueError where the process may not use that core.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    chosen = max(allowed) if core is None else core
    if chosen not in allowed:
        raise ValueError(f"core {chosen} is not one that this process may use; choose one of {sorted(allowed)}")
    os.sched_setaffinity(0, {chosen})
    return chosen


def load() -> float | None:
    """Mean number of runnable processes over the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor() -> str:
    if CPU_INFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return platform.processor() or platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, AttributeError, KeyError):
        return platform.platform(terse=True)


def _versions(distributions: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for name in distributions:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
