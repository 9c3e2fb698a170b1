"""Makes the modules of the benchmarks importable for the tests of their parts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
