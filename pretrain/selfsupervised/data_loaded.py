"""Windows read from a folder of shards by worker processes, for data that do not fit on the device.

A worker reads the 16-bit codes of a whole micro-batch; they are pinned, copied and decoded on the device. The number of
workers changes nothing but the speed: what micro-batch ``index`` holds is drawn from (seed, rank, index) by whoever
reads it.
"""

from __future__ import annotations

import itertools
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from picker.errors import ConfigError
from pretrain.data.shards import open_folder
from pretrain.data.store import Store
from pretrain.data.trace import TRAIN
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_decode import CodedWindows, decoded
from pretrain.selfsupervised.data_draw import WindowDraw
from pretrain.selfsupervised.data_settings import DataSettings

_SHARED_MEMORY = Path("/dev/shm")


class WindowDataset(Dataset[CodedWindows]):
    """Micro-batches by their index, of the fold train of a folder; each process opens the folder for itself."""

    def __init__(self, settings: DataSettings, batch: int, seed: int, rank: int) -> None:
        self._arguments = settings, batch, seed, rank
        self._opened: tuple[Store, WindowDraw] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def open(self) -> tuple[Store, WindowDraw]:
        """The store and what draws from it; raises ConfigError where there is none, or nothing to draw."""
        if self._opened is None:
            store = open_folder(self._arguments[0].pack).only((TRAIN,))
            self._opened = store, WindowDraw(store.catalogue, *self._arguments)
        return self._opened

    def __getitem__(self, index: int) -> CodedWindows:
        store, draw = self.open()
        plan = draw.plan(index)
        known = store.catalogue
        return CodedWindows(
            codes=torch.from_numpy(store.cut(plan.rows, plan.starts, draw.samples)),
            scale=torch.from_numpy(known.scale[plan.rows]),
            bend=torch.from_numpy(known.bend[plan.rows]),
            keep=torch.from_numpy(plan.keep),
            gain=torch.from_numpy(plan.gain),
            birth=torch.from_numpy(plan.birth),
        )


class _From(Sampler[int]):
    """All indices from ``first``."""

    def __init__(self) -> None:
        self.first = 0

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.first)


class LoadedSource:
    """A source over a folder of shards, read ahead by ``settings.workers`` processes.

    Indices are meant to be asked for one after another; any other order is right too, but begins to read anew.
    Raises ConfigError where the folder cannot be read, or shared memory is too small for what the workers read ahead.
    """

    def __init__(self, settings: DataSettings, *, batch: int, seed: int, rank: int = 0, device: torch.device) -> None:
        self.device, self.waited_s = device, 0.0
        dataset = WindowDataset(settings, batch, seed, rank)
        store, _ = dataset.open()
        if settings.workers:
            _check_shared_memory(settings, batch * 3 * settings.window_samples * store.dtype.itemsize)
        self._from, self._next = _From(), -1
        self._batches: Iterator[CodedWindows] = iter(())
        self._loader: DataLoader[CodedWindows] = DataLoader(
            dataset,
            batch_size=None,
            sampler=self._from,
            num_workers=settings.workers,
            pin_memory=device.type == "cuda",
            prefetch_factor=settings.prefetch if settings.workers else None,
            persistent_workers=settings.workers > 0,
            # Forked from a process that knows neither CUDA nor threads.
            multiprocessing_context=_context() if settings.workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
        )

    def batch(self, index: int) -> Batch:
        """Micro-batch number ``index``; counts the time that its data were not there yet in ``waited_s``."""
        began = time.perf_counter()
        if index != self._next:
            self._from.first = index
            self._batches = iter(self._loader)
        windows = next(self._batches)
        self._next = index + 1
        self.waited_s += time.perf_counter() - began
        moved: list[Tensor] = [part.to(self.device, non_blocking=True) for part in windows]
        return decoded(CodedWindows(*moved))


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and Slurm reach every process of a job: the trainer saves first, for which it may need another batch."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _context() -> multiprocessing.context.BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain.selfsupervised.data_loaded"])
    return context


def _check_shared_memory(settings: DataSettings, batch_bytes: int) -> None:
    """Workers hand over what they have read through shared memory: where it is full they are killed without a word."""
    if not _SHARED_MEMORY.is_dir():
        return
    needed, free = settings.workers * (settings.prefetch + 1) * batch_bytes, shutil.disk_usage(_SHARED_MEMORY).free
    if needed > free:
        raise ConfigError(
            f"[data] workers: {settings.workers} reading {settings.prefetch} micro-batches ahead need "
            f"{needed / 2**20:.0f} MiB of shared memory, and {free / 2**20:.0f} MiB are free; lower workers or "
            "prefetch, or give the container more (--shm-size)"
        )
