"""Reading SeisBench folders: orders, missing components, gaps, offsets, rates, buckets and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from waveforms import noise, row, write_seisbench

from picker.errors import ConfigError
from pretrain.data.seisbench import STATUS_WEIGHTS, read_seisbench
from pretrain.data.trace import Trace


def read_one(folder: Path, waveform: np.ndarray, data_format: dict[str, object] | None = None, **more: object) -> Trace:
    """The one trace of a folder made of ``waveform`` and a row with ``more``."""
    write_seisbench(folder, [row("a", 500, 800, **more)], {"a": waveform}, data_format)
    (trace,) = read_seisbench(folder)
    return trace


@pytest.mark.parametrize(
    ("order", "rows"), [("ZNE", [0, 1, 2]), ("ENZ", [2, 1, 0]), ("Z12", [0, 1, 2]), ("23Z", [2, 0, 1])]
)
def test_components_come_in_the_order_z_n_e(tmp_path: Path, order: str, rows: list[int]) -> None:
    """Whatever the stored order, row 0 is Z, row 1 is N (or the lower number) and row 2 is E."""
    waveform = noise(1000)
    trace = read_one(tmp_path, waveform, trace_component_order=order)
    expected = waveform[rows] - waveform[rows, :1]
    np.testing.assert_array_equal(trace.waveform, expected)
    assert trace.valid.all()


def test_missing_components_are_zero_and_not_valid(tmp_path: Path) -> None:
    """A vertical-only record gives three rows of which only Z is valid."""
    trace = read_one(tmp_path, noise(1000)[:1], trace_component_order="Z")
    assert trace.waveform.shape == (3, 1000)
    assert trace.valid.sum(axis=1).tolist() == [1000, 0, 0]
    assert not trace.waveform[1:].any()


def test_nan_flat_and_padded_samples_are_not_data(tmp_path: Path) -> None:
    """NaN, a constant component and padding of a second or more are not valid; a short plateau is."""
    waveform = noise(1000)
    waveform[0, 100:103] = np.nan
    waveform[0, 300:350] = waveform[0, 300]
    waveform[1] = 7.0
    waveform[2, 800:] = 0.0
    trace = read_one(tmp_path, waveform)
    assert np.flatnonzero(~trace.valid[0]).tolist() == [100, 101, 102]
    assert not trace.valid[1].any()
    assert trace.valid[2].sum() == 800
    assert np.isfinite(trace.waveform).all()
    assert not trace.waveform[~trace.valid].any()


def test_a_large_offset_is_removed_before_the_cast_to_float32(tmp_path: Path) -> None:
    """Float64 counts at 8e6 with a noise of 0.1 keep that noise to float32 precision."""
    quiet = np.random.default_rng(1).standard_normal((3, 1000)) * 0.1
    trace = read_one(tmp_path, quiet + 8e6)
    np.testing.assert_allclose(trace.waveform, quiet - quiet[:, :1], atol=1e-6)


@pytest.mark.parametrize("rate_hz", [50.0, 125.0, 200.0])
def test_other_rates_are_resampled_and_labels_with_them(tmp_path: Path, rate_hz: float) -> None:
    """A pulse 4 s into a record peaks at sample 400 afterwards, and so does a label on it; gaps move along."""
    samples = int(10 * rate_hz)
    time_s = np.arange(samples) / rate_hz
    waveform = (np.exp(-(((time_s - 4) / 0.1) ** 2)) * 1000 + noise(samples, level=0.01)).astype(np.float32)
    waveform[1, int(7 * rate_hz) : int(8 * rate_hz)] = np.nan
    trace = read_one(
        tmp_path,
        waveform,
        trace_sampling_rate_hz=rate_hz,
        trace_p_arrival_sample=4 * rate_hz,
        trace_s_arrival_sample="",
    )
    assert trace.samples == 1000
    assert trace.p_sample == pytest.approx(400)
    assert int(trace.waveform[0].argmax()) == 400
    assert np.flatnonzero(~trace.valid[1]).tolist() == list(range(700, 800))


def test_buckets_and_swapped_axes_are_understood(tmp_path: Path) -> None:
    """A trace name with ``$`` points into a bucket; ``dimension_order`` WC is turned round."""
    waveforms = np.stack([noise(600, seed=1), noise(600, seed=2)])
    write_seisbench(tmp_path / "bucket", [row("bucket0$1,:3,:500", 100)], {"bucket0": waveforms})
    (trace,) = read_seisbench(tmp_path / "bucket")
    np.testing.assert_array_equal(trace.waveform, waveforms[1, :, :500] - waveforms[1, :, :1])
    swapped = read_one(tmp_path / "swapped", waveforms[0].T, {"dimension_order": "WC"})
    np.testing.assert_array_equal(swapped.waveform, waveforms[0] - waveforms[0, :, :1])


def test_split_and_status_choose_traces_and_weights_follow_status(tmp_path: Path) -> None:
    """``split`` keeps one split, ``status`` its labels and the noise; automatic picks weigh less than manual ones."""
    rows = [
        row("train", 100, 200),
        row("dev", 100, 200, split="dev"),
        row("auto", 100, trace_p_status="auto", split="dev"),
        row("noise", split="dev"),
        row("nowhere", 100, split=""),
    ]
    write_seisbench(tmp_path, rows, {str(r["trace_name"]): noise(600) for r in rows})
    assert [t.name for t in read_seisbench(tmp_path, "dev")] == ["dev", "auto", "noise"]
    assert [t.name for t in read_seisbench(tmp_path, "train")] == ["train", "nowhere"]
    manual = list(read_seisbench(tmp_path, "dev", "manual"))
    assert [(t.name, t.kind, t.fold) for t in manual] == [("dev", "labelled", "dev"), ("noise", "noise", "dev")]
    weights = {t.name: [label.weight for label in t.labels] for t in read_seisbench(tmp_path)}
    assert weights["dev"] == [1.0, 1.0]
    assert weights["auto"] == [STATUS_WEIGHTS["auto"]]
    assert STATUS_WEIGHTS["auto"] < 1


def test_of_several_columns_of_a_phase_the_earliest_counts_and_labels_outside_are_dropped(tmp_path: Path) -> None:
    """Pg and Pn are P arrivals; a label beyond the end of the trace is none."""
    trace = read_one(
        tmp_path,
        noise(1000),
        trace_p_arrival_sample="",
        trace_s_arrival_sample=5000,
        trace_Pg_arrival_sample=420,
        trace_Pn_arrival_sample=400.5,
    )
    assert (trace.p_sample, trace.s_sample) == (400.5, None)


def test_errors_name_the_file_and_the_trace(tmp_path: Path) -> None:
    """A folder that is none, a trace without waveform, an unknown component and a strange rate are clear errors."""
    with pytest.raises(ConfigError, match=r"metadata\.csv: missing"):
        list(read_seisbench(tmp_path))
    write_seisbench(tmp_path, [row("a"), row("b")], {"a": noise(600)})
    with pytest.raises(ConfigError, match=r"waveforms\.hdf5: trace 'b'"):
        list(read_seisbench(tmp_path))
    for key, value, words in (
        ("trace_component_order", "ZUV", "component 'U'"),
        ("trace_component_order", "ZN", r"wants \(2, N\)"),
        ("trace_sampling_rate_hz", 1.0, "1.0 Hz"),
        ("trace_p_arrival_sample", "soon", "soon"),
    ):
        write_seisbench(tmp_path, [row("a", 1.0, **{key: value})], {"a": noise(600)})
        with pytest.raises(ConfigError, match=f"trace 'a'.*{words}"):
            list(read_seisbench(tmp_path))
    (tmp_path / "waveforms.hdf5").unlink()
    with pytest.raises(ConfigError, match=r"waveforms\.hdf5: missing"):
        list(read_seisbench(tmp_path))
