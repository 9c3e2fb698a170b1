"""Samples as 16-bit codes: fidelity at every amplitude, what is not valid, and the store of windows."""

from __future__ import annotations

import numpy as np
import pytest
from waveforms import noise

from pretrain.data.catalogue import data_set_of, from_bytes, join, to_bytes
from pretrain.data.sample_codes import bend_for, decode_samples, encode_samples
from pretrain.data.store import store_of
from pretrain.data.trace import Label, Trace


def there_and_back(waveform: np.ndarray, dtype: str) -> np.ndarray:
    """``waveform`` after coding."""
    valid = np.ones(waveform.shape, bool)
    codes, scale, bend = encode_samples(waveform, valid, dtype)
    assert codes.dtype == np.dtype(dtype)
    back, flags = decode_samples(codes, scale, bend)
    assert flags.all()
    return back


def test_sixteen_bits_keep_noise_to_a_small_part_of_itself() -> None:
    """The error of int16 is that of steps of an eighth of the noise; float32 loses nothing."""
    waveform = noise(6000, level=0.003)
    error = np.std(there_and_back(waveform, "int16") - waveform)
    assert 0 < error < 0.003 / 8 / 3
    np.testing.assert_array_equal(there_and_back(waveform, "float32"), waveform)


@pytest.mark.parametrize(("dtype", "part"), [("int16", 0.1), ("float16", 0.1)])
def test_sixteen_bits_hold_a_quake_a_million_times_the_noise(dtype: str, part: float) -> None:
    """Before the onset the error is a small part of the noise, afterwards one of the sample itself; nothing clips."""
    waveform = noise(6000)
    waveform[:, 3000:] += 1e6 * np.sin(np.arange(3000) / 5) * np.exp(-np.arange(3000) / 600)
    error = np.abs(there_and_back(waveform, dtype) - waveform)
    assert np.std(error[:, :3000]) < part
    assert (error[:, 3000:] <= 1e-3 * np.abs(waveform[:, 3000:]) + 1).all()


def test_quiet_counts_come_back_exactly() -> None:
    """Integer data that fit into 16 bits lose nothing."""
    waveform = np.round(noise(6000, level=3)).astype(np.float32)
    np.testing.assert_array_equal(there_and_back(waveform, "int16"), waveform)


@pytest.mark.parametrize("steps", [1.0, 32767.0, 32768.0, 1e5, 1e8, 1e12])
def test_the_bend_reaches_just_as_far_as_it_must(steps: float) -> None:
    """The largest code means at least the largest sample, and hardly more; up to 32,767 steps there is no bend."""
    bend = bend_for(steps)
    assert (bend == 0) == (steps <= 32767)
    if bend:
        assert steps <= np.sinh(bend * 32767) / bend < 1.001 * steps + 10


@pytest.mark.parametrize("dtype", ["int16", "float16", "float32"])
def test_what_is_not_valid_stays_so(dtype: str) -> None:
    """Gaps and dead components come back as not valid and zero, whatever lies beside them."""
    waveform, valid = noise(500), np.ones((3, 500), bool)
    waveform[0, 100:200], valid[0, 100:200], valid[2] = 1e30, False, False
    waveform[1, 7] = np.inf
    back, flags = decode_samples(*encode_samples(waveform, valid, dtype))
    valid[1, 7] = False
    np.testing.assert_array_equal(flags, valid)
    assert not back[~valid].any()
    assert np.abs(back[valid] - waveform[valid]).max() < 0.1


def two_traces() -> list[Trace]:
    """One of 300 samples with two labels and one of 200 without, whose samples tell where they are from."""
    ramp = np.arange(900, dtype=np.float32).reshape(3, 300)
    labels = (Label(phase="P", sample=10.5), Label(phase="S", sample=70.0, weight=0.5))
    return [
        Trace(name="a", waveform=ramp, valid=np.ones((3, 300), bool), labels=labels, source="set/CM.CHI"),
        Trace(name="b", waveform=-ramp[:, :200], valid=np.ones((3, 200), bool), fold="tune", source="other"),
    ]


@pytest.mark.parametrize(("start", "inside"), [(0, 64), (-20, 44), (280, 20), (-100, 0), (300, 0)])
def test_windows_are_cut_where_they_should_and_what_is_beyond_a_trace_is_not_valid(start: int, inside: int) -> None:
    """A window holds its trace's own samples, none of its neighbour's."""
    store = store_of(two_traces())
    codes = store.cut(np.array([0]), np.array([start]), 64)
    first = max(0, -start)
    if inside:
        expected = np.arange(900).reshape(3, 300)[:, max(0, start) : max(0, start) + inside]
        np.testing.assert_array_equal(codes[0, :, first : first + inside], expected)
    assert (~np.isnan(codes)).sum() == 3 * inside


def test_a_catalogue_comes_back_and_joins_with_another() -> None:
    """All that is known survives the bytes; joined, the second's traces lie in shard 1 with their own labels."""
    known = store_of(two_traces()).catalogue
    both = join([known, from_bytes(to_bytes(known))])
    assert both.shard.tolist() == [0, 0, 1, 1]
    assert [both.words["name"][row] for row in range(4)] == ["a", "b", "a", "b"]
    assert [both.words["fold"][row] for row in range(4)] == ["train", "tune", "train", "tune"]
    assert both.label_sample[both.labels(2)].tolist() == [10.5, 70.0]
    assert both.label_phase[both.labels(2)].tolist() == [0, 1]
    assert both.label_sample[both.labels(3)].tolist() == []
    np.testing.assert_array_equal(both.offset, [0, 900, 0, 900])


def test_folds_are_taken_and_data_sets_named_without_their_stations() -> None:
    """``only`` keeps rows whose windows are still their own; a source that ends in a station is its set."""
    kept = store_of(two_traces()).only(("tune",))
    assert len(kept.catalogue) == 1
    assert kept.cut(np.array([0]), np.array([5]), 8)[0, 0].tolist() == [-5.0 - k for k in range(8)]
    for source, name in (("set/CM.CHI", "set"), ("a b/NCEDC", "a b/NCEDC"), ("x", "x"), ("a/b/NZ.WEL", "a/b")):
        assert data_set_of(source) == name
