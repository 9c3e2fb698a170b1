"""Proof of parity: the exported graph, streamed chunk by chunk, against the float64 network over the whole stream."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.signals import Stream, synthetic_stream
from picker.decision import decide
from picker.errors import BundleError
from picker.model.picker import Picker, PickerState
from picker.pick import Pick
from picker.spec import PickerSpec
from picker.stepper import Stepper

TOLERANCE = 1e-3
"""Largest difference of probability that passes, of a graph in float32."""
TOLERANCES = {"fp32": TOLERANCE, "fp16": 1e-2, "bf16": 2e-2}
"""The same by precision: the products with weights are rounded to 11 bits in fp16, and to 8 in bf16."""
PRECISION_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PICK_TOLERANCE_SAMPLES = 1.0
"""A pick is the same if it lies within one sample (10 ms)."""
CASES = ((3, 600.0), (1, 120.0), (64, 60.0), (256, 20.48))
"""Rows and seconds of each comparison; many rows hold quiet, events, saturation, gaps, NaN and resets."""
REGROUP_CHUNKS = 16
"""How long a batch stays as it is: about 10 s."""

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison: how far apart, and whether the picks are the same."""

    rows: int
    seconds: float
    largest_difference: float
    percentile_99_9: float
    picks: int
    picks_differing: int
    tolerance: float = TOLERANCE
    stream: str = "synthetic"

    @property
    def passed(self) -> bool:
        """Within tolerance, and the same picks."""
        return self.largest_difference <= self.tolerance and self.picks_differing == 0

    def __str__(self) -> str:
        of = "" if self.stream == "synthetic" else f" of {self.stream}"
        return (
            f"{self.rows} {'station' if self.rows == 1 else 'stations'} x {self.seconds:.0f} s{of}: "
            f"largest difference {self.largest_difference:.1e}, {self.picks_differing} of {self.picks} picks differ"
        )


def reference(model: Picker, stream: Stream) -> NDArray[np.float64]:
    """Probabilities (B, 3, N) of the float64 network; between resets the whole stretch goes through at once."""
    exact, chunk = copy.deepcopy(model).double().eval(), model.config.chunk_samples
    out = np.empty((stream.samples.shape[0], 3, stream.samples.shape[2]))
    with torch.no_grad():
        for row in range(len(out)):
            borders = [0, *(int(k) for k in np.flatnonzero(stream.reset[row]) if k), stream.reset.shape[1]]
            for first, last in pairwise(borders):
                here = slice(first * chunk, last * chunk)
                samples = torch.from_numpy(stream.samples[row : row + 1, :, here]).double()
                fresh: PickerState = exact.initial_state(1)
                got, _ = exact.probabilities(
                    samples, torch.from_numpy(stream.valid[row : row + 1, :, here]), None, fresh
                )
                out[row, :, here] = got[0].numpy()
    return out


def streamed(stepper: Stepper, stream: Stream, seed: int = 0) -> NDArray[np.float32]:
    """Probabilities (B, 3, N) of the engine, one chunk at a time.

    Stations join and leave: every REGROUP_CHUNKS the rows are split into other batches, in another order.
    """
    chunk, out, random = stepper.spec.chunk_samples, np.empty_like(stream.samples), np.random.default_rng(seed)
    state, batches = stepper.fresh_state(len(out)), [np.arange(len(out))]
    for k in range(stream.reset.shape[1]):
        here = slice(k * chunk, (k + 1) * chunk)
        if k % REGROUP_CHUNKS == 0:
            batches = np.array_split(random.permutation(len(out)), random.integers(1, min(len(out), 3) + 1))
        for rows in batches:
            samples = np.ascontiguousarray(stream.samples[rows, :, here])
            valid = np.ascontiguousarray(stream.valid[rows, :, here])
            before = tuple(tensor[rows] for tensor in state)
            out[rows, :, here], after = stepper.step(samples, valid, stream.reset[rows, k], before)
            for tensor, part in zip(state, after, strict=True):
                tensor[rows] = part
    return out


def differing(
    spec: PickerSpec, expected: NDArray[Any], found: NDArray[Any], tolerance: float = TOLERANCE
) -> tuple[int, int]:
    """Number of picks expected in all rows, and of picks that have no counterpart on the other side.

    Picks are compared as the network gives them: a calibration moves none, and thresholds are for raw probabilities.
    """
    total = wrong = 0
    raw = replace(spec, calibration={})
    for row in range(len(expected)):
        here, there = (decide(raw, side[row].astype(np.float32)) for side in (expected, found))
        total += len(here)
        wrong += sum(not _has(spec, pick, there, tolerance) for pick in here)
        wrong += sum(not _has(spec, pick, here, tolerance) for pick in there)
    return total, wrong


def _has(spec: PickerSpec, pick: Pick, others: list[Pick], tolerance: float) -> bool:
    """Whether the pick is among the others; one whose probability only just reaches the threshold need not be."""
    if pick.probability - spec.thresholds[pick.phase] <= tolerance:
        return True
    return any(o.phase == pick.phase and abs(o.sample - pick.sample) <= PICK_TOLERANCE_SAMPLES for o in others)


def compare(model: Picker, stepper: Stepper, rows: int, seconds: float, seed: int = 0) -> Comparison:
    """Compare engine and network on a synthetic stream."""
    return compare_on(model, stepper, synthetic_stream(rows, seconds, stepper.spec.chunk_samples, seed), seconds)


def compare_on(
    model: Picker, stepper: Stepper, stream: Stream, seconds: float, name: str = "synthetic", seed: int = 0
) -> Comparison:
    """Compare engine and network on any stream; the tolerance is that of the graph's precision."""
    expected, found = reference(model, stream), streamed(stepper, stream, seed)
    distance, tolerance = np.abs(expected - found), TOLERANCES[precision_of(stepper.spec)]
    picks, wrong = differing(stepper.spec, expected, found, tolerance)
    return Comparison(
        rows=len(stream.samples),
        seconds=seconds,
        largest_difference=float(distance.max()),
        percentile_99_9=float(np.percentile(distance, 99.9)),
        picks=picks,
        picks_differing=wrong,
        tolerance=tolerance,
        stream=name,
    )


def precision_of(spec: PickerSpec) -> str:
    """Precision of a graph's products with weights."""
    return str(spec.provenance.get("precision", "fp32"))


def prove(
    model: Picker,
    stepper: Stepper,
    progress: Progress = lambda line: None,
    *,
    digest: str | None = None,
    engine: str = "ONNX Runtime CPU",
    recorded: Sequence[tuple[str, Stream]] = (),
) -> dict[str, Any]:
    """The content of ``parity.json``: every case, the tolerances and the verdict.

    ``digest`` is that of the bundle which is proved, ``recorded`` real streams with their names.
    """
    comparisons, chunk_s = [], stepper.spec.chunk_samples / stepper.spec.sampling_rate_hz
    for rows, seconds in CASES:
        comparisons.append(comparison := compare(model, stepper, rows, seconds, seed=rows))
        progress(f"parity, {comparison}")
    for name, stream in recorded:
        comparison = compare_on(model, stepper, stream, stream.reset.shape[1] * chunk_s, name)
        comparisons.append(comparison)
        progress(f"parity, {comparison}")
    precision = precision_of(stepper.spec)
    return {
        "digest": digest,
        "reference": "PyTorch float64, whole stream at once",
        "engine": f"{engine} {PRECISION_NAMES[precision]}, chunk by chunk, in changing batches",
        "tolerance": TOLERANCES[precision],
        "pick_tolerance_samples": PICK_TOLERANCE_SAMPLES,
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "passed": all(comparison.passed for comparison in comparisons),
    }


def require(proof: dict[str, Any], refusal: str) -> None:
    """Raise BundleError with the numbers of every comparison unless the proof passed."""
    if not proof["passed"]:
        numbers = "; ".join(str(Comparison(**values)) for values in proof["comparisons"])
        raise BundleError(
            f"{refusal}: graph and network differ ({numbers}; allowed {proof['tolerance']:.0e} and no other pick)"
        )
