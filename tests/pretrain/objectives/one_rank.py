"""One rank of two: half of the uneven batch through the contrastive objective, gradients summed over ranks.

Run as a program: ``one_rank.py RANK MEETING_FILE RESULT_FILE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from objective_data import contrastive, generator, gradients, rows_of, tape, uneven
from torch import distributed

from pretrain.objectives import draws
from pretrain.objectives.objective import Progress
from pretrain.objectives.ranks import summed


def main(rank: int, meeting: str, result: str) -> None:
    """Gradients divided by the global count, and what this rank counted."""
    distributed.init_process_group("gloo", init_method=Path(meeting).as_uri(), rank=rank, world_size=2)
    rows = slice(4 * rank, 4 * rank + 4)
    draws.uniform = tape(rows)
    objective = contrastive().double()
    outcome = objective(rows_of(uneven(), rows), Progress(), generator())
    outcome.total.backward()
    count = summed(outcome.count)
    found = {name: summed(gradient) / count for name, gradient in gradients(objective).items()}
    statistics = {name: summed(value) for name, value in outcome.statistics.items()}
    revived = objective.quantizer.revive(5)
    torch.save((found, statistics, outcome.count, revived, objective.quantizer.state_dict()), result)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
