"""The preset ``tiny``, for the tests of this folder alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pretraining_run import TINY

from picker.model.config import PRESETS


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    PRESETS["tiny"] = TINY
    yield
    del PRESETS["tiny"]
