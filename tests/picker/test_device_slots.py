"""Slots on a device (here the processor's memory): ready rows go on, the others stay, and no buffer is mistaken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from picker.bundle import load_bundle
from picker.cuda_model import open_model
from picker.device_buffer import Place
from picker.device_segment import Segment, bucket_of
from picker.device_slots import DeviceModel
from picker.runtime import onnxruntime
from picker.selection import kept_tensor, new_tensor, old_tensor, ready_shapes, selection_graph
from picker.slots import HostSlots
from picker.spec import PickerSpec, StateTensor
from picker.stepper import OnnxStepper

CPU = "CPUExecutionProvider"
SMALL = Path(__file__).parents[2] / "models" / "small"


@pytest.fixture
def model() -> DeviceModel:
    """The bundle that is shipped, whose state has tensors of several shapes."""
    return open_model(load_bundle(SMALL), onnxruntime(), Place(), CPU, cuda_graph=True)


def given(random: np.random.Generator, rows: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    samples = (random.standard_normal((rows, 3, 64)) * 1e3).astype(np.float32)
    return samples, random.random(samples.shape) < 0.98, random.random(rows) < 0.05


def test_the_selection_takes_new_rows_where_ready_and_leaves_the_others() -> None:
    """Every shape and dtype a state may have, values that are no numbers included; old and kept are one buffer."""
    spec = PickerSpec(
        name="t",
        lookahead_samples=0,
        state=(
            StateTensor(name="scalar", shape=()),
            StateTensor(name="half", shape=(5,), dtype="float16"),
            StateTensor(name="memory", shape=(2, 3, 4)),
            StateTensor(name="exact", shape=(2, 3, 4), dtype="float64"),
        ),
    )
    runtime, random, ready = onnxruntime(), np.random.default_rng(0), np.array([True, False, True, False, False])
    session = runtime.InferenceSession(selection_graph(spec), providers=[CPU])
    binding, kept, expected = session.io_binding(), [], []
    for name, shape in ready_shapes(spec).items():
        binding.bind_cpu_input(name, ready.reshape(5, *shape))
    for tensor in spec.state:
        old, new = (random.standard_normal((5, *tensor.shape)).astype(tensor.dtype) for _ in range(2))
        old[0], new[1], old[3] = math.nan, math.inf, math.nan
        expected.append(np.where(ready.reshape(5, *[1] * len(tensor.shape)), new, old))
        kept.append(runtime.OrtValue.ortvalue_from_numpy(old.copy()))
        binding.bind_ortvalue_input(old_tensor(tensor.name), kept[-1])
        binding.bind_cpu_input(new_tensor(tensor.name), new)
        binding.bind_ortvalue_output(kept_tensor(tensor.name), kept[-1])
    for _ in range(2):  # to capture it, ONNX Runtime makes it more than once
        session.run_with_iobinding(binding)
        for value, wanted in zip(kept, expected, strict=True):
            np.testing.assert_array_equal(value.numpy(), wanted)


@pytest.mark.parametrize("segment", [8192, 8])
def test_a_real_network_steps_any_rows_as_the_host_does(model: DeviceModel, segment: int) -> None:
    """Rows that were not in a call go on from where they were; slots are cleared, moved, read and written."""
    model = replace(model, segment=segment)
    random, stepper = np.random.default_rng(1), OnnxStepper(load_bundle(SMALL))
    device, host = model.slots(20), HostSlots(stepper, 20)
    device.clear(np.arange(20))
    for index in range(40):
        whole = index % 4 == 3
        rows = np.arange(20) if whole else np.sort(random.permutation(20)[: int(random.integers(1, 20))])
        chunk, valid, reset = given(random, len(rows))
        found = device.step(rows, chunk, valid, reset, whole)
        np.testing.assert_allclose(found, host.step(rows, chunk, valid, reset, whole), atol=1e-5)
        if index % 10 == 9:
            moved = random.permutation(20)
            for slots in (device, host):
                slots.clear(np.sort(moved[:2]))
                slots.resize((40, 20)[index % 20 == 19], moved)
                slots.write(np.sort(moved[2:4]), slots.read(np.sort(moved[4:6])))
    for mine, theirs in zip(device.read(np.arange(20)), host.read(np.arange(20)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(theirs).max())))


def test_a_step_that_fails_leaves_the_states(model: DeviceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step writes the other set only: made again, it answers as if nothing had happened."""
    random, slots, rows = np.random.default_rng(2), model.slots(4), np.arange(4)
    slots.step(rows, *given(random, 4), whole=True)
    before, call = slots.read(rows), given(random, 4)

    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    for rest in (rows, rows[:2]):
        with monkeypatch.context() as patch:
            patch.setattr(type(model.step), "run_with_iobinding", fails)
            with pytest.raises(RuntimeError, match="out of memory"):
                slots.step(rest, *(part[: len(rest)] for part in call), whole=len(rest) == 4)
        for tensor, was in zip(slots.read(rows), before, strict=True):
            np.testing.assert_array_equal(tensor, was)


class Watched:
    """A session's I/O binding that notes what is bound to which address."""

    def __init__(self, session: Any) -> None:
        self.session, self.inputs, self.outputs = session, list[dict[str, int]](), list[dict[str, int]]()

    def io_binding(self) -> Any:
        """See InferenceSession."""
        binding, given, found = self.session.io_binding(), dict[str, int](), dict[str, int]()
        self.inputs.append(given)
        self.outputs.append(found)
        for kind, noted in (("input", given), ("output", found)):
            bind = getattr(binding, f"bind_{kind}")

            def noting(name: str, *rest: Any, bind: Any = bind, noted: dict[str, int] = noted) -> None:
                noted[name] = rest[-1]
                bind(name, *rest)

            setattr(binding, f"bind_{kind}", noting)
        return binding

    def run_with_iobinding(self, *arguments: Any) -> None:
        """See InferenceSession."""
        self.session.run_with_iobinding(*arguments)


def test_no_step_reads_what_it_writes_and_no_number_of_a_graph_comes_twice(model: DeviceModel) -> None:
    """The two sets take turns; a graph captured on some addresses is never replayed for others."""
    numbers: list[int] = []
    watched = Watched(model.step)

    def numbered() -> Any:
        numbers.append(next(model.graphs))
        return model.runtime.RunOptions()

    steps = replace(model, step=watched)
    object.__setattr__(steps, "run_options", numbered)
    for slots in (steps.slots(8), steps.slots(40)):
        for count in (3, 8):
            slots.step(np.arange(count), *given(np.random.default_rng(3), count), whole=count == 8)
        slots.resize(80, np.arange(8))
        slots.step(np.arange(40), *given(np.random.default_rng(3), 40), whole=False)
    assert len(numbers) == len(set(numbers)) == 4 * 4, "two buckets of each, two turns of step and selection"
    for read, written in zip(watched.inputs, watched.outputs, strict=True):
        assert not set(read.values()) & set(written.values())
    pairs = [(watched.inputs[k], watched.outputs[k + 1]) for k in range(0, 8, 2)]
    for first, second in pairs:
        assert [first[f"state.{t.name}"] for t in model.spec.state] == [
            second[f"next.{t.name}"] for t in model.spec.state
        ], "what the first reads the second writes"


def test_buckets_double_from_sixteen(model: DeviceModel) -> None:
    """So there are few of them, however many stations come."""
    assert [bucket_of(n) for n in (1, 16, 17, 64, 65, 5000)] == [16, 16, 32, 64, 128, 8192]
    segment = Segment(model, 256)
    for last in (0, 15, 16, 30, 199):
        segment.step(np.array([last]), *given(np.random.default_rng(last), 1))
    assert sorted(segment._buckets) == [16, 32, 256]


def test_a_segment_of_which_nothing_moves_stays_where_it_is(model: DeviceModel) -> None:
    """More slots are further segments: the states of full ones are not carried over the bus."""
    slots = replace(model, segment=32).slots(48)
    kept, partial = slots._segments
    assert [segment.size for segment in slots._segments] == [32, 16]
    slots.resize(96, np.arange(48))
    assert [segment.size for segment in slots._segments] == [32, 32, 32]
    assert slots._segments[0] is kept
    assert partial not in slots._segments
    slots.resize(48, np.arange(1, 20))
    assert kept not in slots._segments


def test_segments_go_on_together_or_not_at_all(model: DeviceModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two fails: the first has not gone on either."""
    random, slots, rows = np.random.default_rng(5), replace(model, segment=16).slots(32), np.arange(32)
    slots.step(rows, *given(random, 32), whole=True)
    before = slots.read(rows)

    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(slots._segments[1], "step", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        slots.step(rows, *given(random, 32), whole=True)
    for tensor, was in zip(slots.read(rows), before, strict=True):
        np.testing.assert_array_equal(tensor, was)
