"""Validation on fixed windows with fixed masks: the same task each time, so that its figures can be compared.

Every draw of the objective (masks, delays, negatives) is from a generator seeded by the batch's number, so a validation
repeats itself to the bit and touches no random state of training. Statistics are summed before they become figures, by
data set and over all: exact however unequal the batches are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pretrain.objectives.draws import rank_generator
from pretrain.objectives.objective import Objective, Progress
from pretrain.selfsupervised.data_held_out import LabelledBatch

ALL = "all"
Statistics = dict[str, dict[str, Tensor]]
"""By data set, and by name of the statistic: sums."""
_NOTHING_DONE = Progress()


@contextmanager
def evaluating(objective: Objective) -> Iterator[None]:
    """Without dropout, noise of the quantizer and gradient; every module's mode is put back afterwards."""
    modes = [(module, module.training) for module in objective.modules()]
    objective.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def judged(
    objective: Objective, batches: Sequence[LabelledBatch], seed: int, progress: Progress = _NOTHING_DONE
) -> Statistics:
    """Sums by data set, and of all of them. Give ``progress`` where the contrastive temperature is annealed."""
    sums: Statistics = {}
    with evaluating(objective):
        for number, labelled in enumerate(batches):
            generator = rank_generator(seed, number, labelled.batch.waveform.device)
            found = objective(labelled.batch, progress, generator).statistics
            for name in dict.fromkeys((ALL, labelled.data_set)):
                add(sums.setdefault(name, {}), found)
    return sums


def add(sums: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Add statistics to sums, in double precision where they are not integers."""
    for name, value in found.items():
        more = value.detach().double()
        sums[name] = sums[name] + more if name in sums else more


def flat(objective: Objective, sums: Statistics) -> dict[str, float]:
    """Figures by ``<data set>/<name>`` and ``all/<name>``, for the journal."""
    return {
        f"{data_set}/{name}": float(value)
        for data_set, statistics in sums.items()
        for name, value in objective.metrics(statistics).items()
    }


def validate(
    objective: Objective, batches: Sequence[LabelledBatch], seed: int, progress: Progress = _NOTHING_DONE
) -> dict[str, float]:
    """``flat`` figures of ``judged``; empty where there are no batches. Call it on the bare module, on one rank."""
    return flat(objective, judged(objective, batches, seed, progress))
