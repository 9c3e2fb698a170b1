"""The journal, what TensorBoard gets of it, and going on after an interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from picker.errors import ConfigError
from pretrain.selfsupervised.monitor.board import Board, tag
from pretrain.selfsupervised.monitor.journal import Journal, read_journal, series


class Clock:
    """Seconds that go by when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Now."""
        return self.now


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Numbers of every kind, of tensors too; what is not finite is null on disk and NaN when read."""
    clock = Clock()
    journal = Journal(tmp_path / "run", clock)
    clock.now += 2.5
    journal.write(10, "train", {"loss": torch.tensor(1.5), "bad": math.nan, "worse": math.inf, "n": np.float32(0.5)})
    journal.event(11, "skipped")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    figures = {"loss": 1.5, "bad": None, "worse": None, "n": 0.5}
    assert lines[0] == {"step": 10, "seconds": 2.5, "kind": "train", **figures}
    assert (lines[1]["kind"], lines[1]["text"]) == ("event", "skipped")
    entries = read_journal(tmp_path / "run")
    assert math.isnan(entries[0]["bad"])
    assert series(entries, "train", "loss") == ([10], [1.5])


def test_a_resumed_run_goes_on_in_the_same_log(tmp_path: Path) -> None:
    """Lines after the save and half a line of the killed run go, and time is counted on from the save."""
    clock = Clock()
    first = Journal(tmp_path, clock)
    for step in (1, 2, 3):
        clock.now += 10
        first.write(step, "train", {"loss": float(step)})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "seco')
    clock.now = 5000.0
    second = Journal(tmp_path, clock)
    second.forget_after(2)
    clock.now += 1
    second.write(3, "train", {"loss": 30.0})
    entries = read_journal(tmp_path)
    assert [(e["step"], e["seconds"], e["loss"]) for e in entries] == [(1, 10, 1), (2, 20, 2), (3, 21, 30)]


def test_half_a_line_is_not_joined_to_the_next(tmp_path: Path) -> None:
    """Without cutting back too."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "seconds": 7.0, "kind": "train"}\n{"step": 2')
    Journal(tmp_path).write(2, "train", {"loss": 1.0})
    assert [entry["step"] for entry in read_journal(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "no log.jsonl"), ("", "empty"), ('{"step": 1}\nnonsense\n{"step": 2}\n', "line 2")],
)
def test_a_folder_without_a_usable_log_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    """In one line that names the file."""
    if text is not None:
        (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_journal(tmp_path)
    assert "\n" not in str(caught.value)


def test_tensorboard_gets_scalars_in_groups_and_forgets_what_came_after_a_save(tmp_path: Path) -> None:
    """Read back from the event files."""
    first = Board(tmp_path)
    for step in (1, 2, 3):
        first.write(step, "train", {"loss": float(step), "hard_perplexity_0": 5.0, "rate/quantizer": 1e-3})
    first.write(3, "event", {"text": "gone"})
    first.close()
    second = Board(tmp_path, purge_step=3)
    second.write(3, "train", {"loss": 30.0})
    second.write(3, "validation", {"north/accuracy": 0.5})
    second.close()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = {"task/loss", "codebook/hard_perplexity_0", "rate/quantizer", "validation north/accuracy"}
    assert set(found.Tags()["scalars"]) == tags
    assert [(event.step, event.value) for event in found.Scalars("task/loss")] == [(1, 1), (2, 2), (3, 30)]


def test_tags() -> None:
    """A data set may have a stroke in its name."""
    assert tag("validation", "a/b/loss") == "validation a/b/loss"
    assert tag("train", "windows_per_s") == "speed/windows_per_s"
