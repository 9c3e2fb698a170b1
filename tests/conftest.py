"""Makes the helpers beside this file importable from every test folder, and keeps the logging of tests apart.

For every test, since those that read the log do not know which ones came before them in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog


@pytest.fixture(scope="session", autouse=True)
def _uncached_loggers() -> Iterator[None]:
    """A command that sets the logging of its process up keeps loggers; kept ones would go on as it said, for good."""
    configure = structlog.configure

    def uncached(**values: Any) -> None:
        configure(**{**values, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", uncached)
        yield


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The logging of the test process as it was before."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
