"""One rank of two, started by torchrun: steps of the trainer on half of the uneven windows.

``torchrun --nproc-per-node 2 one_training_rank.py FOLDER`` saves what each rank saw.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from pretraining_run import TINY, Rows, gradients, settings, trainer, weights
from torch import Tensor, distributed

from picker.model.config import PRESETS
from pretrain.objectives import contrastive, draws
from pretrain.selfsupervised.checkpoint import save_checkpoint
from pretrain.selfsupervised.launch import open_fabric

EXACT = {"precision": "64-true", "batch": 8, "clip": 1e9}
PLAIN = {"model": {"dropout": 0.0}, "objective": {"dropout": 0.0, "revive_every": 2}, "training": EXACT}


def main(folder: str) -> None:
    """A step with the draws of one rank of eight rows; steps with draws of their own; a checkpoint."""
    fabric = open_fabric(settings(**PLAIN), "cpu")
    rank, uniform = fabric.global_rank, draws.uniform
    made = trainer(settings(**PLAIN), Rows(1, rank, 2), fabric)
    made.step()
    found = {"gradients": gradients(made), "figures": made.figures()}
    draws.uniform, masks = uniform, list[Tensor]()
    span_mask = contrastive.span_mask
    contrastive.span_mask = lambda *arguments: masks.append(span_mask(*arguments)) or masks[-1]
    made.source = Rows(1, rank, 2, tape=False)
    hook = made.objective.backbone.late.weight.register_hook(lambda g: g * (math.nan if rank == 1 else 1.0))
    made.step()
    hook.remove()
    found |= {"skipped": made.counters.skipped}
    made.step(stop=rank == 1, save=rank == 0)
    found |= {"asked": (made.asked_to_stop, made.asked_to_save), "masks": masks, "weights": weights(made)}
    save_checkpoint(Path(folder) / "run", made)
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    PRESETS["tiny"] = TINY
    main(sys.argv[1])
