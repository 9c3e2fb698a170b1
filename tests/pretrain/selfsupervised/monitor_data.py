"""A tiny objective, labelled windows of two data sets, and made logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from picker.model.config import LevelConfig, ModelConfig
from pretrain.bank import UNSEEN
from pretrain.objectives.contrastive import Contrastive, ContrastiveSettings
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised.data_held_out import LabelledBatch

torch.set_num_threads(1)
TINY = ModelConfig(
    name="tiny",
    levels=tuple(LevelConfig(width=16, heads=1, down_blocks=1, up_blocks=1) for _ in range(2)),
    encoder_features=16,
    head_features=16,
    key_size=16,
    value_size=16,
    dropout=0.1,
)
SMALL: dict[str, Any] = {
    "quantizer": {"groups": 2, "codes": 8, "size": 16},
    "negatives": {"count": 10},
    "projection": 12,
    "dropout": 0.2,
}
SAMPLES = 1024


def tiny_objective(**changes: Any) -> Contrastive:
    """A small contrastive objective with fixed weights and dropout, in training."""
    torch.manual_seed(0)
    return Contrastive(TINY, ContrastiveSettings.model_validate(SMALL | changes))


def labelled(name: str, rows: int = 3, seed: int = 0, noise: bool = False) -> LabelledBatch:
    """Unit noise, with louder P from sample 300 and S from sample 600 unless it is ``noise``."""
    waveform = torch.randn(rows, 3, SAMPLES, generator=torch.Generator().manual_seed(seed))
    arrivals = torch.tensor([300.0, 600.0, UNSEEN]).repeat(rows, 1)
    if noise:
        arrivals[:] = UNSEEN
    else:
        wave = torch.sin(torch.arange(200) / 3)
        waveform[:, 0, 300:500] += 20 * wave
        waveform[:, 1:, 600:800] += 40 * wave
    return LabelledBatch(
        batch=Batch(waveform, torch.ones(rows, 3, SAMPLES, dtype=torch.bool)),
        data_set=name,
        positions=arrivals,
        phases=torch.tensor([0, 1, 0]).repeat(rows, 1),
        noise=torch.full((rows,), noise),
        names=tuple(f"{name} {row}" for row in range(rows)),
    )


def two_sets() -> list[LabelledBatch]:
    """Two batches of one data set, one of another, of which one is noise."""
    return [labelled("north", 3, 0), labelled("south", 2, 1), labelled("north", 2, 2, noise=True)]


def write_log(folder: Path, *entries: Mapping[str, Any]) -> Path:
    """A run folder with this log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return folder
