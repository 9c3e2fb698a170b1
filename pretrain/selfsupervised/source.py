"""Sources of windows: micro-batches that are a pure function of (seed, rank, index), from the device or from disk.

A source keeps no random state: a run that goes on asks for the next index, and gets what it would have got.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from picker.errors import ConfigError
from pretrain.data.pack import load_pack
from pretrain.data.shards import open_folder
from pretrain.data.store import Store, store_of
from pretrain.data.trace import TRAIN, TUNE
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_device import DeviceSource
from pretrain.selfsupervised.data_held_out import LabelledBatch, held_out
from pretrain.selfsupervised.data_loaded import LoadedSource
from pretrain.selfsupervised.data_settings import DataSettings

__all__ = [
    "DataSettings",
    "DeviceSource",
    "LabelledBatch",
    "LoadedSource",
    "Source",
    "held_out",
    "open_held_out",
    "open_source",
]


class Source(Protocol):
    """Where micro-batches come from."""

    waited_s: float
    """Seconds that ``batch`` has waited for data so far."""

    def batch(self, index: int) -> Batch:
        """Micro-batch number ``index`` of this rank, on the device: a pure function of (seed, rank, index)."""
        ...


def open_source(settings: DataSettings, *, batch: int, seed: int, rank: int = 0, device: torch.device) -> Source:
    """The source that ``settings`` ask for, over the fold train of their pack.

    Raises ConfigError where the pack is missing, damaged, or has nothing to draw, and where an .npz pack is to be read
    from disk.
    """
    path = Path(settings.pack)
    if not path.is_dir():
        if settings.on_device is False:
            raise ConfigError(
                f"[data] on_device = false: {path} is not a folder of shards, which alone can be read from disk; "
                "write one with `pretrain pack FOLDER`, or set on_device to true"
            )
        return DeviceSource(open_store(settings, TRAIN), settings, batch=batch, seed=seed, rank=rank, device=device)
    if settings.on_device is not False:
        store = open_store(settings, TRAIN)
        fits = store.size_bytes <= settings.device_limit_gib * 2**30
        if fits or settings.on_device is True:
            return DeviceSource(store, settings, batch=batch, seed=seed, rank=rank, device=device)
    return LoadedSource(settings, batch=batch, seed=seed, rank=rank, device=device)


def open_held_out(settings: DataSettings, *, batch: int, seed: int, device: torch.device) -> list[LabelledBatch]:
    """The windows of the fold tune of the pack; raises ConfigError where it has none."""
    store = open_store(settings, TUNE)
    found = held_out(store, settings.window_samples, batch, seed, device, most=settings.held_out_windows)
    if not found:
        raise ConfigError(f"{settings.pack}: no trace of fold tune; pack again with a larger --tune-share")
    return found


def open_store(settings: DataSettings, fold: str) -> Store:
    """One fold of the pack that ``settings`` name; raises ConfigError where it is missing or damaged."""
    path = Path(settings.pack)
    if path.is_dir():
        return open_folder(path).only((fold,))
    return store_of(load_pack(path, folds=(fold,)), settings.hold)
