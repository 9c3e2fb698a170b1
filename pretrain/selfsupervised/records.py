"""What a run says about itself: the journal, TensorBoard, alarms, validation and figures, opened and fed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrain.objectives.objective import Objective, Progress
from pretrain.selfsupervised.monitor.alarms import FULL_CODES, FULL_GROUPS, Alarms
from pretrain.selfsupervised.monitor.board import Board, NoBoard, Writer
from pretrain.selfsupervised.monitor.figures import draw
from pretrain.selfsupervised.monitor.journal import TRAIN, VALIDATION, Journal, read_journal
from pretrain.selfsupervised.monitor.validation import flat, judged
from pretrain.selfsupervised.settings import RunSettings
from pretrain.selfsupervised.source import LabelledBatch


class Records:
    """Of a run in ``folder``; without one, nothing is written. Alarms are raised on every rank alike."""

    def __init__(self, settings: RunSettings, folder: Path | None, objective: Objective) -> None:
        self.settings, self.folder = settings, folder
        self.board: Writer = NoBoard()
        self.journal: Journal | None = None
        self.alarms = Alarms(settings.monitoring.alarms, *_codebook(objective))

    def open(self, step: int) -> None:
        """Go on from ``step``: what an earlier part wrote after it is forgotten, and will be written again."""
        if self.folder is None:
            return
        self.journal = Journal(self.folder)
        self.journal.forget_after(step)
        if self.settings.monitoring.tensorboard:
            self.board = Board(self.folder, purge_step=step + 1)
        if step and self.journal.path.is_file() and self.journal.path.stat().st_size:
            self.alarms.replay(read_journal(self.folder))

    def train(self, step: int, values: Mapping[str, float], skipped_in_a_row: int) -> tuple[list[str], str | None]:
        """Log a step; returns its alarms, and why the run should end, if it should."""
        if self.journal is not None:
            self.journal.write(step, TRAIN, values)
        self.board.write(step, TRAIN, values)
        alarms = self.alarms.check(step, values)
        for alarm in alarms:
            self.event(step, alarm)
        return alarms, self.alarms.reason_to_stop(skipped_in_a_row)

    def validation(
        self, objective: Objective, batches: Sequence[LabelledBatch], progress: Progress
    ) -> dict[str, float]:
        """Judge the held-out windows, log it, and draw figures where they are wanted."""
        sums = judged(objective, batches, self.settings.training.seed, progress)
        values = flat(objective, sums)
        if self.journal is not None:
            self.journal.write(progress.step, VALIDATION, values)
        self.board.write(progress.step, VALIDATION, values)
        wanted = self.settings.monitoring.figures
        if self.folder is not None and (wanted == "each" or (wanted == "last" and progress.share >= 1)):
            for name, path in draw(self.folder, objective, batches, sums, progress.step).items():
                self.board.image(name, path, progress.step)
        return values

    def event(self, step: int, text: str) -> None:
        """Something happened."""
        if self.journal is not None:
            self.journal.event(step, text)

    def close(self) -> None:
        """Nothing more comes."""
        self.board.close()


def _codebook(objective: Objective) -> tuple[int, int]:
    """Groups, and codes of all of them together, that perplexities are judged against."""
    quantizer = getattr(objective, "quantizer", None)
    if quantizer is None:
        return FULL_GROUPS, FULL_CODES
    return quantizer.settings.groups, quantizer.settings.groups * quantizer.settings.codes
