"""A pretraining run in progress: one optimizer step after another, on any number of ranks.

What is minimised is a sum over micro-batches and ranks divided by one global count (see ``objectives.objective``), so
gradients are added up and divided once, by a count that is known only when all have counted. Nothing in a step waits
for the device: whether a gradient is finite is decided there too, and the host learns of it a little later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn

from picker.errors import OnsetError
from pretrain.objectives.objective import Batch, Objective, Progress
from pretrain.selfsupervised.agreement import Agreement
from pretrain.selfsupervised.launch import Fabric
from pretrain.selfsupervised.optimizer import Optimizer
from pretrain.selfsupervised.settings import RunSettings
from pretrain.selfsupervised.source import Source

_DRAWS = 0x6F6E736574
"""Keeps the seeds of masks and dropout apart from those of windows, which are of the same numbers."""


@dataclass
class Counters:
    """Where a run is: ``step`` optimizer steps, of which ``skipped`` changed no weight, the last ``in_a_row``.

    ``norm_*`` are of the finite gradients since the last log; ``spent_s`` is the time of the run over all its parts.
    """

    step: int = 0
    skipped: int = 0
    in_a_row: int = 0
    norm_sum: float = 0.0
    norm_most: float = 0.0
    norm_count: int = 0
    spent_s: float = 0.0


class _Wrapped(nn.Module):
    """An objective between plain tensors, which is what Fabric and DDP can wrap."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(
        self, waveform: Tensor, valid: Tensor, step: int, share: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        outcome = self.objective(Batch(waveform, valid), Progress(step, share), generator)
        return outcome.total, outcome.count.detach(), dict(outcome.statistics)


class Sums:
    """Statistics of an objective between two logs, on the device, as one float64 vector."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.vector: Tensor | None = None

    def pack(self, statistics: Mapping[str, Tensor]) -> Tensor:
        """All statistics of a micro-batch end to end."""
        self.shapes = {name: tuple(value.shape) for name, value in statistics.items()}
        return torch.cat([value.detach().flatten() for value in statistics.values()]).double()

    def add(self, packed: Tensor, bad: Tensor) -> None:
        """Add those of a step, unless it was ``bad``: one loss that is not finite would spoil all of them."""
        before = torch.zeros_like(packed) if self.vector is None else self.vector
        self.vector = torch.where(bad, before, before + packed)

    def taken(self) -> dict[str, Tensor]:
        """The sums over all ranks since the last call, by name."""
        if self.vector is None:
            return {}
        total, self.vector = over_ranks(self.vector), None
        parts = total.split([int(np.prod(shape)) for shape in self.shapes.values()])
        return {name: part.view(self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}


class Trainer:
    """An objective (on its device, the same weights on every rank) in training on the windows of a source."""

    def __init__(self, objective: Objective, source: Source, fabric: Fabric, settings: RunSettings) -> None:
        self.objective, self.source, self.fabric, self.settings = objective, source, fabric, settings
        self.module = fabric.setup_module(_Wrapped(objective))
        self._dtype = next(objective.parameters()).dtype
        self.optimizer = Optimizer(objective, settings.training)
        self.agreement, self.generator = Agreement(fabric.device), torch.Generator(fabric.device)
        self.counters, self.sums = Counters(), Sums()
        self.extra: dict[str, Tensor] = {}
        self.time_share, self.asked_to_stop, self.asked_to_save = 0.0, False, False
        self.begin_part()

    @property
    def share(self) -> float:
        """Share of the run that is over, by steps or by minutes, whichever is further; the same on every rank."""
        return min(1.0, max(self.counters.step / self.settings.training.steps, self.time_share))

    def step(self, stop: bool = False, save: bool = False) -> None:
        """One optimizer step. ``stop`` and ``save`` are wishes of this rank: what all agree on is in ``asked_to_*``.

        A step without a finite gradient, or without anything to learn from, changes no weight. Raises OnsetError after
        ``monitoring.alarms.stop_skipped_in_a_row`` of them in a row.
        """
        share, optimizer, world = self.share, self.optimizer, self.fabric.world_size
        optimizer.set_rates(share)
        optimizer.clear()
        count, statistics = self._micro_batches(Progress(self.counters.step, share))
        wishes = self.agreement.send([stop, save, self._clock_share() if self.fabric.global_rank == 0 else 0.0])
        everyone = over_ranks(torch.cat([count.double().view(1), wishes]))
        # DDP has divided the sum over ranks by their number.
        norm = optimizer.scale_and_clip((world / everyone[0].clamp(min=1)).to(self._dtype))
        bad = ~norm.isfinite() | (everyone[0] == 0)
        optimizer.step(bad)
        self.counters.step += 1
        self._note(self.objective.after_step(Progress(self.counters.step, self.share)))
        self.sums.add(statistics, bad)
        self.agreement.publish(torch.cat([torch.stack([bad.double(), norm.double()]), everyone[1:]]))
        self.take_news()

    def _micro_batches(self, progress: Progress) -> tuple[Tensor, Tensor]:
        """Add up the gradients of this rank's micro-batches; returns their count and their packed statistics."""
        accumulate = self.settings.training.accumulate
        counts, statistics = [], []
        for part in range(accumulate):
            index = self.counters.step * accumulate + part
            batch = self.source.batch(index)
            self._seed(index)
            with self.fabric.no_backward_sync(self.module, enabled=part < accumulate - 1):
                outcome = self.module(batch.waveform, batch.valid, progress.step, progress.share, self.generator)
                self.fabric.backward(outcome[0])
            counts.append(outcome[1])
            statistics.append(self.sums.pack(outcome[2]))
        return torch.stack(counts).sum(), torch.stack(statistics).sum(0)

    def _seed(self, index: int) -> None:
        """Every draw of micro-batch ``index`` of this rank follows: the objective's, and dropout's."""
        words = [_DRAWS, self.settings.training.seed, self.fabric.global_rank, index]
        first, second = np.random.SeedSequence(words).generate_state(2, np.uint64).tolist()
        self.generator.manual_seed(first)
        device = self.fabric.device
        dropout = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        dropout.manual_seed(second)

    def take_news(self, everything: bool = False) -> None:
        """Learn what earlier steps came to; ``everything`` waits for the device."""
        most = self.settings.monitoring.alarms.stop_skipped_in_a_row
        counters = self.counters
        for bad, norm, stop, save, time_share in self.agreement.read(everything):
            self.asked_to_stop |= stop > 0
            self.asked_to_save |= save > 0
            self.time_share = time_share
            if not bad:
                counters.in_a_row, counters.norm_count = 0, counters.norm_count + 1
                counters.norm_sum, counters.norm_most = counters.norm_sum + norm, max(counters.norm_most, norm)
                continue
            counters.skipped, counters.in_a_row = counters.skipped + 1, counters.in_a_row + 1
            if counters.in_a_row >= most:
                raise OnsetError(
                    f"the gradient was not finite, or there was nothing to learn from, for {most} steps in a row, up "
                    f"to step {counters.step}; start again in another folder with a lower training.rate or a higher "
                    "objective.temperature.start, or look for absurd data in the pack"
                )

    def figures(self) -> dict[str, float]:
        """What to log about the steps since the last call; every rank must call it. Waits for the device."""
        self.take_news(everything=True)
        counters, now, training = self.counters, time.monotonic(), self.settings.training
        found = self.sums.taken()
        values = {name: float(value) for name, value in self.objective.metrics(found).items()} if found else {}
        mean = counters.norm_sum / counters.norm_count if counters.norm_count else float("nan")
        values |= {"gradient_norm": mean, "gradient_norm_most": counters.norm_most, "skipped_steps": counters.skipped}
        values |= self.optimizer.rates() | {name: float(value) for name, value in self.extra.items()}
        passed, steps = max(now - self._since, 1e-9), counters.step - self._since_step
        values["windows_per_s"] = steps * training.batch / passed
        values["data_wait_share"] = (self.source.waited_s - self._waited_s) / passed
        if self.fabric.device.type == "cuda":
            values["peak_memory_gib"] = torch.cuda.max_memory_allocated(self.fabric.device) / 2**30
        counters.norm_sum, counters.norm_most, counters.norm_count = 0.0, 0.0, 0
        self.extra = {}
        self.restart_clock()
        return values

    def restart_clock(self) -> None:
        """Count windows a second and waiting from now on: after a validation, say."""
        self._since, self._since_step, self._waited_s = time.monotonic(), self.counters.step, self.source.waited_s

    def begin_part(self) -> None:
        """Begin to count time of this part of the run, after ``counters`` have been set."""
        self._began, minutes = time.monotonic() - self.counters.spent_s, self.settings.training.minutes
        # Not by the clock, which differs between ranks.
        self.time_share = 0.0 if minutes is None else self.counters.spent_s / 60 / minutes
        self.restart_clock()

    def spent(self) -> Counters:
        """The counters with the time up to now."""
        self.counters.spent_s = time.monotonic() - self._began
        return Counters(**asdict(self.counters))

    def _clock_share(self) -> float:
        minutes = self.settings.training.minutes
        return 0.0 if minutes is None else (time.monotonic() - self._began) / 60 / minutes

    def _note(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.extra[name] = self.extra[name] + value if name in self.extra else value


def over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks (in place where there are several)."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values
