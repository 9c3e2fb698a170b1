"""Windows cut on the device, from data that lie there whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretrain.data.store import Store, nothing, store_of
from pretrain.data.trace import Trace
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_decode import CodedWindows, decoded
from pretrain.selfsupervised.data_draw import WindowDraw, WindowPlan
from pretrain.selfsupervised.data_settings import DataSettings


class DeviceWindows:
    """A store on a device, in its own codes; any windows of it are cut there, without the host waiting."""

    def __init__(self, store: Store, samples: int, device: torch.device) -> None:
        known = store.catalogue
        self.samples, self.device = samples, device
        firsts = np.cumsum([0, *(len(shard) for shard in store.shards)])
        # Copied shard by shard: neither the host nor the device ever holds all of it twice.
        self._codes = torch.empty(
            int(firsts[-1]), dtype=torch.from_numpy(np.zeros(0, store.dtype)).dtype, device=device
        )
        for first, shard in zip(firsts, store.shards, strict=False):
            self._codes[first : first + len(shard)].copy_(torch.from_numpy(np.array(shard)))
        self._offset = torch.from_numpy(known.offset + firsts[known.shard]).to(device)
        self._length = torch.from_numpy(known.samples).to(device)
        self._scale, self._bend = torch.from_numpy(known.scale).to(device), torch.from_numpy(known.bend).to(device)
        self._nothing = nothing(store.dtype)

    def batch(self, plan: WindowPlan) -> Batch:
        """The windows of a plan."""
        rows, starts, keep, gain, birth = (to_device(column, self.device) for column in plan)
        length = self._length[rows, None, None]
        place = starts[:, None, None] + torch.arange(self.samples, device=self.device)
        inside = (place >= 0) & (place < length)
        component = torch.arange(3, device=self.device)[:, None]
        at = self._offset[rows, None, None] + component * length + place.clamp(min=0).minimum(length - 1)
        codes = self._codes[at].masked_fill(~inside, self._nothing)
        return decoded(CodedWindows(codes, self._scale[rows], self._bend[rows], keep, gain, birth))


class DeviceSource:
    """A source over data that fit on the device: it waits for nothing.

    ``traces`` are the traces to learn from, or a store of them.
    """

    def __init__(
        self,
        traces: Sequence[Trace] | Store,
        settings: DataSettings,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        device: torch.device,
    ) -> None:
        store = traces if isinstance(traces, Store) else store_of(traces, settings.hold)
        self.draw = WindowDraw(store.catalogue, settings, batch, seed, rank)
        self.waited_s = 0.0
        self._windows = DeviceWindows(store, settings.window_samples, device)

    def batch(self, index: int) -> Batch:
        """Micro-batch number ``index``."""
        return self._windows.batch(self.draw.plan(index))


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """``array`` on the device; pinned on the way to a GPU, or the host would wait for the copy."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
