"""Are the picks of the GPU engine those of the processor? On recorded and on synthetic stations.

    PYTHONPATH=. python3 benchmarks/engine_gpu_parity.py FILE_OR_FOLDER ... [--bundle models/small] [--seconds 7200]
    PYTHONPATH=. python3 benchmarks/engine_gpu_parity.py --write OUT.npz FILE_OR_FOLDER ...
    PYTHONPATH=. python3 benchmarks/engine_gpu_parity.py --emulated FILE_OR_FOLDER ...

Each miniSEED file (100 Hz) is a station or more, its last so many seconds a stream. Reading them takes pymseed and its
cffi; a machine with a GPU may have neither. So the second form writes the streams into one file where they are, and the
first takes it in their place: an `.npz` with samples (B, 3, N), valid (B, 3, N) and reset (B, chunks). The GPU machine
then needs onnxruntime-gpu, numpy and what `export.signals` and the bundle want, but not the daemon's packages.

The engine "cpu" in fp32 goes through the streams in one batch, and the slots of the engine "cuda" in changing ones,
whose stations wait for each other and change slots: as the daemon runs them (TF32, CUDA graphs), without CUDA graphs,
and without TF32 (recorded stations with the first alone, unless told). Every pick must be matched within 10 ms,
probabilities within 0.02; what is not is listed. `--emulated` needs no GPU: the processor goes through a graph whose
products are rounded as TF32 rounds them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import look
from numpy.typing import NDArray

from export.signals import Stream, synthetic_stream
from picker.bundle import Bundle, load_bundle
from picker.cuda_model import open_cuda, open_model
from picker.decision import decide
from picker.device_buffer import Place
from picker.device_slots import DeviceModel
from picker.pick import Pick
from picker.runtime import onnxruntime
from picker.spec import PickerSpec
from picker.stepper import OnnxStepper

AS_THE_DAEMON = "TF32, CUDA graph"
TOLERANCE, PICK_SAMPLES = 0.02, 1.0
REGROUP_CHUNKS = 16
CPU = "CPUExecutionProvider"
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """A pick that one side alone has."""

    row: int
    pick: Pick
    only_in: str
    other_probability: float
    """What the other side gave within 10 ms of it."""

    def line(self, spec: PickerSpec) -> str:
        """For the report."""
        time_s, threshold = self.pick.sample / spec.sampling_rate_hz, spec.thresholds[self.pick.phase]
        return (
            f"- row {self.row}, {self.pick.phase} at {time_s:.2f} s, probability {self.pick.probability:.4f} on the "
            f"{self.only_in} alone; the other gave {self.other_probability:.4f} there, the threshold is {threshold:g}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and keep the report; exit status 1 where a pick or a probability differs too much."""
    options = _parser().parse_args(arguments)
    bundle = load_bundle(options.bundle)
    if options.write:
        return written(options.write, recorded(options.paths, options.seconds, bundle.spec.chunk_samples))
    streams = {"synthetic": synthetic_stream(options.rows, options.synthetic_seconds, bundle.spec.chunk_samples)}
    if options.paths:
        streams["recorded"] = recorded(options.paths, options.seconds, bundle.spec.chunk_samples)
    parts, figures, failed = [], dict[str, str](), False
    expected = {name: on_processor(bundle, stream) for name, stream in streams.items()}
    for title, through in engines(bundle, options.quick, options.emulated).items():
        for name, stream in streams.items():
            if name == "recorded" and not options.emulated and title not in options.recorded_on:
                continue
            began = time.perf_counter()
            try:
                found = through(stream)
            except Exception as error:
                parts.append(f"## {title}, {name}\n\nfailed: {type(error).__name__}: {str(error)[:300]}")
                failed = True
                continue
            text, values, differs = compared(bundle.spec, expected[name], found)
            parts.append(f"## {title}, {name}\n\n{text} It took {time.perf_counter() - began:.0f} s.")
            slug = f"{title} {name}".replace(", ", "_").replace(" ", "_").replace(".", "_")
            figures |= {f"{key}_{slug}": value for key, value in values.items()}
            failed |= differs
    machine = look(("onnxruntime", "onnxruntime-gpu", "numpy"), None)
    about = [*machine.lines(), f"- bundle: {bundle.label}", f"- rows and chunks: {_sizes(streams)}"]
    figures["engine_parity"] = "failed" if failed else "holds"
    closing = "\n".join(["```", *(f"{key}: {value}" for key, value in figures.items()), "```"])
    text = "\n\n".join(["# Picks of the GPU engine against the processor", "\n".join(about), *parts, closing]) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    return int(failed)


def engines(bundle: Bundle, quick: bool, emulated: bool) -> dict[str, Callable[[Stream], Probabilities]]:
    """Each way through the graph; ``quick`` runs the same slots on the processor."""

    def opened(cuda_graph: bool, tf32: bool) -> Callable[[Stream], Probabilities]:
        if quick:
            return lambda stream: on_slots(open_model(bundle, onnxruntime(), Place(), CPU, cuda_graph), stream)
        return lambda stream: on_slots(open_cuda(bundle, cuda_graph=cuda_graph, tf32=tf32), stream)

    if emulated:
        return {"TF32 emulated": partial(through_rounded, bundle)}
    return {AS_THE_DAEMON: opened(True, True), "TF32": opened(False, True), "fp32, CUDA graph": opened(True, False)}


def through_rounded(bundle: Bundle, stream: Stream) -> Probabilities:
    """The engine "cpu" with products in TF32."""
    from tf32 import rounded  # which needs the package onnx

    with TemporaryDirectory() as folder:
        return on_processor(rounded(bundle, Path(folder)), stream)


def written(path: Path, stream: Stream) -> int:
    """Keep the streams for a machine that cannot read miniSEED; exit status 0."""
    np.savez_compressed(path, samples=stream.samples, valid=stream.valid, reset=stream.reset)
    stations, chunks = stream.reset.shape
    print(f"{path}: {stations} stations of {chunks} chunks, {path.stat().st_size / 2**20:.1f} MiB")
    return 0


def recorded(paths: Sequence[Path], seconds: float, chunk_samples: int) -> Stream:
    """All stations of the files and folders, one row each, of equal length."""
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    if not files:
        raise SystemExit("no files: name miniSEED or .npz files, or folders of them")
    streams = []
    for file in files:
        if file.suffix == ".npz":
            with np.load(file) as held:
                streams.append(Stream(held["samples"], held["valid"], held["reset"]))
            continue
        from export.records import recorded_stream  # pymseed reads miniSEED alone

        streams.append(recorded_stream([file], seconds, chunk_samples))
    chunks = min(stream.reset.shape[1] for stream in streams)
    count = chunks * chunk_samples
    cut = [Stream(s.samples[..., -count:], s.valid[..., -count:], s.reset[:, -chunks:]) for s in streams]
    return Stream(*(np.concatenate(part) for part in zip(*cut, strict=True)))


def on_processor(bundle: Bundle, stream: Stream) -> Probabilities:
    """The engine "cpu": all stations in one batch, for rows do not know of each other."""
    stepper, out = OnnxStepper(bundle, threads=4), np.empty_like(stream.samples)
    state = stepper.fresh_state(len(out))
    for k in range(stream.reset.shape[1]):
        here = slice(k * stepper.spec.chunk_samples, (k + 1) * stepper.spec.chunk_samples)
        samples, valid = np.ascontiguousarray(stream.samples[..., here]), np.ascontiguousarray(stream.valid[..., here])
        out[..., here], state = stepper.step(samples, valid, np.ascontiguousarray(stream.reset[:, k]), state)
    return out


def on_slots(model: DeviceModel, stream: Stream, seed: int = 0) -> Probabilities:
    """The slots of a device: batches change, so that stations wait for others, and some move to other slots."""
    random, out, chunk = np.random.default_rng(seed), np.empty_like(stream.samples), model.spec.chunk_samples
    stations, place = len(out), np.arange(len(out))
    slots = model.slots(stations)
    slots.clear(place)
    batches = [np.arange(stations)]
    for k in range(stream.reset.shape[1]):
        if k % REGROUP_CHUNKS == 0:
            batches = np.array_split(random.permutation(stations), random.integers(1, min(stations, 3) + 1))
        if k % (16 * REGROUP_CHUNKS) == 0:  # some leave: those that stay move to the first slots, and all come back
            state, moved = slots.read(place), random.permutation(stations)
            slots.resize(2 * stations, np.arange(0))
            order = np.argsort(moved)
            slots.write(moved[order], [tensor[order] for tensor in state])
            place = moved
        here = slice(k * chunk, (k + 1) * chunk)
        for batch in batches:
            batch = batch[np.argsort(place[batch])]
            samples, valid = stream.samples[batch][..., here], stream.valid[batch][..., here]
            out[batch, :, here] = slots.step(
                place[batch], samples, valid, stream.reset[batch, k], whole=len(batch) == stations
            )
    return out


def compared(spec: PickerSpec, expected: Probabilities, found: Probabilities) -> tuple[str, dict[str, str], bool]:
    """What to say, the figures, and whether it is too much."""
    distance = np.abs(expected - found)
    picks, differences = 0, list[Difference]()
    for row in range(len(expected)):
        sides = {"processor": expected[row], "GPU": found[row]}
        decided = {side: decide(spec, values) for side, values in sides.items()}
        picks += len(decided["processor"])
        for here, there in (("processor", "GPU"), ("GPU", "processor")):
            differences += [
                Difference(row, pick, here, _near(spec, sides[there], pick))
                for pick in decided[here]
                if not any(
                    o.phase == pick.phase and abs(o.sample - pick.sample) <= PICK_SAMPLES for o in decided[there]
                )
            ]
    largest = float(distance.max())
    text = (
        f"{len(expected)} stations, {picks} picks on the processor, {len(differences)} on one side alone; largest "
        f"difference of probability {largest:.2e}, 99.9 % within {np.percentile(distance, 99.9):.1e}."
    )
    listed = "\n\n" + "\n".join(difference.line(spec) for difference in differences) + "\n\n" if differences else ""
    values = {"picks": str(picks), "picks_unmatched": str(len(differences)), "largest_difference": f"{largest:.2e}"}
    return text + listed, values, bool(differences) or not largest <= TOLERANCE


def _near(spec: PickerSpec, probabilities: Probabilities, pick: Pick) -> float:
    """The greatest probability within 10 ms of a pick; a pick's sample is that of the ground, the output is later."""
    centre = round(pick.sample) + spec.second_look_samples.get(pick.phase, 0)
    window = probabilities[spec.phases.index(pick.phase), max(0, centre - 1) : centre + 2]
    return float(window.max(initial=0.0))


def _sizes(streams: dict[str, Stream]) -> str:
    return ", ".join(f"{name} {s.reset.shape[0]} x {s.reset.shape[1]}" for name, s in streams.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Picks of the GPU engine against the processor.")
    parser.add_argument("paths", nargs="*", type=Path, help="miniSEED or .npz files, or folders of them")
    parser.add_argument("--bundle", type=Path, default=Path("models/small"))
    parser.add_argument("--seconds", type=float, default=7200.0, help="of each miniSEED file, its last so many (7200)")
    parser.add_argument("--rows", type=int, default=64, help="synthetic stations (64)")
    parser.add_argument("--synthetic-seconds", type=float, default=600.0, help="of each of them (600)")
    parser.add_argument(
        "--recorded-on", nargs="+", default=[AS_THE_DAEMON], metavar="TITLE", help="which take the recorded stations"
    )
    parser.add_argument("--write", type=Path, metavar="OUT.npz", help="keep the streams of the files, compare nothing")
    parser.add_argument("--emulated", action="store_true", help="TF32 on the processor: what it does to picks")
    parser.add_argument("--quick", action="store_true", help="run the slots on the processor: is the script whole?")
    parser.add_argument("--out", type=Path, help="file for the report as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
