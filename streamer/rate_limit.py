"""A limit on how often the same thing is said."""

from __future__ import annotations

from collections.abc import Callable, Hashable


class RateLimit:
    """Lets one event of a kind through in ``interval_s``, and says how many were held back since.

    ``monotonic`` is the clock, in seconds. Kinds beyond ``capacity`` share one limit, so memory stays bounded.
    """

    def __init__(self, interval_s: float, monotonic: Callable[[], float], capacity: int = 256) -> None:
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._capacity = capacity
        self._last_s: dict[Hashable, float] = {}
        self._held: dict[Hashable, int] = {}

    def admit(self, kind: Hashable) -> int | None:
        """None where an event of ``kind`` is to be held back, else how many were since the last one."""
        if kind not in self._last_s and len(self._last_s) >= self._capacity:
            kind = None
        now_s = self._monotonic()
        last_s = self._last_s.get(kind)
        if last_s is not None and now_s - last_s < self._interval_s:
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        self._last_s[kind] = now_s
        return self._held.pop(kind, 0)
