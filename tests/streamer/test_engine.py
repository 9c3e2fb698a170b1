"""The engine: slots, state, batches; with the tiny bundle, whose state is the last chunk of each station."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import write_tiny_bundle

from picker.bundle import Bundle, load_bundle
from picker.cuda_model import open_model
from picker.device_buffer import Place
from picker.device_slots import DeviceModel
from picker.runtime import onnxruntime
from picker.spec import PickerSpec
from picker.stepper import OnnxStepper, State
from streamer.chunk import Chunk, StationKey
from streamer.engine import Engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module", params=["host", "device", "captured"])
def stepper(bundle: Bundle, request: pytest.FixtureRequest) -> OnnxStepper | DeviceModel:
    """States on the host; where the graph is, as on a GPU; and the same with the options of captured steps."""
    if request.param == "host":
        return OnnxStepper(bundle)
    return open_model(bundle, onnxruntime(), Place(), CPU, cuda_graph=request.param == "captured")


CPU = "CPUExecutionProvider"
Model = OnnxStepper | DeviceModel


def key(number: int) -> StationKey:
    return StationKey("XX", f"S{number:03d}", "", "HH")


def chunk(number: int, index: int, samples: NDArray[np.float32] | None = None, reset: bool | None = None) -> Chunk:
    """Chunk ``index`` of station ``number``; random samples that depend on both, reset at the first."""
    if samples is None:
        samples = np.random.default_rng([number, index]).uniform(0, 1, (3, 64)).astype(np.float32)
    return Chunk(
        station=key(number),
        first_sample=64 * index,
        time_shift_ns=0,
        samples=samples,
        valid=np.ones((3, 64), dtype=np.bool_),
        reset=index == 0 if reset is None else reset,
        data_complete_ns=0,
    )


def stream(stepper: Model, stations: int, steps: int, size: int) -> dict[tuple[int, int], bytes]:
    """Probabilities of each station and step, in calls of ``size`` stations."""
    engine, out = Engine(stepper), {}
    for index in range(steps):
        for start in range(0, stations, size):
            numbers = range(start, min(start + size, stations))
            for number, result in zip(numbers, engine.step([chunk(n, index) for n in numbers]), strict=True):
                out[number, index] = result.tobytes()
    return out


def test_batch_mates_never_change_a_station(stepper: Model) -> None:
    """Calls of 1, 3 and 64 stations give every station the same bits, and what the bundle is known to answer."""
    alone = stream(stepper, 64, 4, 1)
    assert stream(stepper, 64, 4, 3) == alone
    assert stream(stepper, 64, 4, 64) == alone
    assert alone[5, 3] != alone[6, 3]
    answer = np.frombuffer(alone[5, 3], dtype=np.float32).reshape(3, 64)
    np.testing.assert_array_equal(answer[:2], chunk(5, 2).samples[:2])


def test_results_are_in_the_order_of_the_chunks(stepper: Model) -> None:
    """Whatever slots the stations have, and though some are not there in every call."""
    engine = Engine(stepper)
    engine.step([chunk(n, 0) for n in range(10)])
    last = dict.fromkeys(range(10), 0)
    for index, numbers in enumerate(([9, 2, 5], [5], [0, 9, 2], [1, 0], list(range(9, -1, -1)), [4]), 1):
        results = engine.step([chunk(n, index) for n in numbers])
        for number, result in zip(numbers, results, strict=True):
            np.testing.assert_array_equal(result[:2], chunk(number, last[number]).samples[:2])
            last[number] = index


def test_reset_forgets_that_station_only(stepper: Model) -> None:
    """The chunk's reset reaches the graph: fresh state for its row, the others keep theirs."""
    engine = Engine(stepper)
    engine.step([chunk(n, 0) for n in range(3)])
    results = engine.step([chunk(0, 1), chunk(1, 1, reset=True), chunk(2, 1)])
    assert not results[1][:2].any()
    np.testing.assert_array_equal(results[2][:2], chunk(2, 0).samples[:2])


def test_invalid_samples_reach_the_graph_as_such(stepper: Model) -> None:
    """The mask of the chunk is that of the graph."""
    engine, one = Engine(stepper), chunk(0, 0)
    one.valid[:, 10:20] = False
    engine.step([one])
    result = engine.step([chunk(0, 1)])[0]
    assert not result[:2, 10:20].any()
    assert result[:2, 20:].all()


def test_slots_grow_by_doubling_and_keep_their_state(stepper: Model) -> None:
    """Stations join one after the other: capacity 2, 4, 8, 16, and nobody's state is lost."""
    engine, capacities = Engine(stepper, capacity=2), []
    for joined in range(1, 10):
        numbers = range(joined)
        results = engine.step([chunk(n, joined, reset=n == joined - 1) for n in numbers])
        capacities.append(engine.capacity)
        for number in range(joined - 1):
            np.testing.assert_array_equal(results[number][:2], chunk(number, joined - 1).samples[:2])
        assert not results[-1][:2].any()
    assert capacities == [2, 2, 4, 4, 8, 8, 8, 8, 16]


def test_removed_station_gives_its_slot_back(stepper: Model) -> None:
    """The next station takes it, with a fresh state, though its first chunk does not ask for a reset."""
    engine = Engine(stepper, capacity=4)
    engine.step([chunk(n, 0) for n in range(4)])
    engine.remove(key(2))
    engine.remove(key(99))
    assert engine.stations == 3
    results = engine.step([chunk(7, 1, reset=False), chunk(3, 1)])
    assert (engine.capacity, engine.stations) == (4, 4)
    assert not results[0][:2].any()
    np.testing.assert_array_equal(results[1][:2], chunk(3, 0).samples[:2])


def test_one_station_twice_in_a_call_is_refused(stepper: Model) -> None:
    """It would see its own state only once."""
    with pytest.raises(ValueError, match="two chunks of one station"):
        Engine(stepper).step([chunk(0, 0), chunk(0, 1)])
    assert Engine(stepper).step([]) == []


class Spoiled:
    """The tiny bundle, whose probabilities of a row are not a number where its samples begin with -1."""

    def __init__(self, inner: OnnxStepper) -> None:
        self.inner = inner
        self.spec: PickerSpec = inner.spec
        self.fresh_state = inner.fresh_state

    def step(
        self, chunk: NDArray[np.float32], valid: NDArray[np.bool_], reset: NDArray[np.bool_], state: State
    ) -> tuple[NDArray[np.float32], State]:
        """See Stepper."""
        probabilities, after = self.inner.step(chunk, valid, reset, state)
        spoiled = chunk[:, 0, 0] == -1
        probabilities[spoiled, 0, 5] = np.nan
        after[0][spoiled] = np.nan
        return probabilities, after


def test_a_result_that_is_no_number_restarts_that_station_only(bundle: Bundle) -> None:
    """All of its probabilities become NaN, the next step begins from a fresh state; the others keep theirs."""
    engine = Engine(Spoiled(OnnxStepper(bundle)), capacity=4)
    bad = chunk(1, 0).samples.copy()
    bad[0, 0] = -1
    results = engine.step([chunk(0, 0), chunk(1, 0, bad), chunk(2, 0)])
    assert np.isnan(results[1]).all()
    assert np.isfinite(results[0]).all()
    assert engine.counts == {"calls": 1, "steps": 3, "not_finite": 1}
    results = engine.step([chunk(n, 1) for n in range(3)])
    assert not results[1][:2].any()
    np.testing.assert_array_equal(results[2][:2], chunk(2, 0).samples[:2])


def test_a_state_that_is_no_number_is_not_kept(stepper: Model) -> None:
    """Wherever it lies, it is overwritten as soon as it shows: the station's next step is that of a new one."""
    engine = Engine(stepper, capacity=4)
    bad = chunk(1, 0).samples.copy()
    bad[0, 7] = np.nan
    engine.step([chunk(0, 0), chunk(1, 0, bad), chunk(2, 0)])
    results = engine.step([chunk(n, 1) for n in (2, 1)])
    assert np.isnan(results[1]).all()
    np.testing.assert_array_equal(results[0][:2], chunk(2, 0).samples[:2])
    assert engine.counts["not_finite"] == 1
    results = engine.step([chunk(n, 2) for n in range(3)])
    assert not results[1][:2].any()
    np.testing.assert_array_equal(results[2][:2], chunk(2, 1).samples[:2])


def test_slots_are_given_back_when_most_stations_have_left(stepper: Model) -> None:
    """Those that stay keep their state, wherever it moves; the first capacity is never undercut."""
    engine = Engine(stepper, capacity=4)
    engine.step([chunk(n, 0) for n in range(33)])
    assert engine.capacity == 64
    for number in range(30):
        engine.remove(key(number))
    results = engine.step([chunk(n, 1) for n in (32, 30)])
    assert (engine.capacity, engine.stations) == (8, 3)
    for number, result in zip((32, 30), results, strict=True):
        np.testing.assert_array_equal(result[:2], chunk(number, 0).samples[:2])
    np.testing.assert_array_equal(engine.step([chunk(31, 1)])[0][:2], chunk(31, 0).samples[:2])


def test_stations_that_come_pause_and_leave_see_their_own_past_only(stepper: Model) -> None:
    """A thousand calls of random stations, resets, removals and snapshots: what each is told is its last chunk."""
    random, engine, last = np.random.default_rng(7), Engine(stepper, capacity=2), dict[int, NDArray[np.float32]]()
    pool = random.uniform(0, 1, (50, 3, 64)).astype(np.float32)
    for index in range(1000):
        alive = sorted(last) if random.random() < 0.2 else list(range(24))  # all there are, or any
        numbers = [int(n) for n in random.permutation(alive)[: len(alive) if random.random() < 0.2 else 5]]
        resets = [bool(random.random() < 0.05) for _ in numbers]
        samples = [pool[random.integers(50)] for _ in numbers]
        given = [chunk(n, index, x, r) for n, x, r in zip(numbers, samples, resets, strict=True)]
        for number, reset, new, result in zip(numbers, resets, samples, engine.step(given), strict=True):
            expected = np.zeros((3, 64)) if reset or number not in last else last[number]
            np.testing.assert_array_equal(result[:2], expected[:2])
            last[number] = new
        if random.random() < 0.1 and last:
            gone = int(random.choice(sorted(last)))
            engine.remove(key(gone))
            del last[gone]
        if random.random() < 0.01:
            stations, state = engine.saved()
            engine = Engine(stepper, capacity=2)
            engine.restore(stations, state)
