"""The states of the engine "cuda" of the daemon as a contender: from the host and back to it in every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from step_contenders import Buffers
from torch import Tensor

from picker.cuda_model import PROVIDER, cuda_runtime
from picker.device_slots import DeviceModel, Place, row_sessions
from picker.model.picker import Picker, specification
from picker.runtime import onnxruntime

SPARSE = 2
"""Slots a station of a call, where not all are ready."""


class SlotsContender:
    """``picker.device_slots`` with samples and probabilities on the host; a step returns when all is done.

    ``sparse``: a call is a random half of the stations, which are gathered and scattered; else all of them.
    """

    def __init__(self, path: Path, model: Picker, device: torch.device, *, cuda_graph: bool, sparse: bool) -> None:
        self._network, self._sparse = model, sparse
        gpu = device.type == "cuda"
        runtime = cuda_runtime() if gpu else onnxruntime()
        common = {"device_id": "0", "use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1"}
        rows: Any = (PROVIDER, common) if gpu else "CPUExecutionProvider"
        step: Any = (PROVIDER, {**common, "enable_cuda_graph": str(int(cuda_graph))}) if gpu else rows
        options, spec = runtime.SessionOptions(), specification(model)
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = runtime.InferenceSession(str(path), options, providers=[step])
        if gpu and PROVIDER not in session.get_providers():
            raise RuntimeError("ONNX Runtime runs without its CUDA provider here")
        gather, scatter = row_sessions(runtime, spec, options, [rows])
        place = Place("cuda" if gpu else "cpu")
        self._model = DeviceModel(
            spec=spec, runtime=runtime, place=place, step=session, gather=gather, scatter=scatter, cuda_graph=cuda_graph
        )

    def begin(self, batch: int) -> None:
        """See Contender."""
        random, stations = np.random.default_rng(batch), batch * (SPARSE if self._sparse else 1)
        self._rows = np.sort(random.permutation(stations)[:batch])
        sources = Buffers.of(self._network, batch, torch.device("cuda" if self._model.place.kind == "cuda" else "cpu"))
        self._sources = [source.cpu().numpy() for source in sources.sources]
        self._valid = np.ones(self._sources[0].shape, np.bool_)
        self._reset = np.zeros(batch, np.bool_)
        self._slots = self._model.slots(stations)
        self._slots.clear(np.arange(stations))

    def step(self, k: int) -> Tensor:
        """See Contender."""
        chunk = self._sources[k % len(self._sources)]
        found = self._slots.step(self._rows, chunk, self._valid, self._reset, whole=not self._sparse)
        return torch.from_numpy(found)
