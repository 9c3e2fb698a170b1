"""A pretraining run small enough for a test: a network, a pack, settings, and the program ``pretrain`` that knows them.

As a program it is ``pretrain`` with the preset ``tiny``: ``pretraining_run.py run CONFIG RUN``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from picker.model.config import PRESETS, LevelConfig, ModelConfig
from pretrain.cli import main
from pretrain.data.pack import pack_trace, save_pack
from pretrain.data.trace import Label, Trace
from pretrain.objectives import draws
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.launch import Fabric, open_fabric, ready_objective
from pretrain.selfsupervised.settings import RunSettings
from pretrain.selfsupervised.source import Source
from pretrain.selfsupervised.trainer import Trainer

torch.set_num_threads(1)
CPU = torch.device("cpu")
TINY = ModelConfig(
    name="tiny",
    levels=tuple(LevelConfig(width=16, heads=1, down_blocks=1, up_blocks=1) for _ in range(2)),
    encoder_features=16,
    head_features=16,
    key_size=16,
    value_size=16,
)
ROWS = 8
OBJECTIVE: dict[str, Any] = {
    "quantizer": {"groups": 2, "codes": 8, "size": 16},
    "negatives": {"count": 10, "pool": 32, "bank": 64},
    "projection": 12,
    "dropout": 0.1,
}


def settings(pack: str = "none.npz", **changes: dict[str, Any]) -> RunSettings:
    """Settings of a tiny run; ``changes`` are by table."""
    tables: dict[str, dict[str, Any]] = {
        "model": {"preset": "tiny", "dropout": 0.1},
        "objective": dict(OBJECTIVE),
        "data": {"pack": pack, "window_samples": 512, "held_out_windows": 4},
        "training": {"steps": 20, "batch": 4, "precision": "32-true"},
        "monitoring": {"log_every": 4, "validate_every": 8, "checkpoint_every": 5, "tensorboard": False},
    }
    tables["monitoring"]["figures"] = "none"
    for table, values in changes.items():
        tables[table] |= values
    return RunSettings.model_validate(tables)


def toml(path: Path, pack: Path, **changes: dict[str, Any]) -> Path:
    """The same as a file."""
    lines = []
    for table, values in settings(str(pack), **changes).model_dump(mode="json").items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {_literal(value)}" for key, value in values.items() if value is not None]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_literal(v)}" for key, v in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def write_pack(path: Path) -> Path:
    """A pack of noise with a pulse in it, in both folds."""
    traces = []
    for number in range(8):
        waveform = np.random.default_rng(number).standard_normal((3, 1500)).astype(np.float32)
        waveform[:, 700:900] *= 20
        more: dict[str, Any] = {"kind": "labelled", "status": "manual", "source": f"set {number % 2}"}
        more |= {"fold": "tune" if number >= 6 else "train", "labels": (Label(phase="P", sample=700.0, weight=1.0),)}
        traces.append(Trace(name=f"t{number}", waveform=waveform, valid=np.ones((3, 1500), bool), **more))
    save_pack(path, [pack_trace(trace) for trace in traces])
    return path


class Rows:
    """A source of fixed float windows; those of a micro-batch also get the random numbers of their rows.

    So one rank with eight rows and two ranks, or two micro-batches, with four each draw the same masks and negatives.
    """

    def __init__(self, parts: int, rank: int = 0, ranks: int = 1, tape: bool = True) -> None:
        self.parts, self.rank, self.ranks, self.tape, self.waited_s = parts, rank, ranks, tape, 0.0
        self.whole = uneven()

    def batch(self, index: int) -> Batch:
        """Rows of micro-batch ``index``."""
        size = ROWS // self.parts // self.ranks
        first = (index % self.parts * self.ranks + self.rank) * size
        rows = slice(first, first + size)
        if self.tape:
            draws.uniform = tape(rows)
        return Batch(self.whole.waveform[rows], self.whole.valid[rows])


def uneven() -> Batch:
    """Eight windows, of which the first four have data for ever shorter times."""
    waveform = torch.randn(ROWS, 3, 512, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(ROWS, 3, 512, dtype=torch.bool)
    for row in range(4):
        valid[row, :, 400 - 90 * row :] = False
    return Batch(waveform, valid)


def tape(rows: slice) -> Callable[..., Tensor]:
    """Stands in for ``draws.uniform``: rows of a batch get the numbers that they would get in a batch of eight."""
    calls: Iterator[int] = iter(range(100))

    def uniform(_: torch.Generator, *shape: int, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        call = torch.Generator().manual_seed(next(calls))
        if shape == (1,):
            return torch.rand(1, generator=call, dtype=torch.float64).to(dtype)
        return torch.rand(ROWS, *shape[1:], generator=call, dtype=torch.float64).to(dtype)[rows]

    return uniform


def trainer(asked: RunSettings, source: Source, fabric: Fabric | None = None) -> Trainer:
    """A trainer on the CPU."""
    fabric = fabric or open_fabric(asked, "cpu")
    return Trainer(ready_objective(asked, CPU)[0], source, fabric, asked)


def gradients(of: Trainer) -> dict[str, Tensor]:
    """Every gradient by name; a missing one fails."""
    found = {}
    for name, parameter in of.objective.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return found


def weights(of: Trainer) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.clone() for name, value in of.objective.state_dict().items()}


def program(arguments: Sequence[str]) -> list[str]:
    """The command line of a process that is ``pretrain`` with these arguments."""
    return [sys.executable, str(Path(__file__)), *arguments]


if __name__ == "__main__":
    PRESETS["tiny"] = TINY
    sys.exit(main())
