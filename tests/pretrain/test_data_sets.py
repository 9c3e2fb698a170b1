"""SeisBench sets by name and in chunks, and what their rows say of rates, components and events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from waveforms import noise, row, write_seisbench

from picker.errors import ConfigError
from pretrain.data.reading import BadTrace
from pretrain.data.seisbench import chunks_of, count_rows, open_chunk, read_seisbench
from pretrain.data.seisbench_row import group_of, is_used, rate_of, trace_of
from pretrain.data.sets import SETS, set_folder, set_name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of SeisBench."""
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_chunked(folder: Path, chunks: dict[str, list[str]], listed: bool = True) -> Path:
    """A set in chunks, each with traces of these names."""
    for chunk, names in chunks.items():
        part = write_seisbench(
            folder.parent / "scratch" / chunk, [row(n, 100) for n in names], {n: noise(600, ord(n[0])) for n in names}
        )
        folder.mkdir(parents=True, exist_ok=True)
        (part / "metadata.csv").rename(folder / f"metadata{chunk}.csv")
        (part / "waveforms.hdf5").rename(folder / f"waveforms{chunk}.hdf5")
    if listed:
        (folder / "chunks").write_text("\n".join(chunks) + "\n\n")
    return folder


def test_the_eight_sets_are_found_in_the_cache(cache: Path) -> None:
    """Each is the folder of its name in lower case below datasets, whatever the case it is asked for in."""
    assert len(SETS) == 8
    for name in SETS:
        write_seisbench(cache / "datasets" / name.lower(), [row("a", 100)], {"a": noise(600)})
        assert set_folder(name.upper()) == cache / "datasets" / name.lower()
        assert set_name(name.upper()) == name
    assert [t.source for t in read_seisbench(set_folder("instancecounts"))] == ["made"]


def test_a_set_that_is_not_there_is_one_error_with_folder_and_command(cache: Path) -> None:
    """It names where it looked and what fetches it; a name that is none lists those that are."""
    with pytest.raises(ConfigError) as error:
        set_folder("stead")
    assert str(cache / "datasets" / "stead") in str(error.value)
    assert 'python -c "import seisbench.data as d; d.STEAD()"' in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"--set Nowhere: not known; choose of ETHZ, GEOFON"):
        set_folder("Nowhere")


def test_the_home_folder_is_the_cache_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SeisBench has it: ~/.seisbench."""
    monkeypatch.delenv("SEISBENCH_CACHE_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_seisbench(tmp_path / ".seisbench" / "datasets" / "ethz", [row("a", 100)], {"a": noise(600)})
    assert set_folder("ETHZ") == tmp_path / ".seisbench" / "datasets" / "ethz"


@pytest.mark.parametrize("listed", [True, False])
def test_sets_in_chunks_are_read_chunk_by_chunk(tmp_path: Path, listed: bool) -> None:
    """By the file ``chunks``, or by the names of the files where there is none."""
    folder = write_chunked(tmp_path / "set", {"201": ["c", "d"], "200": ["a", "b"]}, listed)
    assert chunks_of(folder) == ["200", "201"]
    assert count_rows(folder, "200") == 2
    assert [trace.name for trace in read_seisbench(folder)] == ["a", "b", "c", "d"]
    (folder / "waveforms201.hdf5").unlink()
    with pytest.raises(ConfigError, match=r"waveforms201\.hdf5: missing"):
        list(read_seisbench(folder))


@pytest.mark.filterwarnings("ignore")  # SeisBench's own, of its libraries
def test_seisbench_itself_reads_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that SeisBench's own writer packs into buckets, of traces of unequal length, is read as it reads it."""
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(tmp_path / "cache"))
    pytest.importorskip("seisbench.data", exc_type=ImportError)
    import seisbench.data as sbd

    folder = tmp_path / "own"
    folder.mkdir()
    waveforms = {f"t{k}": noise(500 + 40 * k, k) for k in range(5)}
    with sbd.WaveformDataWriter(folder / "metadata.csv", folder / "waveforms.hdf5") as writer:
        writer.data_format = {"dimension_order": "CW", "component_order": "ENZ", "sampling_rate": 100}
        writer.bucketer = sbd.GeometricBucketer(minbucket=1, factor=1.2)
        for name, waveform in waveforms.items():
            writer.add_trace({"trace_name": name, "trace_p_arrival_sample": 100, "source_id": name}, waveform)
    theirs = sbd.WaveformDataset(folder, component_order="ZNE")
    ours = list(read_seisbench(folder))
    assert len(ours) == len(theirs) == 5
    for place, trace in enumerate(ours):
        assert "$" in trace.name
        samples = theirs.get_waveforms(place)
        np.testing.assert_allclose(trace.waveform, samples - samples[:, :1], atol=1e-6)


def test_a_rate_may_be_that_of_the_trace_an_interval_or_that_of_the_set() -> None:
    """The first that is given counts."""
    assert rate_of({"trace_sampling_rate_hz": "50", "trace_dt_s": "0.01"}, {"sampling_rate": "20"}) == 50
    assert rate_of({"trace_sampling_rate_hz": "", "trace_dt_s": "0.025"}, {"sampling_rate": "20"}) == 40
    assert rate_of({}, {"sampling_rate": "20"}) == 20
    assert rate_of({}, {}) == 100


def test_the_order_of_components_may_be_that_of_the_set() -> None:
    """A row that names none takes that of the data format."""
    waveform = noise(600)
    trace, _ = trace_of({"trace_name": "a"}, waveform, {"component_order": "ENZ"}, "set")
    np.testing.assert_array_equal(trace.waveform[0], waveform[2] - waveform[2, 0])


@pytest.mark.parametrize(
    ("values", "group"),
    [
        ({"source_id": "quake", "event_id": "e", "trace_start_time": "2019-12-24T19:04:31Z"}, "quake"),
        ({"event_id": "e", "source_origin_time": "2019"}, "e"),
        ({"source_id": "", "trace_start_time": "2019-12-24T19:04:31Z"}, "2019-12-24T19:0"),
        ({}, "a"),
    ],
)
def test_traces_are_grouped_by_event_else_by_the_time_at_which_they_begin(values: dict[str, str], group: str) -> None:
    """So that two stations' records of one event never lie in both folds."""
    assert group_of({"trace_name": "a"} | values) == group


def test_only_columns_that_have_a_say_are_kept(tmp_path: Path) -> None:
    """The rest of the hundred columns of a set never reaches memory."""
    assert is_used("trace_Pg_arrival_sample")
    assert not is_used("path_ep_distance_km")
    folder = write_seisbench(tmp_path / "set", [row("a", 100, path_ep_distance_km=3.0)], {"a": noise(600)})
    with open_chunk(folder) as chunk:
        (only,) = chunk.rows()
        assert "path_ep_distance_km" not in only
        assert only["trace_p_arrival_sample"] == "100"


def test_notes_say_what_was_mended() -> None:
    """A missing and a constant component, a sample that is not finite, another rate."""
    waveform = noise(600)
    waveform[1] = 7.0
    waveform[0, 30] = np.nan
    _, notes = trace_of({"trace_name": "a", "trace_sampling_rate_hz": "50"}, waveform, {}, "set")
    assert notes == [
        "1 component(s) missing or constant",
        "with samples that are not finite (not valid)",
        "resampled from 50 Hz",
    ]
    assert trace_of({"trace_name": "a"}, noise(600), {}, "set")[1] == []
    with pytest.raises(BadTrace) as error:
        trace_of({"trace_name": "a"}, noise(600)[:2], {}, "set")
    assert error.value.reason == "waveform and component order do not fit"


def test_a_file_that_is_no_hdf5_is_one_error(tmp_path: Path) -> None:
    """It names the file and says to fetch it again."""
    folder = write_seisbench(tmp_path / "set", [row("a", 100)], {"a": noise(600)})
    (folder / "waveforms.hdf5").write_bytes(b"half a download")
    with pytest.raises(ConfigError, match=r"waveforms\.hdf5: cannot be read as HDF5"):
        list(read_seisbench(folder))
