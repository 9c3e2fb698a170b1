"""Delays between attempts to reach a server: exponential, with jitter so that clients do not return all at once."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Doubles from ``first_s`` to ``longest_s``; each delay lies between half of that and all of it."""

    def __init__(
        self, *, first_s: float = 1.0, longest_s: float = 60.0, fraction: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._fraction = fraction
        self._ceiling_s = first_s

    def delay_s(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling_s, self._ceiling_s = self._ceiling_s, min(2 * self._ceiling_s, self._longest_s)
        return ceiling_s * (0.5 + 0.5 * self._fraction())

    def reset(self) -> None:
        """The server was well: start from ``first_s`` again."""
        self._ceiling_s = self._first_s
