"""Windows read from shards by worker processes: the same for any number of them, from any start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from source_data import CPU, WINDOW, settings, traces, write_folder

from picker.errors import ConfigError
from pretrain.objectives.objective import Batch
from pretrain.selfsupervised import data_loaded
from pretrain.selfsupervised.source import DeviceSource, LoadedSource, open_source

AUGMENTED = {"missing_component_share": 0.5, "flip_share": 0.5, "gain_share": 0.5, "late_share": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All traces in three shards, one of them empty."""
    known = traces()
    return write_folder(tmp_path_factory.mktemp("folder") / "out", [known[:3], [], known[3:]])


def loaded(folder: Path, workers: int, rank: int = 0) -> LoadedSource:
    """A source that reads from disk."""
    values = {"workers": workers, "on_device": False, "prefetch": 2, **AUGMENTED}
    return LoadedSource(settings(folder, **values), batch=8, seed=3, rank=rank, device=CPU)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are equal to the last bit."""
    return torch.equal(one.waveform, other.waveform) and torch.equal(one.valid, other.valid)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_windows_are_those_of_the_device_whatever_the_number_of_workers(folder: Path, workers: int) -> None:
    """From the beginning, from a start in the middle, and after a jump back."""
    device = open_source(settings(folder, on_device=True, **AUGMENTED), batch=8, seed=3, device=CPU)
    assert isinstance(device, DeviceSource)
    source = loaded(folder, workers)
    for index in (0, 1, 2, 3, 4, 40, 41, 42, 2, 3):
        batch = source.batch(index)
        assert batch.waveform.shape == (8, 3, WINDOW)
        assert same(batch, device.batch(index)), index
    assert not same(source.batch(4), loaded(folder, 0, rank=1).batch(4))


def test_the_time_spent_waiting_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk shows in ``waited_s``; data on the device are never waited for."""
    source = loaded(folder, 0)
    source.batch(0)
    before = source.waited_s
    assert 0 < before < 5

    def slow(dataset: data_loaded.WindowDataset, index: int) -> object:
        data_loaded.time.sleep(0.3)
        return read(dataset, index)

    read = data_loaded.WindowDataset.__getitem__
    monkeypatch.setattr(data_loaded.WindowDataset, "__getitem__", slow)
    source.batch(1)
    assert 0.3 <= source.waited_s - before < 5
    device = open_source(settings(folder, on_device=True), batch=8, seed=3, device=CPU)
    device.batch(0)
    assert device.waited_s == 0


def test_shared_memory_that_would_not_do_is_said_beforehand(folder: Path) -> None:
    """Rather than a worker killed without a word; the error says which settings to lower."""
    with pytest.raises(ConfigError, match=r"\[data\] workers: .* MiB are free; lower workers or prefetch"):
        LoadedSource(settings(folder, workers=4000, prefetch=1000), batch=100_000, seed=0, device=CPU)


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    """Not by a worker later on."""
    with pytest.raises(ConfigError, match=r"pack\.json: missing"):
        LoadedSource(settings(tmp_path, workers=2), batch=8, seed=0, device=CPU)
