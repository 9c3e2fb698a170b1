"""Makes the demo importable, which is not installed, and obspy quiet."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # obspy reads its entry points in a way that Python has deprecated
    import obspy  # noqa: F401
