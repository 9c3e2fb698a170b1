"""The data sets of SeisBench that are known by name, and where its cache holds them.

Woollam et al. (2022), https://doi.org/10.1785/0220210324. SeisBench itself is needed to fetch them, not to read them.
"""

from __future__ import annotations

import os
from pathlib import Path

from picker.errors import ConfigError

SETS = ("ETHZ", "GEOFON", "STEAD", "InstanceCounts", "MLAAPDE", "Iquique", "PNW", "OBST2024")
_BY_LOWER = {name.lower(): name for name in SETS}


def cache_root() -> Path:
    """SeisBench's cache: ``SEISBENCH_CACHE_ROOT``, else ``.seisbench`` in the home folder."""
    return Path(os.environ.get("SEISBENCH_CACHE_ROOT") or Path.home() / ".seisbench")


def set_name(name: str) -> str:
    """The set's name as SeisBench spells it; raises ConfigError for one that is not known."""
    if name.lower() not in _BY_LOWER:
        raise ConfigError(f"--set {name}: not known; choose of {', '.join(SETS)}, or give its folder with --folder")
    return _BY_LOWER[name.lower()]


def set_folder(name: str) -> Path:
    """The folder of a set; raises ConfigError that names the folder and the command that fetches it."""
    name = set_name(name)
    folder = cache_root() / "datasets" / name.lower()
    if not any(folder.glob("metadata*.csv")):
        raise ConfigError(
            f"{folder}: the set {name} is not there; fetch it with "
            f'`python -c "import seisbench.data as d; d.{name}()"` (pip install seisbench), '
            "or set SEISBENCH_CACHE_ROOT to the cache that has it"
        )
    return folder
