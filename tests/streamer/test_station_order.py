"""Any packetisation and any interleaving within the wait give the same chunks; hostile input stays bounded."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from station_data import EPOCH_NS, KEY, SECOND_NS, by_time, noise, packets, record, run, same

from streamer.record import Record
from streamer.resample import CHUNK_SLOTS
from streamer.station import Station, StationPolicy

SECONDS = 16
POLICY = StationPolicy(component_wait_s=3.0)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

letters = st.fixed_dictionaries({letter: st.sampled_from([20.0, 50.0, 100.0, 125.0, 99.99]) for letter in "ZNE"})
gaps = st.lists(
    st.tuples(st.sampled_from("ZNE*"), st.floats(2, 10), st.sampled_from([0.02, 0.05, 0.1, 0.5, 2.5])), max_size=3
)
sizes = st.lists(st.integers(1, 4096), min_size=1, max_size=4)


def runs_of(rate_hz: float, letter: str, holes: list[tuple[str, float, float]]) -> list[tuple[float, np.ndarray]]:
    """Starts and samples of the contiguous stretches of one component."""
    samples = noise(int(SECONDS * rate_hz), ord(letter), offset=1_000_000)
    keep = np.ones(len(samples), dtype=bool)
    for which, start_s, length_s in holes:
        if which in (letter, "*"):
            first = round(start_s * rate_hz)
            keep[first : first + round(length_s * rate_hz)] = False
    edges = np.flatnonzero(np.diff(np.concatenate([[False], keep, [False]]).astype(int)))
    return [(first / rate_hz, samples[first:last]) for first, last in edges.reshape(-1, 2).tolist()]


def cut(rates: dict[str, float], holes: list[tuple[str, float, float]], pieces: dict[str, list[int]]) -> list[Record]:
    """All records of a station, each component cut in its own way."""
    return [
        one
        for letter, rate_hz in rates.items()
        for start_s, samples in runs_of(rate_hz, letter, holes)
        for one in packets(letter, samples, pieces[letter], start_s, rate_hz)
    ]


@QUICK
@given(
    rates=letters,
    holes=gaps,
    pieces=st.fixed_dictionaries(dict.fromkeys("ZNE", sizes)),
    start=st.integers(0, 10**10),
)
def test_any_packetisation(
    rates: dict[str, float], holes: list[tuple[str, float, float]], pieces: dict[str, list[int]], start: int
) -> None:
    """Records of 1 to 4,096 samples in any mix, with gaps, at any offset from the grid: the same chunks."""

    def moved(records: list[Record]) -> list[Record]:
        return [replace(one, start_ns=one.start_ns + start) for one in records]

    holes = [hole for hole in holes if hole[0] == "*" or hole[2] < POLICY.component_wait_s]
    plain = run(moved(by_time(cut(rates, holes, {letter: [50] for letter in "ZNE"}))), POLICY)[0]
    other = run(moved(by_time(cut(rates, holes, pieces))), POLICY)[0]
    assert same(plain, other)


@QUICK
@given(
    rates=letters,
    holes=gaps,
    delays=st.fixed_dictionaries({letter: st.floats(0, 2.9) for letter in "ZNE"}),
    size=st.integers(10, 300),
)
def test_any_interleaving_within_the_wait(
    rates: dict[str, float], holes: list[tuple[str, float, float]], delays: dict[str, float], size: int
) -> None:
    """Components that come up to the wait apart, less what their own gaps take of it: the same chunks."""
    longest = sum(hole[2] for hole in holes if hole[0] != "*")
    assume(longest + max(delays.values()) - min(delays.values()) < POLICY.component_wait_s)
    records = cut(rates, holes, {letter: [size] for letter in "ZNE"})
    assert same(run(by_time(records), POLICY)[0], run(by_time(records, delays), POLICY)[0])


@QUICK
@given(seed=st.integers(0, 10**6), size=st.integers(10, 100), copies=st.integers(0, 30))
def test_bounded_reordering_and_duplicates(seed: int, size: int, copies: int) -> None:
    """Every record moved by up to a second within its component, some sent twice: the same chunks."""
    chance = random.Random(seed)
    records = cut(dict.fromkeys("ZNE", 100.0), [], {letter: [size] for letter in "ZNE"})
    mixed = sorted(
        records + chance.choices(records, k=copies), key=lambda one: one.start_ns + chance.random() * SECOND_NS
    )
    assert same(run(by_time(records), POLICY)[0], run(mixed, POLICY)[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.lists(
        st.tuples(
            st.sampled_from("ZNE123"),
            st.floats(-100, 100),
            st.integers(1, 600),
            st.sampled_from([20.0, 99.99, 100.0, 250.0]),
            st.sampled_from(["i", "f", "nan"]),
        ),
        max_size=40,
    )
)
def test_any_nonsense_keeps_the_contract(shape: list[tuple[str, float, int, float, str]]) -> None:
    """Whatever comes: chunks on the grid, in order, finite, zero where invalid, a reset where one does not follow."""
    station = Station(KEY, POLICY)
    chunks = []
    for letter, start_s, count, rate_hz, kind in shape:
        samples = noise(count).astype(np.int32 if kind == "i" else np.float64)
        if kind == "nan":
            samples[::3] = np.nan
        station.add(record(letter, start_s, samples, rate_hz), EPOCH_NS)
        chunks += station.ready()
    chunks += station.flush()
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        assert chunk.first_sample % CHUNK_SLOTS == 0
        assert np.isfinite(chunk.samples).all()
        assert not chunk.samples[~chunk.valid].any()
        follows = before is not None and chunk.first_sample == before.first_sample + CHUNK_SLOTS
        assert chunk.reset or follows
        assert before is None or chunk.first_sample > before.first_sample


def test_hostile_input_cannot_grow_a_station() -> None:
    """Thousands of records at random times hold no more than the wait, with and without ready components."""
    chance = random.Random(1)
    station = Station(KEY)
    most = 0
    for _ in range(5000):
        start_s = chance.uniform(-200, 50)
        station.add(record(chance.choice("ZNE"), start_s, noise(chance.randint(1, 100))), EPOCH_NS)
        station.ready()
        pending_s = sum(one.pending_ns for one in station.components.values()) / 1e9
        columns = sum(len(one.columns) for one in station.components.values())
        intervals = sum(len(one.delivered) for one in station.components.values())
        most = max(most, columns + intervals)
        assert pending_s < 3 * 8
    assert most < 1500


def test_an_hour_at_speed_stays_flat() -> None:
    """An hour of one-second records leaves no more behind than a minute."""
    station = Station(KEY)
    sizes_seen = []
    samples = noise(100)
    for second in range(3600):
        for letter in "ZNE":
            station.add(record(letter, float(second), samples), EPOCH_NS + second * SECOND_NS)
        station.ready()
        parts = station.components.values()
        sizes_seen.append(sum(len(one.columns) + len(one.delivered) + len(one.pending) for one in parts))
    assert max(sizes_seen[60:]) <= max(sizes_seen[:60])
