"""Precision of the exported graph: weights and the products with them in 16 bits, everything that remembers in float32.

Each product with trained weights becomes Cast, product, Cast. State, gates, decays, normaliser, layer norms and biases
stay in float32: their rounding would add up over hours. The casts stand in the graph, because TensorRT 11 knows only
strongly typed networks, where a flag changes nothing.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from picker.model.block import MLSTMBlock
from picker.model.picker import Picker

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Type of the products with weights, by the name that ``--precision`` takes."""


class CastLinear(nn.Module):
    """``linear`` (..., in) to (..., out) in ``dtype``, float32 in and out; the last ``exact`` features in float32."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, exact: int = 0) -> None:
        super().__init__()
        split = linear.out_features - exact
        self.weight = nn.Parameter(linear.weight.detach()[:split].to(dtype), requires_grad=False)
        self.exact = nn.Parameter(linear.weight.detach()[split:].clone(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """The bias is added in float32."""
        y = (x.to(self.weight.dtype) @ self.weight.T).to(x.dtype)
        return (torch.cat([y, x @ self.exact.T], dim=-1) if len(self.exact) else y) + self.bias


class CastConv(nn.Module):
    """A convolution (B, in, T) in ``dtype``, float32 in and out."""

    def __init__(self, conv: nn.Conv1d, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride = conv.stride
        self.weight = nn.Parameter(conv.weight.detach().to(dtype), requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """The bias is added in float32."""
        y = F.conv1d(x.to(self.weight.dtype), self.weight, stride=self.stride).to(x.dtype)
        return y + cast(Tensor, self.bias)[:, None]


def lowered(model: Picker, precision: str) -> Picker:
    """A copy of the network whose products with weights are of ``precision``; the network itself for fp32."""
    dtype = PRECISIONS[precision]
    if dtype == torch.float32:
        return model
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                gates = isinstance(parent, MLSTMBlock) and name == "project"
                setattr(
                    parent, name, CastLinear(layer, dtype, exact=2 * cast(MLSTMBlock, parent).heads if gates else 0)
                )
            elif isinstance(layer, nn.Conv1d) and dtype != torch.bfloat16:  # ONNX has that type of Conv from 22 on
                setattr(parent, name, CastConv(layer, dtype))
    return copied
