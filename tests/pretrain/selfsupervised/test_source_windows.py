"""Windows drawn and decoded: where they lie, what is done to them, and that they depend on nothing but their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from source_data import CPU, WINDOW, settings, trace, traces, write_folder

from picker.errors import ConfigError
from pretrain.bank import UNSEEN
from pretrain.data.pack import pack_trace, save_pack
from pretrain.data.sample_codes import decode_samples, encode_samples
from pretrain.data.store import store_of
from pretrain.data.trace import Trace
from pretrain.selfsupervised.data_decode import CodedWindows, decoded
from pretrain.selfsupervised.data_draw import WindowDraw, draw_weights
from pretrain.selfsupervised.source import (
    DataSettings,
    DeviceSource,
    LoadedSource,
    held_out,
    open_held_out,
    open_source,
)


def source(known: list[Trace], batch: int = 64, seed: int = 0, rank: int = 0, **more: object) -> DeviceSource:
    """A source over traces in memory."""
    return DeviceSource(known, settings(**more), batch=batch, seed=seed, rank=rank, device=CPU)


def test_a_batch_is_a_function_of_seed_rank_and_index_alone() -> None:
    """Asked in any order, by any instance, it is the same; another seed, rank or index gives another."""
    more = {"missing_component_share": 0.5, "flip_share": 0.5, "gain_share": 0.5, "late_share": 0.5}
    one, two = source(traces(), **more), source(traces(), **more)
    for index in (0, 1, 2):
        one.batch(index)
    first, again = one.batch(7), two.batch(7)
    assert torch.equal(first.waveform, again.waveform)
    assert torch.equal(first.valid, again.valid)
    others = [one.batch(8), source(traces(), seed=1, **more).batch(7), source(traces(), rank=1, **more).batch(7)]
    assert not any(torch.equal(first.waveform, other.waveform) for other in others)


@pytest.mark.parametrize(("hold", "error"), [("float32", 0), ("int16", 1), ("float16", 9)])
def test_windows_hold_the_samples_of_their_traces(hold: str, error: float) -> None:
    """Every valid sample rises by the slope of its component from the first, in every form in which data are held."""
    known = source(traces(), hold=hold)
    batch = known.batch(3)
    assert batch.waveform.shape == batch.valid.shape == (64, 3, WINDOW)
    assert batch.waveform.dtype == torch.float32
    since = torch.arange(WINDOW) - batch.valid.int().argmax(-1, keepdim=True)
    expected = since * torch.tensor([1.0, -2.0, 3.0])[:, None] * batch.valid
    assert (batch.waveform - expected).abs().max() <= error
    rows = known.draw.plan(3).rows
    dead = torch.from_numpy(rows == 3)
    assert dead.any()
    assert not batch.valid[dead, 1].any()
    assert batch.valid[dead][:, [0, 2]].all()


def test_a_short_trace_lies_wholly_in_its_window_and_a_window_within_a_longer_trace() -> None:
    """Nothing of the neighbouring traces comes in, and a short trace moves about."""
    known = source(traces(), batch=500)
    plan, batch = known.draw.plan(0), known.batch(0)
    short = plan.rows == 1
    assert batch.valid[torch.from_numpy(short)].sum(-1).eq(150).all()
    begin = batch.valid[torch.from_numpy(short), 0].int().argmax(-1)
    assert begin.min() < 20
    assert begin.max() > 86
    whole = np.isin(plan.rows, [0, 2])
    assert batch.valid[torch.from_numpy(whole)].all()


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.5, 0.5, 0.65), (0.0, 0.0, 0.25)])
def test_about_the_wanted_share_of_windows_holds_an_arrival(share: float, low: float, high: float) -> None:
    """Of a trace with two arrivals near each other in twelve windows; the others lie anywhere, edges included."""
    known = source([trace("a", 3000, [("P", 1000.0), ("S", 1100.0)])], batch=2000, arrival_share=share)
    starts = known.draw.plan(0).starts
    held = ((starts <= 1000) & (starts + WINDOW > 1000)) | ((starts <= 1100) & (starts + WINDOW > 1100))
    assert low <= held.mean() <= high
    if share < 1:
        assert starts.min() < 50
        assert starts.max() > 2690
    inside = (1000 - starts)[held & (starts > 850)]
    assert len(np.unique(inside // 26)) >= 5, "arrivals lie anywhere in their windows"


def test_one_or_two_of_the_living_components_are_taken_away_never_the_last() -> None:
    """By the share; a window of a trace with two components loses one at most."""
    known = source(traces(), batch=2000, missing_component_share=0.5)
    plan = known.draw.plan(0)
    alive = known.draw.catalogue.alive[plan.rows]
    left = (alive & plan.keep).sum(axis=1)
    assert left.min() == 1
    whole = alive.all(axis=1)
    assert (left[whole] < 3).mean() == pytest.approx(0.5, abs=0.05)
    assert (left[whole] == 1).mean() == pytest.approx(0.25, abs=0.05)
    assert set(left[~whole]) == {1, 2}
    valid = known.batch(0).valid.any(-1).numpy()
    np.testing.assert_array_equal(valid, alive & plan.keep)


def test_polarity_gain_and_late_beginnings_are_as_often_as_asked() -> None:
    """All components turn together; a late window begins in its first half and starts from zero."""
    known = source([trace("a", 3000)], batch=2000, flip_share=0.5, gain_share=0.3, late_share=0.4)
    plan, batch = known.draw.plan(0), known.batch(0)
    assert (plan.gain[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.05)
    assert (np.sign(plan.gain) == np.sign(plan.gain[:, :1])).all()
    assert (np.abs(plan.gain[:, 0]) != 1).mean() == pytest.approx(0.3, abs=0.05)
    assert 1e-3 / 2 < np.abs(plan.gain).min() < 0.01 < 100 < np.abs(plan.gain).max() < 2e3
    late = torch.from_numpy(plan.birth > 0)
    assert late.float().mean() == pytest.approx(0.4, abs=0.05)
    begin = batch.valid[:, 0].int().argmax(-1)
    assert torch.equal(begin, torch.from_numpy(plan.birth))
    assert begin.max() <= WINDOW // 2
    assert not batch.waveform.gather(-1, begin[:, None, None].expand(-1, 3, 1)).any()
    ordinary = torch.from_numpy(plan.gain)[:, :, None] * torch.tensor([1.0, -2.0, 3.0])[:, None]
    assert torch.allclose(batch.waveform.diff(dim=-1)[:, :, -1:], ordinary, rtol=1e-3)


def test_a_batch_decodes_codes_as_numpy_does() -> None:
    """Bent codes of a loud record included."""
    loud = np.random.default_rng(0).standard_normal((3, 2000)).astype(np.float32)
    loud[:, 1000:] *= 1e6
    codes, scale, bend = encode_samples(loud, np.ones(loud.shape, bool), "int16")
    assert bend.all()
    expected, _ = decode_samples(codes, scale, bend)
    batch = decoded(
        CodedWindows(
            codes=torch.from_numpy(codes[None]),
            scale=torch.from_numpy(scale[None]),
            bend=torch.from_numpy(bend[None]),
            keep=torch.ones(1, 3, dtype=torch.bool),
            gain=torch.ones(1, 3),
            birth=torch.zeros(1, dtype=torch.int64),
        )
    )
    np.testing.assert_allclose(batch.waveform[0], expected - expected[:, :1], rtol=1e-4, atol=0.01)


def test_shares_go_by_data_set_status_or_kind() -> None:
    """The first that names a trace counts; within it data sets go by the root of their windows."""
    known = store_of(traces()).catalogue
    alike = draw_weights(known, {}, WINDOW)
    windows = np.maximum(1, known.samples / WINDOW)
    north = known.data_sets().among(["north"])
    assert alike[north].sum() / alike[~north].sum() == pytest.approx(
        (windows[north].sum() / windows[~north].sum()) ** 0.5
    )
    np.testing.assert_allclose(alike[north] / windows[north], alike[0] / windows[0])
    shared = draw_weights(known, {"south": 0.5, "manual": 0.3, "noise": 0.2}, WINDOW)
    assert shared[~north].sum() == pytest.approx(0.5)
    assert shared[north & known.words["status"].among(["manual"])].sum() == pytest.approx(0.3)
    assert draw_weights(known, {"labelled": 1.0}, WINDOW)[known.label_count == 0].sum() == 0
    with pytest.raises(
        ConfigError, match=r"\[data\] shares: none of 8 traces is of west; name some of labelled, manual"
    ):
        draw_weights(known, {"west": 1.0}, WINDOW)


def test_drawing_follows_the_weights() -> None:
    """Traces come as often as their weight says."""
    known = store_of(traces())
    draw = WindowDraw(known.catalogue, settings(), 4000, 0, 0)
    found = np.bincount(draw.plan(0).rows, minlength=8) / 4000
    np.testing.assert_allclose(found, draw_weights(known.catalogue, {}, WINDOW), atol=0.03)


def test_held_out_windows_are_fixed_whole_and_labelled() -> None:
    """Only of the fold tune, by data set, with arrivals where the window has them; the same at every call."""
    one, two = (held_out(traces(), WINDOW, 4, 5, CPU) for _ in range(2))
    assert [(part.data_set, len(part.names)) for part in one] == [("north", 4), ("south", 2)]
    assert {name for part in one for name in part.names} == {"f", "g", "h"}
    for part, again in zip(one, two, strict=True):
        assert torch.equal(part.batch.waveform, again.batch.waveform)
        assert torch.equal(part.positions, again.positions)
    north, south = one
    assert (south.positions == UNSEEN).all()
    slopes = torch.tensor([1.0, -2.0, 3.0])[:, None]
    for row, name in enumerate(north.names):
        seen = north.positions[row] > UNSEEN
        valid = north.batch.valid[row]
        assert valid.sum(-1).unique().tolist() == [100 if name == "h" else WINDOW]
        assert torch.equal(
            north.batch.waveform[row].diff()[:, valid[0, 1:] & valid[0, :-1]][:, :5], slopes.expand(3, 5)
        )
        if name == "h":
            begin = int(valid[0].int().argmax())
            assert (north.positions[row][seen].item(), north.phases[row][seen].item()) == (begin + 50, 1)
    assert (north.positions > UNSEEN).sum() >= 2
    assert sum(len(part.names) for part in held_out(traces(), WINDOW, 64, 5, CPU, most=2)) == 4
    assert held_out([each for each in traces() if each.fold == "train"], WINDOW, 4, 5, CPU) == []


def write_pack(path: Path) -> Path:
    """All traces as a small pack."""
    save_pack(path, map(pack_trace, traces()))
    return path


def test_the_source_that_fits_is_opened(tmp_path: Path) -> None:
    """A small pack and a small folder lie on the device, a folder too large for it or asked for is read from disk."""
    pack, folder = write_pack(tmp_path / "p.npz"), write_folder(tmp_path / "folder", [traces()])
    wanted = {"batch": 4, "seed": 0, "device": CPU}
    for expected, values in (
        (DeviceSource, {"pack": pack}),
        (DeviceSource, {"pack": pack, "on_device": True}),
        (DeviceSource, {"pack": folder}),
        (LoadedSource, {"pack": folder, "device_limit_gib": 1e-6, "workers": 0}),
        (DeviceSource, {"pack": folder, "device_limit_gib": 1e-6, "on_device": True}),
        (LoadedSource, {"pack": folder, "on_device": False, "workers": 0}),
    ):
        opened = open_source(settings(**values), **wanted)  # type: ignore[arg-type]
        assert type(opened) is expected
        assert opened.batch(0).waveform.shape == (4, 3, WINDOW)
    assert [part.data_set for part in open_held_out(settings(folder), **wanted)] == ["north", "south"]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"on_device = false: .*p\.npz is not a folder of shards"):
        open_source(settings(pack, on_device=False), **wanted)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"none\.npz: no such pack"):
        open_source(settings(tmp_path / "none.npz"), **wanted)  # type: ignore[arg-type]


def test_only_the_fold_train_is_learnt_from(tmp_path: Path) -> None:
    """No window of a source is of a trace that is held out; a pack without the one or the other fold says so."""
    opened = open_source(settings(write_pack(tmp_path / "p.npz")), batch=8, seed=0, device=CPU)
    assert isinstance(opened, DeviceSource)
    assert opened.draw.catalogue.words["fold"].among(["train"]).all()
    assert len(opened.draw.catalogue) == 5
    for fold in ("train", "tune"):
        path = tmp_path / f"{fold}.npz"
        save_pack(path, [pack_trace(each) for each in traces() if each.fold == fold])
    with pytest.raises(ConfigError, match="no trace of fold tune; pack again with a larger --tune-share"):
        open_held_out(settings(tmp_path / "train.npz"), batch=8, seed=0, device=CPU)
    with pytest.raises(ConfigError, match="none of 0 traces"):
        open_source(settings(tmp_path / "tune.npz"), batch=8, seed=0, device=CPU)


def test_settings_refuse_what_they_do_not_know() -> None:
    """An unknown key, a share above one and a window that is no number of chunks."""
    for wrong in ({"speed": 1}, {"late_share": 1.5}, {"window_samples": 100}, {"shares": {"a": -1}}):
        with pytest.raises(ValidationError):
            DataSettings(pack="p", **wrong)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_batch_never_makes_the_host_wait_for_the_gpu() -> None:
    """No synchronisation in drawing, cutting and decoding, and the same windows as on the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    more = {"missing_component_share": 0.5, "flip_share": 0.5, "late_share": 0.5, "hold": "int16"}
    gpu = DeviceSource(traces(), settings(**more), batch=64, seed=0, device=torch.device("cuda"))
    gpu.batch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = gpu.batch(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = source(traces(), **more).batch(1)
    assert torch.equal(batch.valid.cpu(), expected.valid)
    torch.testing.assert_close(batch.waveform.cpu(), expected.waveform)
