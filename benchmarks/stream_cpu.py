"""How many stations of 3 x 100 Hz does ONE core serve in real time, and how many would PhaseNet?

    python benchmarks/stream_cpu.py [BUNDLE] [--phasenet FILE.onnx | --ours-only]

Three contenders, pinned to one core, take turns in rounds: the step graph of the bundle with its states carried; the
same through the daemon's engine, which gathers and scatters states; and SeisBench's PhaseNet re-run over its whole
window every 0.64 s. Each is quoted at its best batch. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from contender import Contender, Rerunning, Serving, Stepping
from machine import load, look, pin
from phasenet import PhaseNet, build_apart
from report import Findings, bars, markdown
from timing import Rounds, time_calls
from waveforms import Waveforms

from picker.bundle import Bundle, load_bundle
from picker.errors import OnsetError
from picker.stepper import OnnxStepper

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DISTRIBUTIONS = ("numpy", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the report. Exit status 0, or 2 where bundle, PhaseNet file or core is not to be had."""
    options = _parser().parse_args(arguments)
    try:
        return _measure(options)
    except (OnsetError, ValueError, RuntimeError) as error:
        _say(f"stream_cpu: {error}")
        return 2


def _measure(options: argparse.Namespace) -> int:
    bundle = load_bundle(options.bundle)
    phasenet = None if options.ours_only else _phasenet(options.phasenet)
    machine = look(DISTRIBUTIONS, pin(options.core))
    before = load()
    contenders = _contenders(bundle, phasenet)
    results = _rounds(contenders, options)
    rerunning = contenders[-1] if isinstance(contenders[-1], Rerunning) else None
    findings = Findings(
        machine=machine,
        name=bundle.spec.name,
        bundle=f"{bundle.label} ({bundle.spec.state_bytes / 1e3:.0f} kB of state a station)",
        results=results,
        phasenet=rerunning.name if rerunning else None,
        phasenet_origin=_origin(phasenet),
        normalization_s=rerunning.normalization_s if rerunning else {},
        loads=(before, load()),
        command=_command(options),
    )
    text = markdown(findings)
    out: Path = options.out or RESULTS / f"stream_cpu_{machine.slug}_{machine.started:%Y-%m-%d}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    for key, value in bars(findings).items():
        print(f"{key}: {value}")
    _say(f"written to {out}")
    return 0


def _phasenet(path: Path | None) -> PhaseNet | None:
    if path is not None:
        if not path.is_file():
            raise RuntimeError(f"{path}: no such file; write it with `python benchmarks/phasenet.py {path}`")
        return PhaseNet(path)
    _say("exporting PhaseNet ...")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return PhaseNet(build_apart(Path(folder)))
        except RuntimeError as error:
            _say(
                f"PhaseNet cannot be built here ({error}), so ours is measured alone. Install seisbench, or "
                "run `python benchmarks/phasenet.py FILE.onnx` where it is installed and give --phasenet FILE.onnx here"
            )
    return None


def _origin(phasenet: PhaseNet | None) -> str:
    if phasenet is None:
        return "not measured"
    made_with = ", ".join(f"{name} {number}" for name, number in sorted(phasenet.origin.items()))
    return (
        f"windows of {phasenet.window_samples} samples, random weights, exported with {made_with or 'unknown versions'}"
    )


def _contenders(bundle: Bundle, phasenet: PhaseNet | None) -> list[Contender]:
    waveforms = Waveforms(bundle.spec.chunk_samples)
    ours: list[Contender] = [
        Stepping(OnnxStepper(bundle, threads=1), waveforms),
        Serving(OnnxStepper(bundle, threads=1), waveforms),
    ]
    return ours if phasenet is None else [*ours, Rerunning(phasenet, waveforms)]


def _rounds(contenders: Sequence[Contender], options: argparse.Namespace) -> dict[str, Rounds]:
    results: dict[str, Rounds] = {contender.name: {batch: [] for batch in options.batches} for contender in contenders}
    started = time.monotonic()
    for number in range(options.rounds):
        for batch in options.batches:
            found = []
            for contender in contenders:
                timing = time_calls(contender, batch, options.budget_s, options.calls)
                results[contender.name][batch].append(timing)
                found.append(f"{contender.name} {timing.stations('wall'):.0f}")
            place = f"{time.monotonic() - started:4.0f} s  round {number + 1}/{options.rounds}  batch {batch:3d}"
            _say(f"{place}: {', '.join(found)} stations")
    return results


def _command(options: argparse.Namespace) -> str:
    """The command with what is not at its default; folders of files are left out, they mean nothing elsewhere."""
    words = ["python benchmarks/stream_cpu.py"]
    for key, usual in vars(_parser().parse_args([])).items():
        value = getattr(options, key)
        if value == usual or key == "out":
            continue
        if key == "bundle":
            words.append(value.name)
        elif key == "ours_only":
            words.append("--ours-only")
        else:
            parts = value if isinstance(value, list) else [value.name if isinstance(value, Path) else value]
            words += [f"--{key.replace('_', '-')}", *map(str, parts)]
    return " ".join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Stations of 3 x 100 Hz that one core serves in real time, beside SeisBench PhaseNet.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "models" / "small", help="bundle folder")
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument("--phasenet", type=Path, help="PhaseNet as phasenet.py writes it; without it, it is built now")
    peer.add_argument("--ours-only", action="store_true", help="do not measure PhaseNet")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="stations a call")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all contenders at all batches")
    parser.add_argument(
        "--budget-s", type=float, default=0.6, help="least seconds of calls a round, contender and batch"
    )
    parser.add_argument("--calls", type=int, default=5, help="least calls a round, contender and batch")
    parser.add_argument("--core", type=int, help="core to run on; without it, the last one allowed")
    parser.add_argument(
        "--out", type=Path, help="results file; without it, one in results/ named after machine and day"
    )
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
