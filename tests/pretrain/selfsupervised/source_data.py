"""Traces whose samples tell where they are from, in memory and as a folder of shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pretrain.data.reading import Reading
from pretrain.data.shards import ShardWriter, write_plan
from pretrain.data.trace import Label, Trace
from pretrain.selfsupervised.data_settings import DataSettings

CPU = torch.device("cpu")
# Tensors of a few kilobytes are slower on several threads than on one.
torch.set_num_threads(1)
WINDOW = 256


def trace(name: str, samples: int = 1000, labels: Sequence[tuple[str, float]] = (), **more: object) -> Trace:
    """A ramp of one count a sample, other signs and slopes for N and E, with labels."""
    ramp = np.arange(samples, dtype=np.float32) * np.array([[1], [-2], [3]], np.float32)
    values: dict[str, object] = {
        "waveform": ramp,
        "valid": np.ones((3, samples), bool),
        "labels": tuple(Label(phase=phase, sample=sample) for phase, sample in labels),
        "kind": "labelled" if labels else "noise",
        "status": "manual" if labels else "noise",
        "source": "north",
        "group": name,
    }
    return Trace(name=name, **(values | more))  # type: ignore[arg-type]


def traces() -> list[Trace]:
    """Two data sets in two folds: labelled, noise, a short one, one with a dead component, one with a gap."""
    gap = np.ones((3, 1200), bool)
    gap[:, 500:600] = False
    dead = np.ones((3, 900), bool)
    dead[1] = False
    return [
        trace("a", 3000, [("P", 1000.0), ("S", 1400.0)]),
        trace("b", 150, [("P", 40.0)], source="south"),
        trace("c", 2000, source="south/CM.CHI"),
        trace("d", 900, valid=dead, waveform=trace("d", 900).waveform * dead),
        trace("e", 1200, valid=gap, waveform=trace("e", 1200).waveform * gap),
        trace("f", 800, [("P", 300.0), ("S", 700.0)], fold="tune"),
        trace("g", 700, fold="tune", source="south/CM.CHI"),
        trace("h", 100, [("S", 50.0)], fold="tune"),
    ]


def settings(pack: str | Path = "unused", **more: object) -> DataSettings:
    """Short windows, nothing augmented."""
    plain = {"missing_component_share": 0.0, "flip_share": 0.0, "window_samples": WINDOW}
    return DataSettings(pack=str(pack), **(plain | more))  # type: ignore[arg-type]


def write_folder(folder: Path, parts: Sequence[Sequence[Trace]], dtype: str = "int16") -> Path:
    """A folder of shards, one for each part."""
    for number, part in enumerate(parts):
        writer = ShardWriter(folder, f"part{number}", dtype)
        for each in part:
            writer.add(each)
        writer.close(Reading(read=len(part)))
    rules = {"dtype": dtype, "split": "train", "tune_share": 0.12, "window_s": 120.0}
    write_plan(folder, {**rules, "parts": {f"part{number}": "made" for number in range(len(parts))}})
    return folder
