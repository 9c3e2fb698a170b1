"""The shadow as a part of the daemon: its model, its connection to the broker, and what is told of both."""

from __future__ import annotations

import asyncio
from collections import Counter

from streamer.metrics import Metrics
from streamer.publisher import Publisher
from streamer.shadow import Shadow


class ShadowService:
    """``run`` is its task: it ends when it is cancelled, and never by an exception."""

    def __init__(self, model: Shadow, publisher: Publisher) -> None:
        self.model, self._publisher = model, publisher
        self._counts: Counter[str] = Counter()

    def register(self, metrics: Metrics) -> None:
        """Serve how it fares as metrics."""
        metrics.add_gauge("shadow_running", "Whether the shadow model runs (0 or 1)", lambda: self.model.running)
        metrics.add_counters("shadow", "Work and picks of the shadow model", lambda: self._counts, label="kind")
        metrics.add_gauge(
            "shadow_outbox_picks", "Its picks that wait for the broker", lambda: len(self._publisher.outbox)
        )

    def refresh(self) -> None:
        """Copy the counts, on the event loop: metrics are read in another thread."""
        self._counts = self.model.counts

    async def run(self) -> None:
        """Publish its picks until cancelled."""
        try:
            await self._publisher.run()
        except Exception as error:
            self.model.fail(error)
        await asyncio.Event().wait()

    async def drain(self, timeout_s: float) -> None:
        """Wait until its picks are at the broker, ``timeout_s`` at most."""
        if self.model.running:
            await self._publisher.drain(timeout_s)
