"""Which stations of a server are asked for: wildcards are expanded by its own list, which is read from time to time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import structlog

from picker.errors import ConfigError
from streamer.errors import RemoteError
from streamer.inventory import MOST_STATIONS, Inventory, Wanted, expand, unexpanded
from streamer.seedlink_session import Connection, Ended
from streamer.seedlink_settings import SeedLinkSettings

SOON_S = 30.0
"""First look for a station that was refused: a server that has just started may not know it yet."""
WITHOUT_LIST_S = 3600.0
"""So long a server that broke off when asked for its list is not asked again."""

_log = structlog.get_logger(__name__)


class Subscriptions:
    """The stations of one server. ``changed``: the connection is to be made again, for stations that have appeared."""

    def __init__(self, settings: SeedLinkSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.changed = False
        self._settings, self._monotonic = settings, monotonic
        self._inventory: Inventory | None = None
        self._not_before_s = 0.0
        self._told: set[str] = set()

    @property
    def _patterns(self) -> list[str]:
        return [selection.station_id for selection in self._settings.streams]

    async def choose(self, connection: Connection, known: Collection[str]) -> tuple[list[Wanted], Inventory]:
        """What to ask for, and what the server says now of what it has (empty where it does not).

        ``known`` are stations that have delivered before. Raises Ended.
        """
        self.changed = False
        wildcards = any(selection.wildcard for selection in self._settings.streams)
        current: Inventory | None = None
        if (wildcards or connection.protocol == "4") and self._monotonic() >= self._not_before_s:
            try:
                current = await connection.inventory(self._patterns)
            except Ended:
                self._not_before_s = self._monotonic() + WITHOUT_LIST_S
                raise
        self._inventory = current if current is not None else self._inventory
        if self._inventory is None and wildcards:
            self._tell("server gives no list of its stations: wildcards are left to it, and resumed by time alone")
            return unexpanded(self._settings.streams), {}
        wanted = expand(self._settings.streams, self._inventory or {}, known)
        if not wanted:
            self._tell("server has none of the stations now: asking for the wildcards as they are")
        elif len(wanted) > MOST_STATIONS:
            self._tell(f"the wildcards mean more than {MOST_STATIONS} stations: asking for them as they are")
        if not 0 < len(wanted) <= MOST_STATIONS:
            return unexpanded(self._settings.streams), {}
        return wanted, current or {}

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            _log.warning(text, server=self._settings.address)

    @contextmanager
    def looking(self, connection: Connection, wanted: Sequence[Wanted]) -> Iterator[None]:
        """While this lasts, look for new stations from time to time, and interrupt the connection for them."""
        if connection.refused:
            stations = ", ".join(sorted(connection.refused)[:10])
            _log.warning("server does not know stations", server=self._settings.address, stations=stations)
        listed = self._inventory is not None and any(selection.wildcard for selection in self._settings.streams)
        if not listed and not connection.refused:
            yield
            return
        task = asyncio.create_task(self._look(connection, wanted), name=f"stations of {self._settings.address}")
        try:
            yield
        finally:
            if not task.cancel() and not task.cancelled():
                task.result()

    async def _look(self, connection: Connection, wanted: Sequence[Wanted]) -> None:
        every_s = self._settings.look_for_stations_min * 60
        wait_s = min(SOON_S, every_s) if connection.refused else every_s
        there = {one.station for one in wanted if not _wild(one)}.difference(connection.refused)
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, every_s)
            try:
                async with Connection(self._settings) as other:
                    found = await other.inventory(self._patterns)
            except (RemoteError, ConfigError) as error:
                _log.debug("cannot look for new stations", server=self._settings.address, reason=str(error))
                continue
            if found is None:
                continue
            self._inventory = found
            new = sorted({one.station for one in expand(self._settings.streams, found)}.intersection(found) - there)
            if new and len(new) <= MOST_STATIONS:
                self.changed = True
                _log.info("server has new stations", server=self._settings.address, stations=", ".join(new[:10]))
                connection.interrupt("new stations")
                return


def one_by_one(wanted: Sequence[Wanted]) -> list[str] | None:
    """The stations' ids, None where a wildcard is among them."""
    return None if any(map(_wild, wanted)) else [one.station for one in wanted]


def _wild(wanted: Wanted) -> bool:
    return any(letter in wanted.station for letter in "*?")
