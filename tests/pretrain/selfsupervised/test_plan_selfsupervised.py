"""``pretrain plan`` counts what a run would take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pretraining_run import CPU, settings, toml, write_pack
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pretrain.cli import main
from pretrain.selfsupervised.launch import ready_objective
from pretrain.selfsupervised.plan import Step, _kept_bytes, _time, measure, parts, rows


def test_parts_add_up() -> None:
    """To all parameters; what is thrown away is apart from the backbone."""
    objective, _ = ready_objective(settings(), CPU)
    found = parts(objective)
    assert sum(found.values()) == sum(p.numel() for p in objective.parameters())
    backbone = sum(p.numel() for p in objective.backbone.parameters())
    assert sum(number for name, number in found.items() if name.startswith("backbone")) == backbone


def test_kept_bytes_of_a_layer() -> None:
    """A linear layer keeps its input and nothing else: its weight is not counted."""
    layer, x = nn.Linear(8, 4), torch.randn(5, 8)
    with _kept_bytes(layer) as kept:
        layer(x).sum().backward()
    assert list(kept.values()) == [5 * 8 * 4]


def test_operations_are_counted_in_pairs() -> None:
    """A multiply-add is two operations of the counter."""
    with FlopCounterMode(display=False) as counter:
        torch.randn(3, 5) @ torch.randn(5, 7)
    assert counter.get_total_flops() == 2 * 3 * 5 * 7


def test_a_step_is_measured() -> None:
    """Twice the window takes about twice as much; masked frames are two thirds; computing twice keeps less."""
    short, long = (measure(settings(data={"window_samples": n})) for n in (1024, 2048))
    assert long.multiply_adds == pytest.approx(2 * short.multiply_adds, rel=0.1)
    assert long.activation_bytes > 1.7 * short.activation_bytes
    assert short.frames == pytest.approx(0.65 * 256, rel=0.1)
    twice = measure(settings(data={"window_samples": 1024}, model={"checkpointing": True}))
    assert twice.activation_bytes < 0.7 * short.activation_bytes


def test_memory_and_time_follow(tmp_path: Path) -> None:
    """Time from the speed; activations from the windows of a micro-batch on one rank."""
    asked = settings(str(tmp_path / "none.npz"), training={"batch": 8, "accumulate": 2, "steps": 9000})
    found = dict(rows(asked, 2, 10.0))
    assert found["windows a step"] == "8 (2 ranks x 2 micro-batches x 2)"
    assert found["time"].startswith("2.00 h at 10 windows/s, 0.8 s a step")
    assert found["memory: activations"].endswith("2 at once)")
    assert "not there yet" in found["data"]


def test_time_is_guessed_from_what_an_h200_was_seen_to_do() -> None:
    """`base` comes out at the measured windows a second; two GPUs take half of it; uncompiled it is longer."""

    def hours(ranks: int, compiled: bool) -> float:
        asked = settings(training={"batch": 64, "steps": 1_000_000}, model={"compile": compiled})
        (text,) = [text for label, text in _time(asked, base, ranks, None) if label == "time"]
        assert f"on {ranks} x H200" in text
        return float(text.split()[2])

    base = Step(multiply_adds=8.21e9, activation_bytes=0, frames=0)
    assert hours(1, True) == pytest.approx(64e6 / 5576 / 3600, rel=0.05)
    assert hours(2, True) == pytest.approx(hours(1, True) / 2, rel=0.05)
    assert hours(1, False) == pytest.approx(64e6 / 3112 / 3600, rel=0.05)


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints parts, memory, time and data, and refuses what cannot be."""
    config = str(toml(tmp_path / "run.toml", write_pack(tmp_path / "pack.npz")))
    assert main(["plan", config, "--windows-per-s", "100"]) == 0
    printed = capsys.readouterr().out
    for word in ("backbone: unet", "128 + 32", "memory a GPU", "0.04 s a step", "6 traces", "2 traces"):
        assert word in printed
    assert main(["plan", config, "--ranks", "0"]) == 2
    assert "--ranks is 0" in capsys.readouterr().err
    assert main(["plan", config, "--ranks", "3"]) == 2
    assert "must be a multiple" in capsys.readouterr().err
