"""What ``step_gpu.py`` compares: the step through ONNX Runtime and through torch, each on buffers that stay in place.

A contender reads its samples and one set of state where they lie and writes the other set: nothing is copied but the
samples, which come from one of several sets in turn. On a processor the same code runs without CUDA graphs.

Shapes: B stations, C = 3 components, L = 64 samples a chunk, P = 3 phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from step_block import CellStep, KernelBlock, ResetMemory
from torch import Tensor, nn

from export.precision import lowered
from picker.model.block import MLSTMBlock
from picker.model.picker import Picker, specification
from picker.model.state import named, replace
from picker.model.unet import UNetState
from picker.runtime import onnxruntime
from picker.stepper import state_input, state_output

SETS = 3
"""Sets of random samples that take turns."""
WARM_UP = 3
NUMPY = {torch.float32: np.float32, torch.bool: np.bool_}


class Contender(Protocol):
    """One way to make a step."""

    def begin(self, batch: int) -> None:
        """Get ready for ``batch`` stations, whose state is fresh."""
        ...

    def step(self, k: int) -> Tensor:
        """Put step ``k`` on the current stream; where its probabilities (B, P, L) will be."""
        ...


@dataclass
class Buffers:
    """Device memory of ``batch`` stations: samples in several sets, the set at work, and two sets of state."""

    sources: list[Tensor]
    given: list[Tensor]
    state: list[list[Tensor]]
    probabilities: Tensor

    @classmethod
    def of(cls, model: Picker, batch: int, device: torch.device) -> Buffers:
        """Random samples, all valid, no reset but in the first step; the state is zero in both sets."""
        generator = torch.Generator(device).manual_seed(batch)
        samples = model.config.chunk_samples
        sources = [torch.randn(batch, 3, samples, generator=generator, device=device) * 1e3 for _ in range(SETS)]
        flags = torch.ones(batch, 3, samples, dtype=torch.bool, device=device)
        shapes = [tuple(t.shape[1:]) for _, t in named(model.initial_state(1))]
        return cls(
            sources=sources,
            given=[sources[0].clone(), flags, torch.zeros(batch, dtype=torch.bool, device=device)],
            state=[[torch.zeros(batch, *shape, device=device) for shape in shapes] for _ in range(2)],
            probabilities=torch.full((batch, 3, samples), float("nan"), device=device),
        )

    def feed(self, k: int) -> None:
        """Copy the samples of step ``k`` to where they are read."""
        self.given[0].copy_(self.sources[k % SETS])


class OrtContender:
    """ONNX Runtime with I/O binding on the current torch stream."""

    def __init__(self, path: Path, model: Picker, device: torch.device, *, cuda_graph: bool, tf32: bool) -> None:
        self._model, self._device, self._cuda_graph = model, device, cuda_graph and device.type == "cuda"
        self._runtime = onnxruntime()
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = self._runtime.InferenceSession(str(path), options, providers=self._providers(tf32))
        if device.type == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise RuntimeError("ONNX Runtime runs without its CUDA provider here")
        self._names = [t.name for t in specification(model).state]
        self._graphs = 0
        self._bindings: list[tuple[Any, Any]] = []

    def _providers(self, tf32: bool) -> list[Any]:
        if self._device.type != "cuda":
            return ["CPUExecutionProvider"]
        options = {
            "device_id": "0",
            "use_tf32": str(int(tf32)),
            "user_compute_stream": str(torch.cuda.current_stream().cuda_stream),
            "enable_cuda_graph": str(int(self._cuda_graph)),
            "enable_skip_layer_norm_strict_mode": "1",
        }
        return [("CUDAExecutionProvider", options)]

    def begin(self, batch: int) -> None:
        """See Contender."""
        self._bindings = []
        self._buffers = Buffers.of(self._model, batch, self._device)
        for turn in range(2):
            run = self._runtime.RunOptions()
            if self._device.type == "cuda":
                run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            if self._cuda_graph:
                self._graphs += 1
                run.add_run_config_entry("gpu_graph_id", str(self._graphs))
            self._bindings.append((self._bound(turn), run))

    def _bound(self, turn: int) -> Any:
        binding, buffers = self._session.io_binding(), self._buffers
        inputs = dict(zip(("chunk", "valid", "reset"), buffers.given, strict=True))
        inputs |= dict(zip(map(state_input, self._names), buffers.state[turn], strict=True))
        outputs = {"probabilities": buffers.probabilities}
        outputs |= dict(zip(map(state_output, self._names), buffers.state[1 - turn], strict=True))
        for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, tensor in tensors.items():
                bind(name, self._device.type, 0, NUMPY[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        return binding

    def step(self, k: int) -> Tensor:
        """See Contender."""
        self._buffers.feed(k)
        binding, run = self._bindings[k % 2]
        self._session.run_with_iobinding(binding, run)
        return self._buffers.probabilities


class TorchGraph(nn.Module):
    """The step in torch: (chunk, valid, reset, *state) to (probabilities, *next state), the state in float32.

    Autocast is for the GPU: on a processor, where only the script is tried, bf16 may take a thousand times as long.
    """

    def __init__(self, model: Picker, autocast: bool) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast
        self.tree = model.initial_state(1)

    def forward(self, chunk: Tensor, valid: Tensor, reset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See Picker.probabilities."""
        with torch.autocast(chunk.device.type, torch.bfloat16, enabled=self.autocast and chunk.is_cuda):
            probabilities, after = self.model.probabilities(chunk, valid, reset, replace(self.tree, list(state)))
        return (probabilities, *(t.float() for _, t in named(after)))


class KernelGraph(TorchGraph):
    """The same with the Triton kernel in every block, which makes a row afresh as it loads its memory."""

    def __init__(self, model: Picker, step: CellStep, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(model, autocast=True)
        for parent in list(model.unet.modules()):
            if isinstance(parent, nn.ModuleList) and len(parent) and hasattr(parent[0], "feedforward_in"):
                for index, block in enumerate(parent):
                    parent[index] = KernelBlock(cast(MLSTMBlock, block), dtype, step)

    def forward(self, chunk: Tensor, valid: Tensor, reset: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See Picker.probabilities."""
        cleared = [
            t if t.ndim == 4 else t.masked_fill(reset.view(-1, *[1] * (t.ndim - 1)), 0.0)  # (B, H, K, V) is a memory
            for t in state
        ]
        before, byte = replace(self.tree, cleared), reset.view(torch.int8)
        memories = tuple(ResetMemory(cell.memory, byte) for cell in before.unet.blocks)
        before = before._replace(unet=UNetState(memories))  # type: ignore[arg-type]
        with torch.autocast(chunk.device.type, torch.bfloat16, enabled=chunk.is_cuda):
            probabilities, after = self.model.probabilities(chunk, valid, None, before)
        return (probabilities, *(t.float() for _, t in named(after)))


def _kernel_graph(model: Picker) -> KernelGraph:
    from step_triton import fused_step  # Triton is there on the GPU machine

    return KernelGraph(model, fused_step)


def torch_graph(model: Picker, kind: str, device: torch.device) -> TorchGraph:
    """``casts``: the exported step in bf16; ``autocast``: its activations too; ``kernel``: the Triton kernel in it."""
    if kind == "casts":
        return TorchGraph(lowered(model, "bf16" if device.type == "cuda" else "fp32"), autocast=False)
    graph = _kernel_graph(model) if kind == "kernel" else TorchGraph(model, autocast=True)
    if device.type != "cuda":
        return graph
    for layer in graph.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            layer.to(torch.bfloat16)  # what autocast would do at every step
    return graph


class TorchContender:
    """The step in torch, captured in two CUDA graphs: one on the first set of state, one on what that one yields.

    What the second yields is not carried back, which would cost a copy: from the third step on the first set is read
    again, and the time is the same.
    """

    def __init__(self, model: Picker, device: torch.device, *, kind: str, compiled: bool) -> None:
        self._model, self._device = model, device
        if compiled and device.type != "cuda":
            raise RuntimeError("torch.compile is measured on a GPU only")
        graph = torch_graph(model, kind, device).to(device).eval()
        self._call: Callable[..., tuple[Tensor, ...]] = torch.compile(graph, dynamic=True) if compiled else graph

    @torch.no_grad()
    def begin(self, batch: int) -> None:
        """See Contender."""
        self._outcomes: list[tuple[Tensor, ...]] = []
        self._replays: list[Callable[[], None]] = []
        self._buffers = Buffers.of(self._model, batch, self._device)
        self._state = list(self._buffers.state[0])
        if self._device.type != "cuda":
            return
        for _ in range(WARM_UP):
            self._call(*self._buffers.given, *self._state)
        torch.cuda.synchronize()
        for _ in range(2):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._eager()
            self._replays.append(graph.replay)

    def _eager(self) -> None:
        outcome = self._call(*self._buffers.given, *self._state)
        self._outcomes.append(outcome)
        self._state = list(outcome[1:])

    @torch.no_grad()
    def step(self, k: int) -> Tensor:
        """See Contender."""
        self._buffers.feed(k)
        if self._device.type != "cuda":
            self._eager()
            return self._outcomes.pop()[0]
        self._replays[k % 2]()
        return self._outcomes[k % 2][0]


@torch.no_grad()
def reference(model: Picker, batch: int, device: torch.device, steps: int) -> list[Tensor]:
    """Probabilities of the first steps by the network in float32 (TF32 off), on the same samples."""
    buffers, found = Buffers.of(model, batch, device), []
    graph = TorchGraph(model, autocast=False).to(device).eval()
    state = buffers.state[0]
    with torch.backends.cudnn.flags(allow_tf32=False):
        for k in range(steps):
            buffers.feed(k)
            probabilities, *state = graph(*buffers.given, *state)
            found.append(probabilities)
    return found
