"""What tests of the commands need: the logging of the test process as it was before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command sets the logging of its process up: put that of the tests back, also in loggers used meanwhile."""
    root = logging.getLogger()
    before, level, configure = root.handlers[:], root.level, structlog.configure

    def uncached(**values: Any) -> None:
        configure(**{**values, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
