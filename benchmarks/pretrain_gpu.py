"""How fast and how lean is contrastive pretraining beside Hugging Face's wav2vec 2.0 at SeisLM's size?

    python benchmarks/pretrain_gpu.py [--batches 256 512 1024] [--peer-batches 8 16 28 56 112]

Windows of 3 x 4096 samples, bfloat16 autocast, AdamW (fused), on one GPU. Each trains at the batch that suits it best;
the figures are windows/s, and peak memory a window at that batch. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from gpu import MIB, device_of, keep, lines, machine_and_gpu, results_file, synchronize
from tfla_parity import compile_ahead, level_cases
from torch import nn
from wav2vec2_peer import Peer

from picker.model.config import LevelConfig, ModelConfig, preset
from pretrain.data.trace import Trace
from pretrain.kernels import compile_objective, use_kernels
from pretrain.objectives.objective import Objective, Progress, build
from pretrain.selfsupervised.source import DataSettings, DeviceSource

WARM_STEPS, STEPS, TOP = 3, 10, 15
TRACES, TRACE_SAMPLES = 64, 30_000
RATE, CLIP = 1e-3, 1.0


@dataclass(frozen=True)
class Speed:
    """One contender at one batch. ``waited`` is the share of the time of a step that goes to getting its batch."""

    name: str
    batch: int
    step_s: float
    mib_a_window: float
    waited: float
    first_s: float
    """Of the warm-up: compiling."""

    @property
    def windows(self) -> float:
        """Windows a second."""
        return self.batch / self.step_s


class OurStep:
    """A step of our trainer: a batch from the device source, forward, backward, clip, AdamW."""

    def __init__(self, config: ModelConfig, batch: int, samples: int, device: torch.device, compiled: bool) -> None:
        torch.manual_seed(0)
        self.objective: Objective = build("contrastive", config).to(device)
        self.line = use_kernels(self.objective, config, device, True, samples)
        if compiled:
            compile_objective(self.objective)
        groups = [
            {"params": g.parameters, "lr": RATE * g.rate, "weight_decay": 0.01 if g.decay else 0.0}
            for g in self.objective.parameter_groups()
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        settings = DataSettings(pack="", window_samples=samples)
        self.source = DeviceSource(noise_traces(), settings, batch=batch, seed=0, device=device)
        self.generator, self.device, self.index = torch.Generator(device).manual_seed(0), device, 0
        self.waits: list[tuple[float, torch.cuda.Event, torch.cuda.Event]] = []

    def __call__(self) -> None:
        """One step. Nothing in it waits for the GPU."""
        began, events = time.perf_counter(), _events(self.device)
        events[0].record()
        batch = self.source.batch(self.index)
        events[1].record()
        self.waits.append((time.perf_counter() - began, *events))
        progress = Progress(self.index, min(1.0, self.index / 1000))
        with torch.autocast(self.device.type, torch.bfloat16):
            outcome = self.objective(batch, progress, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        (outcome.total / outcome.count.clamp(min=1)).backward()
        nn.utils.clip_grad_norm_(self.objective.parameters(), CLIP)
        self.optimizer.step()
        self.objective.after_step(progress)
        self.index += 1

    def waited_s(self) -> float:
        """Seconds a step: of the host until the batch is enqueued, and of the GPU to cut it; the two may overlap."""
        last = self.waits[-STEPS:]
        gpu = [a.elapsed_time(b) / 1e3 for _, a, b in last] if self.device.type == "cuda" else [0.0]
        return median(host for host, _, _ in last) + median(gpu)


class PeerStep:
    """A step of the peer: waveforms that are already there, forward, backward, clip, AdamW."""

    def __init__(self, batch: int, samples: int, device: torch.device, quick: bool) -> None:
        torch.manual_seed(0)
        self.peer, self.device = Peer(quick).to(device), device
        self.optimizer = torch.optim.AdamW(self.peer.parameters(), lr=RATE, fused=True)
        self.generator = torch.Generator(device).manual_seed(0)
        self.waveform = torch.randn(batch, 3, samples, device=device, generator=self.generator)

    def __call__(self) -> None:
        """One step."""
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.peer(self.waveform, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.peer.parameters(), CLIP)
        self.optimizer.step()

    def waited_s(self) -> float:
        """It waits for nothing."""
        return 0.0


Step = OurStep | PeerStep


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the report."""
    options = _parser().parse_args(arguments)
    warnings.simplefilter("ignore")
    device = device_of(options.quick)
    torch.set_float32_matmul_precision("high")
    samples, config = (1024, _tiny()) if options.quick else (4096, preset(options.preset))
    peers = _sweep("peer", options.peer_batches, lambda batch: PeerStep(batch, samples, device, options.quick))
    if device.type == "cuda":
        _compile_kernels(config, options.batches, samples)
    eager = _sweep("ours", options.batches, lambda batch: OurStep(config, batch, samples, device, False))
    best = _best(eager)
    compiled: list[Speed] = []
    if options.compile:
        compiled = _sweep("ours, compiled", [best.batch], lambda b: OurStep(config, b, samples, device, True))
    ours = _best(eager + compiled)
    facts = _facts(config, samples, device, options.quick)
    profile = (
        _profile(lambda: OurStep(config, ours.batch, samples, device, ours in compiled)) if options.profile else ""
    )
    text = _markdown(peers, eager + compiled, facts, profile)
    machine, gpu = machine_and_gpu()
    text = text.replace("FACTS", "\n".join([*lines(machine, gpu), *facts]))
    keep(options.out or results_file("pretrain_gpu", machine, gpu), text)
    return 0


def _compile_kernels(config: ModelConfig, batches: Sequence[int], samples: int) -> None:
    """All kernels of all batches by several processes: Triton takes one after the other, and each batch has its own."""
    began = time.perf_counter()
    cases = [case for batch in batches for case in level_cases(config, batch, samples, (config.gate,))]
    compile_ahead([case for case in cases if case.dtype == torch.bfloat16])
    _say(f"Triton kernels compiled in {time.perf_counter() - began:.0f} s")


def _sweep(name: str, batches: Sequence[int], make: Callable[[int], Step]) -> list[Speed]:
    """Each batch in turn, until one does not fit."""
    found: list[Speed] = []
    for batch in batches:
        try:
            found.append(_measure(name, batch, make))
        except torch.OutOfMemoryError:
            _say(f"{name}, batch {batch}: out of memory")
            break
        finally:
            _forget()
        last = found[-1]
        _say(f"{name}, batch {batch}: {last.windows:.0f} windows/s, {last.mib_a_window:.1f} MiB a window")
    return found


def _measure(name: str, batch: int, make: Callable[[int], Step]) -> Speed:
    began, step = time.perf_counter(), make(batch)
    for _ in range(WARM_STEPS):
        step()
    synchronize()
    first_s, cuda = time.perf_counter() - began, step.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    marks = [time.perf_counter()]
    start, stop = _events(step.device)
    start.record()
    for _ in range(STEPS):
        step()
    stop.record()
    synchronize()
    marks.append(time.perf_counter())
    step_s = (start.elapsed_time(stop) / 1e3 if cuda else marks[1] - marks[0]) / STEPS
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    return Speed(name, batch, step_s, peak / MIB / batch, step.waited_s() / step_s, first_s)


def _profile(make: Callable[[], OurStep]) -> str:
    """The kernels that take most of our step, from two steps."""
    from torch.profiler import ProfilerActivity, profile

    step = make()
    for _ in range(WARM_STEPS):
        step()
    synchronize()
    activities = [ProfilerActivity.CUDA] if step.device.type == "cuda" else [ProfilerActivity.CPU]
    with profile(activities=activities) as recorded:
        for _ in range(2):
            step()
        synchronize()
    cuda = step.device.type == "cuda"
    events = recorded.key_averages()
    times = {e.key: float(e.self_device_time_total if cuda else e.self_cpu_time_total) for e in events}
    counts = {e.key: e.count for e in events}
    total = sum(times.values()) or 1.0
    rows = ["| kernel | share | ms a step | calls a step |", "|---|---:|---:|---:|"]
    for name, spent in sorted(times.items(), key=lambda item: -item[1])[:TOP]:
        short = name.replace("|", "/")[:90]
        rows.append(f"| `{short}` | {spent / total:.1%} | {spent / 2e3:.2f} | {counts[name] / 2:.0f} |")
    rows.append(f"| all {len(times)} kernels | | {total / 2e3:.2f} | {sum(counts.values()) / 2:.0f} |")
    return "\n".join(rows)


def noise_traces() -> list[Trace]:
    """Coloured noise in place of data: what is in a window does not change what a step costs."""
    random = np.random.default_rng(0)
    traces = []
    for number in range(TRACES):
        white = random.standard_normal((3, TRACE_SAMPLES), dtype=np.float32)
        smooth = (white + np.roll(white, 1, axis=1)) * 100
        flags = np.ones_like(smooth, dtype=bool)
        traces.append(Trace(name=str(number), waveform=smooth, valid=flags, kind="noise", source="noise"))
    return traces


def _best(speeds: list[Speed]) -> Speed:
    return max(speeds, key=lambda speed: speed.windows)


def _facts(config: ModelConfig, samples: int, device: torch.device, quick: bool) -> list[str]:
    objective = build("contrastive", config)
    ours, peer = (sum(p.numel() for p in module.parameters()) for module in (objective, Peer(quick)))
    backbone = sum(p.numel() for p in objective.backbone.parameters())
    return [
        f"- windows: 3 x {samples} samples; bfloat16 autocast, float32 products in tf32; AdamW (fused), clip {CLIP}",
        f"- ours: `{config.name}`, {ours / 1e6:.1f} M parameters, of which {backbone / 1e6:.1f} M in the backbone; "
        + use_kernels(objective, config, device, True, samples),
        f"- peer: transformers' Wav2Vec2ForPreTraining, {peer / 1e6:.1f} M parameters",
    ]


def _markdown(peers: list[Speed], ours: list[Speed], facts: list[str], profile: str) -> str:
    table = [
        "| | batch | windows/s | ms a step | MiB a window | waiting for data | warm-up, s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in [*peers, *ours]:
        table.append(
            f"| {each.name} | {each.batch} | {each.windows:.0f} | {each.step_s * 1e3:.1f} | {each.mib_a_window:.1f} | "
            f"{each.waited:.1%} | {each.first_s:.0f} |"
        )
    best, peer = _best(ours), _best(peers)
    leaner = peer.mib_a_window / best.mib_a_window if best.mib_a_window else float("nan")
    figures = {
        "peer_windows_per_s": f"{peer.windows:.0f}",
        "our_windows_per_s": f"{best.windows:.0f}",
        "peer_mib_a_window": f"{peer.mib_a_window:.1f}",
        "our_mib_a_window": f"{best.mib_a_window:.1f}",
        "windows_per_second_ratio": f"{best.windows / peer.windows:.2f}",
        "memory_a_window_ratio": f"{leaner:.2f}",
        "data_wait_share": f"{best.waited:.4f}",
    }
    parts = [
        "# Contrastive pretraining on one GPU",
        "Peak memory is everything that PyTorch had allocated (weights and moments too), over the batch. Waiting for "
        "data is the host's time to enqueue a batch plus the GPU's to cut it: more than is really waited, for the host "
        "is ahead of the GPU.",
        "FACTS",
        "\n".join(table),
        *([f"## Where our step goes (batch {best.batch})", profile] if profile else []),
        "\n".join(["```", *(f"{key}: {value}" for key, value in figures.items()), "```"]),
    ]
    return "\n\n".join(parts) + "\n"


class _NoEvent:
    """In place of a CUDA event on a processor."""

    def record(self) -> None:
        """Nothing."""


def _events(device: torch.device) -> tuple[torch.cuda.Event, torch.cuda.Event]:
    if device.type != "cuda":
        return _NoEvent(), _NoEvent()  # type: ignore[return-value]
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _tiny() -> ModelConfig:
    levels = tuple(LevelConfig(width=32, heads=1, down_blocks=1, up_blocks=1) for _ in range(2))
    return replace(preset("small"), name="tiny", levels=levels)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Contrastive pretraining on one GPU, beside wav2vec 2.0.")
    parser.add_argument("--preset", default="base", help="our size (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024], help="ours")
    parser.add_argument("--peer-batches", type=int, nargs="+", default=[8, 16, 28, 56, 112], help="the peer's")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="leave the profile out")
    parser.add_argument("--quick", action="store_true", help="try the script on a processor with tiny sizes")
    parser.add_argument("--out", type=Path, help="results file; without it, one in results/ named after GPU and day")
    return parser


if __name__ == "__main__":
    sys.exit(main())
