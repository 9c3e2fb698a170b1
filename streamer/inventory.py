"""What a server offers, as its answer to INFO STREAMS says, and what of it is asked for: text in, stations out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from seedlink_client import SeedLinkError
from seedlink_client.protocol import parse_info_xml

from streamer.seedlink_settings import Selection

MOST_STATIONS = 5_000


class Stream(NamedTuple):
    """A channel that a server has, and until when (int ns UTC, None where it does not say)."""

    location: str
    channel: str
    end_ns: int | None


class Offer(NamedTuple):
    """A station that a server has: its streams, and the sequence number after which it has nothing yet, or None."""

    streams: tuple[Stream, ...]
    last_sequence: int | None

    @property
    def end_ns(self) -> int | None:
        """Until when there are data (int ns UTC)."""
        return max((stream.end_ns for stream in self.streams if stream.end_ns is not None), default=None)


class Wanted(NamedTuple):
    """A station to subscribe to, or a wildcard; without selectors everything it has."""

    station: str
    selectors: tuple[str, ...]


Inventory = Mapping[str, Offer]
"""By station id, NET_STA."""


def parse_v4(text: str) -> Inventory:
    """SeedLink 4 ``INFO STREAMS``, JSON; raises ValueError for anything else."""
    try:
        stations = json.loads(text)["station"]
        return {str(one["id"]): _offer_v4(one) for one in stations}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a list of stations ({error!r:.100})") from error


def _offer_v4(station: Mapping[str, Any]) -> Offer:
    streams = []
    for one in station.get("stream", ()):
        location, _, channel = str(one["id"]).partition("_")
        streams.append(Stream(location, channel.replace("_", ""), _time(one.get("end_time"))))
    last = station.get("end_seq")
    return Offer(tuple(streams), last if isinstance(last, int) and last >= 0 else None)


def parse_v3(text: str) -> Inventory:
    """SeedLink 3 ``INFO STREAMS``, XML; raises ValueError for anything else."""
    try:
        stations = parse_info_xml(text.strip("\0 \r\n"))["seedlink"]["station"]
        return {f"{one['network']}_{one['name']}": _offer_v3(one) for one in stations}
    except (SeedLinkError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a list of stations ({error!r:.100})") from error


def _offer_v3(station: Mapping[str, Any]) -> Offer:
    streams = tuple(
        Stream(str(one.get("location", "")).strip(), str(one.get("seedname", "")), _time(one.get("end_time")))
        for one in station.get("stream", ())
    )
    try:
        return Offer(streams, int(str(station.get("end_seq")), 16))
    except ValueError:
        return Offer(streams, None)


def _time(text: Any) -> int | None:
    """ISO 8601, or v3's ``2010/05/27 16:24:00.0000``, as ns UTC; None where it is neither."""
    try:
        moment = datetime.fromisoformat(str(text).strip().replace("/", "-"))
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1e6) * 1000


def expand(selections: Sequence[Selection], inventory: Inventory, known: Iterable[str] = ()) -> list[Wanted]:
    """Each station that ``selections`` mean, with all selectors that speak of it.

    Stations are those of the inventory that have such a channel, those of ``known`` (they have delivered before, and
    the list of a server that has just started may be short), and those that are named without wildcards.
    """
    named = [selection.station_id for selection in selections if not selection.wildcard]
    wanted = []
    for station in dict.fromkeys([*inventory, *known, *named]):
        means = [one for one in selections if one.names(station) and _may_have(inventory.get(station), one)]
        if not means and station in named:
            means = [one for one in selections if one.names(station)]
        if means:
            everything = any(not one.selectors for one in means)
            selectors = [] if everything else [selector for one in means for selector in one.selectors]
            wanted.append(Wanted(station, tuple(dict.fromkeys(selectors))))
    return sorted(wanted)


def unexpanded(selections: Sequence[Selection]) -> list[Wanted]:
    """The selections as they are, for a server that gives no list of stations."""
    return [Wanted(one.station_id, tuple(one.selectors)) for one in selections]


def _may_have(offer: Offer | None, selection: Selection) -> bool:
    if offer is None or not offer.streams:
        return True
    return any(selection.wants(stream.location, stream.channel) for stream in offer.streams)
