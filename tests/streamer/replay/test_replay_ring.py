"""The ring and a client's place in it: resume, wrap-around, windows, order of arrival, clients that are too slow."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.replay.packet import V3_SEQUENCES
from streamer.replay.request import Origin, Start, StationRequest, StreamRequest
from streamer.replay.ring import StationRing, StreamDescription
from streamer.replay.selector import parse_v4
from streamer.replay.stream import parse_source_id
from streamer.replay.subscription import OverrunError, Subscription

SECOND_NS = 1_000_000_000
PAYLOAD = bytes(512)


class Feed:
    """Rings of two stations with streams Z and E, and a count of arrivals over both."""

    def __init__(self, capacity: int = 16, first: int = 1) -> None:
        self.streams, self.rings, self.arrivals = [], [], 0
        for station in ("XX_A", "XX_B"):
            names = [parse_source_id(f"FDSN:{station}__H_H_{letter}") for letter in "ZE"]
            self.streams.append([StreamDescription(name, "2", "D", 0, True) for name in names])
            self.rings.append(StationRing(station, self.streams[-1], capacity, first))
        self.subscriptions: list[Subscription] = []

    def publish(self, station: int, stream: int = 0, second: int | None = None) -> None:
        """A record of one second; by default its time is the number of arrivals."""
        start_ns = (self.arrivals if second is None else second) * SECOND_NS
        description = self.streams[station][stream]
        self.rings[station].append(self.arrivals, description, start_ns, start_ns + SECOND_NS, PAYLOAD)
        self.arrivals += 1
        for subscription in self.subscriptions:
            subscription.published(station)

    def subscribe(
        self,
        *stations: tuple[str, Start],
        protocol: int = 4,
        dialup: bool = False,
        window: bool = False,
        select: str = "*",
    ) -> Subscription:
        """A client that asks for these station patterns, each from its own start, all with one selector."""
        requests = tuple(StationRequest(pattern, [parse_v4(select)], start) for pattern, start in stations)
        self.subscriptions.append(Subscription(StreamRequest(protocol, requests, dialup, window), self.rings))
        return self.subscriptions[-1]


def taken(subscription: Subscription) -> list[tuple[str, int]]:
    """Station and sequence of all v4 packets due."""
    out = []
    while data := subscription.take(1000):
        at = 0
        while at < len(data):
            length, sequence, named = struct.unpack_from("<IQB", data, at + 4)
            out.append((data[at + 17 : at + 17 + named].decode(), sequence))
            at += 17 + named + length
    return out


def taken_v3(subscription: Subscription) -> list[int]:
    """Sequence of all v3 packets due."""
    out = []
    while data := subscription.take(1000):
        out += [int(data[at + 2 : at + 8], 16) for at in range(0, len(data), 520)]
    return out


NEXT, ALL = Start(), Start(Origin.EARLIEST)


def at(sequence: int, last_seen_s: int | None = None) -> Start:
    return Start(Origin.SEQUENCE, sequence, last_seen_ns=None if last_seen_s is None else last_seen_s * SECOND_NS)


def test_packets_come_in_order_of_arrival_over_stations() -> None:
    """What was kept comes first, then what arrives, stations interleaved as they arrived."""
    feed = Feed()
    for station in (0, 1, 1, 0):
        feed.publish(station)
    subscription = feed.subscribe(("*", ALL))
    feed.publish(1)
    assert taken(subscription) == [("XX_A", 1), ("XX_B", 1), ("XX_B", 2), ("XX_A", 2), ("XX_B", 3)]
    feed.publish(0)
    assert taken(subscription) == [("XX_A", 3)]


@settings(max_examples=100, deadline=None)
@given(
    before=st.lists(st.integers(0, 1), max_size=40),
    after=st.lists(st.integers(0, 1), max_size=10),
    sequence=st.integers(0, 60),
)
def test_resume_by_sequence(before: list[int], after: list[int], sequence: int) -> None:
    """A kept number starts there, one that is gone at the oldest kept, one ahead at the next; nothing twice, no gap."""
    feed = Feed()
    for station in before:
        feed.publish(station)
    first, following = feed.rings[0].first_sequence, feed.rings[0].next_sequence
    subscription = feed.subscribe(("XX_A", at(sequence)))
    expected = list(range(following if sequence > following else max(first, sequence), following))
    assert taken(subscription) == [("XX_A", number) for number in expected]
    for station in after:
        feed.publish(station)
    assert taken(subscription) == [("XX_A", following + number) for number in range(after.count(0))]


def test_v3_sequences_wrap_at_24_bits() -> None:
    """FFFFFF is followed by 000000, and a client resumes over the wrap."""
    feed = Feed(first=V3_SEQUENCES - 3)
    subscription = feed.subscribe(("XX_A", NEXT), protocol=3)
    for _ in range(6):
        feed.publish(0)
    assert taken_v3(subscription) == [0xFFFFFD, 0xFFFFFE, 0xFFFFFF, 0, 1, 2]
    assert taken_v3(feed.subscribe(("XX_A", at(0xFFFFFF)), protocol=3)) == [0xFFFFFF, 0, 1, 2]
    assert taken_v3(feed.subscribe(("XX_A", at(1)), protocol=3)) == [1, 2]
    assert taken_v3(feed.subscribe(("XX_A", at(3)), protocol=3)) == []
    assert taken(feed.subscribe(("XX_A", at(V3_SEQUENCES)), protocol=4))[0] == ("XX_A", V3_SEQUENCES)


def test_v3_resume_after_the_server_began_anew() -> None:
    """When the number before is another record than the client had, its time counts instead of its number."""
    feed = Feed()
    for _ in range(8):
        feed.publish(0)  # seconds 0 to 7, sequences 1 to 8
    assert taken_v3(feed.subscribe(("XX_A", at(5, 3)), protocol=3)) == [5, 6, 7, 8]
    assert taken_v3(feed.subscribe(("XX_A", at(5, 6)), protocol=3)) == [7, 8]
    assert taken_v3(feed.subscribe(("XX_A", at(5000, 6)), protocol=3)) == [7, 8]
    assert taken_v3(feed.subscribe(("XX_A", at(5000)), protocol=3)) == []


def test_time_windows_and_selectors() -> None:
    """Only packets that reach into the window, end > begin and start < end, and whose stream is wanted."""
    feed = Feed()
    for second in range(5):
        feed.publish(0, 0, second)
        feed.publish(0, 1, second)
    window = Start(Origin.EARLIEST, begin_ns=1 * SECOND_NS, end_ns=3 * SECOND_NS)
    assert taken(feed.subscribe(("XX_A", window))) == [("XX_A", number) for number in (3, 4, 5, 6)]
    assert taken(feed.subscribe(("XX_A", window), select="*_E")) == [("XX_A", 4), ("XX_A", 6)]


def test_end_of_a_window_waits_for_every_wanted_stream() -> None:
    """END is due when each wanted stream has passed the window's end, or when no more data come."""
    feed = Feed()
    window = Start(Origin.EARLIEST, begin_ns=0, end_ns=2 * SECOND_NS)
    both = feed.subscribe(("XX_A", window), protocol=3, window=True)
    one = feed.subscribe(("XX_A", window), protocol=3, window=True, select="*_Z")
    for second in range(2):
        feed.publish(0, 0, second)
    taken_v3(both)
    taken_v3(one)
    assert (both.complete(False), one.complete(False), both.complete(True)) == (False, True, True)
    for second in range(2):
        feed.publish(0, 1, second)
    assert not both.complete(False)
    assert taken_v3(both) == [3, 4]
    assert both.complete(False)


def test_dialup_is_complete_when_all_was_sent() -> None:
    """Dial-up ends when nothing is waiting; a real-time subscription never does."""
    feed = Feed()
    feed.publish(0)
    dialup, realtime = feed.subscribe(("*", ALL), dialup=True), feed.subscribe(("*", ALL))
    assert not dialup.complete(False)
    taken(dialup)
    taken(realtime)
    assert dialup.complete(False)
    assert not realtime.complete(True)


def test_a_station_belongs_to_the_first_request_that_matches() -> None:
    """Stations that an earlier STATION matched are excluded from a later one (SeedLink 4.0, STATION)."""
    feed = Feed()
    for _ in range(3):
        feed.publish(0)
        feed.publish(1)
    assert taken(feed.subscribe(("XX_A", at(3)), ("XX_*", at(2)))) == [("XX_B", 2), ("XX_A", 3), ("XX_B", 3)]


def test_a_slow_client_is_overrun() -> None:
    """A client that had begun a station learns at once that it lost packets, whether or not it takes any."""
    feed = Feed(capacity=4)
    feed.publish(0)
    slow = feed.subscribe(("XX_A", ALL))
    assert taken(slow) == [("XX_A", 1)]
    for _ in range(4):
        feed.publish(0)
    with pytest.raises(OverrunError, match="XX_A"):
        feed.publish(0)
    with pytest.raises(OverrunError, match="XX_A"):
        taken(slow)


def test_a_client_that_had_nothing_yet_starts_with_what_is_left() -> None:
    """Packets that leave the ring before the first was sent are no loss: none was promised."""
    feed = Feed(capacity=4)
    feed.publish(0)
    waiting = feed.subscribe(("XX_A", ALL))
    for _ in range(7):
        feed.publish(0)
    assert taken(waiting) == [("XX_A", number) for number in (5, 6, 7, 8)]


def test_v3_clients_get_only_what_v3_can_carry() -> None:
    """Records of another length or format are passed over, sequences stay those of the station."""
    feed = Feed()
    subscription = feed.subscribe(("XX_A", NEXT), protocol=3)
    feed.publish(0)
    feed.rings[0].append(99, feed.streams[0][0], 0, SECOND_NS, bytes(4096))
    subscription.published(0)
    feed.publish(0)
    assert taken_v3(subscription) == [1, 3]
