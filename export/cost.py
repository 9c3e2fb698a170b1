"""What a step costs: parameters, and multiply-adds a second of one station."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from export.graph import StepGraph
from picker.model.picker import Picker, specification


def parameters(model: Picker) -> int:
    """Number of trained weights."""
    return sum(tensor.numel() for tensor in model.parameters())


@torch.no_grad()
def multiply_adds(model: Picker) -> int:
    """Multiply-adds of matrix products and convolutions that one station costs a second of data."""
    graph = StepGraph(model).eval()
    with FlopCounterMode(display=False) as counter:
        graph(*graph.example(1))
    spec = specification(model)
    products: int = counter.get_total_flops() // 2
    return round(products * spec.sampling_rate_hz / spec.chunk_samples)
