"""The states of the engine "cuda" of the daemon as a contender: from the host and back to it in every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from step_contenders import Buffers
from torch import Tensor

from picker.bundle import Bundle
from picker.cuda_model import open_cuda, open_model
from picker.device_buffer import Place
from picker.model.picker import Picker, specification
from picker.runtime import onnxruntime

SPARSE = 2
"""Slots a station of a call, where not all are ready."""


class SlotsContender:
    """``picker.device_slots`` with samples and probabilities on the host; a step returns when all is done.

    ``sparse``: a call is a random half of the stations that have slots; else all of them.
    """

    def __init__(self, path: Path, model: Picker, device: torch.device, *, cuda_graph: bool, sparse: bool) -> None:
        self._network, self._device, self._sparse = model, device, sparse
        bundle = Bundle(folder=path.parent, spec=specification(model), digest="")
        if device.type == "cuda":
            self._model = open_cuda(bundle, cuda_graph=cuda_graph)
        else:
            self._model = open_model(bundle, onnxruntime(), Place(), "CPUExecutionProvider", cuda_graph)

    def begin(self, batch: int) -> None:
        """See Contender."""
        random, stations = np.random.default_rng(batch), batch * (SPARSE if self._sparse else 1)
        self._rows = np.sort(random.permutation(stations)[:batch])
        self._sources = [x.cpu().numpy() for x in Buffers.of(self._network, batch, self._device).sources]
        self._valid = np.ones(self._sources[0].shape, np.bool_)
        self._reset = np.zeros(batch, np.bool_)
        self._slots = self._model.slots(stations)

    def step(self, k: int) -> Tensor:
        """See Contender."""
        chunk = self._sources[k % len(self._sources)]
        found = self._slots.step(self._rows, chunk, self._valid, self._reset, whole=not self._sparse)
        return torch.from_numpy(found)
