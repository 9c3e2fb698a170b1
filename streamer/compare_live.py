"""The picks of a daemon and of its shadow, taken from the broker as they come."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from picker.errors import ConfigError
from streamer.assembly import broker_of
from streamer.settings import load_settings
from streamer.watch import Watch


class Collected:
    """A view that shows nothing and keeps the messages as lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def shown(self) -> Iterator[None]:
        """See View."""
        yield

    def add(self, payload: bytes) -> None:
        """Keep a message. Raises ValueError for what is no text."""
        self.lines.append(payload.decode().replace("\n", " "))


def listen(config: Path, for_s: float | None) -> tuple[list[str], list[str]]:
    """Messages of the daemon with these settings and of its shadow, until Ctrl-C or ``for_s`` seconds have passed.

    Raises ConfigError where the settings name no shadow.
    """
    settings = load_settings(config)
    if settings.shadow.path is None:
        raise ConfigError(f"{config}: shadow.path is not set: there is nothing to compare with")
    broker = broker_of(settings.mqtt)
    views = Collected(), Collected()
    roots = settings.mqtt.topic_root, settings.shadow.topic_root

    async def watch() -> None:
        await asyncio.gather(
            *(
                Watch(replace(broker, client_id=f"onset-compare-{uuid.uuid4().hex[:8]}"), f"{root}/picks/#", view).run(
                    for_s
                )
                for view, root in zip(views, roots, strict=True)
            )
        )

    with suppress(KeyboardInterrupt):
        asyncio.run(watch())
    return views[0].lines, views[1].lines
