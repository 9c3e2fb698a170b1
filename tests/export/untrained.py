"""An untrained network that is small enough for a quick export, and driving its graph or the network itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from export.signals import Stream
from picker.model.config import LevelConfig, ModelConfig
from picker.model.picker import Picker
from picker.stepper import State, Stepper

CHUNK = 64
REDUCED = ModelConfig(
    name="reduced",
    levels=(
        LevelConfig(width=24, heads=1, down_blocks=1, up_blocks=0),
        LevelConfig(width=32, heads=1, down_blocks=0, up_blocks=1),
        LevelConfig(width=32, heads=3, down_blocks=1, up_blocks=0),
    ),
    encoder_features=16,
    head_features=8,
    key_size=16,
    value_size=16,
)
"""16 tokens to 1 token a chunk: shapes at which an engine's vectors come out even, and do not."""

SINGLE = replace(REDUCED, levels=REDUCED.levels[:1])
"""The finest level only, for the quickest export."""


def untrained(config: ModelConfig = REDUCED, seed: int = 0) -> Picker:
    """A network whose gates, zero after the build, follow the data, and whose probabilities go up and down."""
    torch.manual_seed(seed)
    model = Picker(config).eval()
    with torch.no_grad():
        for block in model.unet.blocks():
            block.project.weight[-2 * block.heads :].normal_(std=0.2)
            block.project.bias[-block.heads :] = 0  # it forgets by half each token: the last bit of a decay shows
        model.head.logits.weight.mul_(4)
    return model


def steps(
    stepper: Stepper, stream: Stream, state: State | None = None, resets: bool = True
) -> tuple[NDArray[np.float32], State]:
    """Probabilities (B, 3, N) of the graph, chunk by chunk in one batch, and the state after the last."""
    out = np.empty_like(stream.samples)
    state = stepper.fresh_state(len(out)) if state is None else state
    for k in range(stream.reset.shape[1]):
        chunk, valid, reset = at(stream, k)
        out[..., k * CHUNK : (k + 1) * CHUNK], state = stepper.step(chunk, valid, reset & resets, state)
    return out, state


def at(stream: Stream, k: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Chunk, valid and reset of step ``k``."""
    here = slice(k * CHUNK, (k + 1) * CHUNK)
    return (
        np.ascontiguousarray(stream.samples[..., here]),
        np.ascontiguousarray(stream.valid[..., here]),
        np.ascontiguousarray(stream.reset[:, k]),
    )


@torch.no_grad()
def through_network(model: Picker, stream: Stream) -> NDArray[np.float32]:
    """Probabilities (B, 3, N) of the float32 network, chunk by chunk."""
    out, state = np.empty_like(stream.samples), None
    for k in range(stream.reset.shape[1]):
        chunk, valid, reset = (torch.from_numpy(part) for part in at(stream, k))
        probabilities, state = model.probabilities(chunk, valid, reset, state)
        out[..., k * CHUNK : (k + 1) * CHUNK] = probabilities.numpy()
    return out
