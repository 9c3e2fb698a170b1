"""Measuring one contender in a process of its own, so that what CUDA does not get over takes no other with it."""

from __future__ import annotations

import copy
import gc
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median

import torch
from step_contenders import Contender, OrtContender, TorchContender, reference
from step_graphs import Graph, network
from step_slots import SlotsContender

from picker.model.picker import Picker
from picker.runtime import onnxruntime

CHECKED_STEPS = 2
REPEATS, MOST_S, WARM = 30, 1.5, 5
TOP_KERNELS = 12
NOT_RUN = "not run"
"""What stands in the rows of a contender whose turn never came."""
ORT_ERRORS = 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """One contender on one preset."""

    title: str
    engine: str
    """``ort``, ``slots`` or ``torch``."""
    preset: str
    batches: tuple[int, ...]
    graph: Graph | None = None
    checkpoint: Path | None = None
    cuda_graph: bool = False
    kind: str = "autocast"
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a job gave at one batch; ``failed`` says why where it gave nothing."""

    job: Job
    batch: int
    step_s: float = float("nan")
    least_s: float = float("nan")
    greatest_s: float = float("nan")
    wall_s: float = float("nan")
    difference: float = float("nan")
    """Largest difference of probability to the float32 network, over the first two steps."""
    device_mib: float = float("nan")
    """Device memory in use, weights, buffers, samples and state included."""
    prepared_s: float = float("nan")
    kernels: tuple[tuple[str, int, float], ...] = field(default=())
    """Name, calls a step and ms a step of the longest kernels; for the largest batch."""
    failed: str = ""

    @property
    def reached(self) -> bool:
        """Whether its turn came."""
        return self.failed != NOT_RUN


class Measurement:
    """A job in a process of its own, which imports and builds at once, and touches the device when its turn comes."""

    def __init__(self, job: Job, device: torch.device) -> None:
        context = get_context("spawn")
        self._job, self._turn = job, context.Event()
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_work, args=(job, device, sender, self._turn))
        self._process.start()
        sender.close()

    def rows(self, patience_s: float) -> list[Row]:
        """Its turn: every batch has a row, whatever happens."""
        job, found = self._job, list[Row]()
        self._turn.set()
        deadline = time.monotonic() + patience_s
        for batch in job.batches:
            row = self._received(deadline)
            if not isinstance(row, str):
                found.append(row)
                continue
            found.append(Row(job=job, batch=batch, failed=row))
            found += [Row(job=job, batch=rest, failed="not reached") for rest in job.batches[len(found) :]]
            break
        self._process.join(10)
        self._process.kill()
        return found

    def cancel(self) -> list[Row]:
        """Its turn will not come: every batch has a row that says so."""
        self._process.kill()
        self._process.join()
        return [Row(job=self._job, batch=batch, failed=NOT_RUN) for batch in self._job.batches]

    def _received(self, deadline: float) -> Row | str:
        try:
            if not self._receiver.poll(max(0.0, deadline - time.monotonic())):
                return "took too long"
            answer: Row | str = self._receiver.recv()
            return answer
        except EOFError:
            self._process.join()
            return f"the process ended with exit status {self._process.exitcode}"


def _work(job: Job, device: torch.device, sender: Connection, turn: Event) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        model = network(job.preset, job.checkpoint)
        if job.engine != "torch":
            onnxruntime().set_default_logger_severity(ORT_ERRORS)
        turn.wait()
        print(f"running {job.preset}, {job.title}", file=sys.stderr, flush=True)
        stream = torch.cuda.Stream() if device.type == "cuda" else None
        with torch.cuda.stream(stream):  # nothing happens where it is None
            began = time.perf_counter()
            contender = _contender(job, copy.deepcopy(model), device)
            for batch in job.batches:
                sender.send(_measured(job, contender, model.to(device), batch, device, began))
                began = time.perf_counter()
                gc.collect()
            del contender  # before its stream, which a session still wants as it ends
            gc.collect()
    except Exception as error:  # whatever it is becomes a row
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        sender.send(f"{type(error).__name__}: {lines[0][:240]}")


def _contender(job: Job, model: Picker, device: torch.device) -> Contender:
    if job.engine == "torch":
        return TorchContender(model, device, kind=job.kind, compiled=job.compiled)
    if job.graph is None:
        raise RuntimeError("its graph could not be exported")
    if job.engine == "slots":
        sparse = job.kind == "sparse"
        return SlotsContender(job.graph.path, model, device, cuda_graph=job.cuda_graph, sparse=sparse)
    return OrtContender(job.graph.path, model, device, cuda_graph=job.cuda_graph, tf32=job.kind == "tf32")


def _measured(job: Job, contender: Contender, model: Picker, batch: int, device: torch.device, began: float) -> Row:
    contender.begin(batch)
    expected = reference(model, batch, device, CHECKED_STEPS)
    difference = 0.0
    for k in range(CHECKED_STEPS):
        found = contender.step(k)
        _wait(device)
        difference = max(difference, float((found.to(device).float() - expected[k]).abs().max()))
    del expected
    prepared_s = time.perf_counter() - began
    times, wall_s = _timed(contender.step, device)
    used = 0.0
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        used = (total - free) / 2**20
    return Row(
        job=job,
        batch=batch,
        step_s=median(times),
        least_s=min(times),
        greatest_s=max(times),
        wall_s=wall_s,
        difference=difference,
        device_mib=used,
        prepared_s=prepared_s,
        kernels=_kernels(contender.step) if device.type == "cuda" and batch == max(job.batches) else (),
    )


def _timed(step: Callable[[int], object], device: torch.device) -> tuple[list[float], float]:
    """Seconds a step by the device's events, each from the end of the one before; and by the clock on the wall."""
    for k in range(WARM):
        step(CHECKED_STEPS + k)
    _wait(device)
    began, k, marks, clock = time.perf_counter(), 0, list[torch.cuda.Event](), list[float]()
    while k < REPEATS and (k < 5 or time.perf_counter() - began < MOST_S):
        if device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            marks.append(event)
        before = time.perf_counter()
        step(k)
        clock.append(time.perf_counter() - before)
        k += 1
    if device.type != "cuda":
        return clock, (time.perf_counter() - began) / k
    last = torch.cuda.Event(enable_timing=True)
    last.record()
    _wait(device)
    wall_s = (time.perf_counter() - began) / k
    pairs = zip(marks, [*marks[1:], last], strict=True)
    return [a.elapsed_time(b) / 1e3 for a, b in pairs], wall_s


def _kernels(step: Callable[[int], object], steps: int = 2) -> tuple[tuple[str, int, float], ...]:
    """Where the time goes, as the profiler sees it; nothing where it cannot see."""
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for k in range(steps):
                step(k)
            torch.cuda.synchronize()
        found = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    except Exception:
        return ()
    return tuple(
        (event.key, round(event.count / steps), event.self_device_time_total / steps / 1e3)
        for event in found[:TOP_KERNELS]
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of a large copy on the device, read and written; nothing to speak of on a processor."""
    size = 2**32 if device.type == "cuda" else 2**26
    source, target = (torch.randint(0, 127, (size,), dtype=torch.uint8, device=device) for _ in range(2))
    times, _ = _timed(lambda k: target.copy_(source), device)
    return 2 * size / median(times)
