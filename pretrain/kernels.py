"""Which form of the mLSTM runs in training: the TFLA Triton kernels on CUDA, plain PyTorch anywhere else."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch

from picker.errors import ConfigError
from picker.model.block import MLSTMBlock
from picker.model.cell import (
    CELLS,
    Cell,
    CellState,
    ExponentialState,
    SigmoidState,
    exponential_cell,
    sigmoid_cell,
    untouched,
)
from picker.model.config import ModelConfig
from picker.model.picker import Picker
from pretrain.tfla import exponential_kernel, kernel_chunk, sigmoid_kernel

PACKAGE = "mlstm_kernels"
KEY_SIZES, VALUE_SIZES = (32, 64, 128), (64, 128)
"""Sizes that the kernels are proved with; a value size of 32 gives NaN at chunks of 64, and no error."""


def sigmoid_kernel_cell(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: SigmoidState, chunk: int
) -> tuple[Tensor, SigmoidState]:
    """As ``picker.model.cell.sigmoid_cell``, by the Triton kernel where ``takes_kernel`` says so."""
    if not takes_kernel(q, i, state):
        return sigmoid_cell(q, k, v, i, f, state, chunk)
    h, memory = sigmoid_kernel(q, k, v, i, f)
    return h, SigmoidState(memory)


def exponential_kernel_cell(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: ExponentialState, chunk: int
) -> tuple[Tensor, ExponentialState]:
    """As ``picker.model.cell.exponential_cell``, by the Triton kernel where ``takes_kernel`` says so.

    Its gradient is right behind the layer norm of each head, as in a block (see ``pretrain.tfla``).
    """
    if not takes_kernel(q, i, state):
        return exponential_cell(q, k, v, i, f, state, chunk)
    h, last = exponential_kernel(q, k, v, i, f)
    return h, ExponentialState(*last)


# Parts of an objective that are compiled: in one graph each, and around the places where random numbers are drawn.
WHOLE = ("backbone.normalizer", "backbone.encoder", "backbone.unet")
IN_PIECES = ("quantizer", "negatives")

KERNEL_CELLS: dict[str, Cell] = {"sigmoid": sigmoid_kernel_cell, "exponential": exponential_kernel_cell}


def takes_kernel(q: Tensor, gates: Tensor, state: CellState) -> bool:
    """Whether a call is one of training: on CUDA, with gradients, from an ``untouched`` memory, float32 gates.

    A carried state, serving, float64 and lengths that are no multiple of 16 go to the plain cell, which is exact.
    Raises RuntimeError under autocast: it would cast the state and the gates of both.
    """
    if torch.is_autocast_enabled(q.device.type):
        raise RuntimeError("the mLSTM cell was called under autocast, which would cast its state; switch it off there")
    trains = torch.is_grad_enabled() and gates.dtype == torch.float32
    return q.is_cuda and trains and untouched(state) and kernel_chunk(q.shape[2]) is not None


def use_kernels(
    model: nn.Module, config: ModelConfig, device: torch.device | str, wanted: bool, samples: int | None = None
) -> str:
    """Put the kernels, or the plain cell, into every block of ``model``; returns the line that says which and why.

    Raises ConfigError where the kernels are wanted on CUDA and cannot be had, or not for these sizes; ``samples`` is
    the length of the windows, if it is to be looked at.
    """
    reason = "tfla_kernels = false" if not wanted else "no CUDA device" if torch.device(device).type != "cuda" else None
    if reason is None:
        check_installed()
        check_sizes(config, samples)
    for block in model.modules():
        if isinstance(block, MLSTMBlock):
            block.cell, block.shared_zeros = (CELLS if reason else KERNEL_CELLS)[block.gate], reason is None
    if reason is not None:
        return f"mLSTM: plain PyTorch ({reason})"
    return f"mLSTM: TFLA Triton kernels ({PACKAGE} {version(PACKAGE)}, {config.gate} gate)"


def check_installed() -> None:
    """Raises ConfigError that names the extra where the kernels' package or Triton is missing."""
    missing = [name for name in (PACKAGE, "triton") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"tfla_kernels = true, but {' and '.join(missing)} cannot be imported: install 'onset[train]' with a CUDA "
            "build of torch, or set tfla_kernels = false"
        )


def check_sizes(config: ModelConfig, samples: int | None = None) -> None:
    """Raises ConfigError where the kernels would fail on the network, or would give NaN without a word."""
    for key, allowed in (("key_size", KEY_SIZES), ("value_size", VALUE_SIZES)):
        if getattr(config, key) not in allowed:
            raise ConfigError(
                f"model {config.name!r}: {key} is {getattr(config, key)}; the TFLA kernels work with "
                f"{', '.join(map(str, allowed))}: use one of these, or set tfla_kernels = false"
            )
    coarsest = config.stride * config.pooling ** (len(config.levels) - 1)
    if samples is not None and kernel_chunk(samples // coarsest) is None:
        raise ConfigError(
            f"windows of {samples} samples are {samples // coarsest} tokens of the coarsest level; the TFLA kernels "
            f"need a multiple of 16 there: use a multiple of {16 * coarsest} samples, or set tfla_kernels = false"
        )


def kernels_fit(config: ModelConfig, samples: int) -> bool:
    """Whether the kernels are installed and take this network and windows of so many samples."""
    try:
        check_installed()
        check_sizes(config, samples)
    except ConfigError:
        return False
    return True


def compile_picker(model: Picker) -> None:
    """``torch.compile`` the parts of a picker, in place, for the shapes they meet (see ``compile_objective``)."""
    _backward_without_autocast()
    for part in (model.normalizer, model.encoder, model.unet, model.head):
        part.compile(dynamic=False)


def _backward_without_autocast() -> None:
    if hasattr(functorch, "backward_pass_autocast"):
        functorch.backward_pass_autocast = "off"


def compile_objective(objective: nn.Module, backend: str = "inductor") -> list[str]:
    """``torch.compile`` the parts of an objective that are worth it, in place; returns their names.

    Names of weights stay as they are. The parts of the backbone are compiled whole and for the shapes they meet: a new
    batch size is compiled anew. What draws random numbers is left as it is between its compiled pieces.

    Sets, for the whole process, that backward is compiled without autocast, as it runs where nothing is compiled: by
    default what was kept in float32 on the way there would come back through products in bfloat16.
    """
    _backward_without_autocast()
    names = []
    for name, part in objective.named_modules():
        if name in WHOLE:
            part.compile(dynamic=False, fullgraph=False, backend=backend)
        elif name in IN_PIECES:
            # Not for fixed values: the Gumbel temperature is another at every step.
            part.compile(backend=backend)
        else:
            continue
        names.append(name)
    return names
