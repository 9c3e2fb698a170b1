"""Recorded streams for the proof: gaps are not valid, a long one starts the station afresh, the last seconds count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymseed import MS3TraceList

from export.records import recorded_stream
from picker.errors import ConfigError

START_NS = 1_577_214_000_000_000_000


def write(path: Path, *pieces: tuple[str, int, int], rate_hz: float = 100.0) -> Path:
    """Channels of station XX.ABC, each piece from a sample number, of so many samples that count up from 1000."""
    traces = MS3TraceList()
    for channel, first, count in pieces:
        source = f"FDSN:XX_ABC__{'_'.join(channel)}"
        values = np.arange(1000, 1000 + count, dtype=np.int32)
        traces.add_data(source, values, "i", rate_hz, starttime=START_NS + first * round(1e9 / rate_hz))
    traces.to_file(str(path), overwrite=True)
    return path


def test_a_gap_is_not_valid_and_a_long_one_resets(tmp_path: Path) -> None:
    """Ten chunks, all components; a gap of 3 s, one of 1 s, and a component that ends early."""
    file = write(
        tmp_path / "a.mseed",
        *((f"HH{c}", 0, 100) for c in "ZNE"),
        *((f"HH{c}", 400, 60) for c in "ZNE"),
        ("HHZ", 560, 80),
        ("HHN", 560, 80),
    )
    stream = recorded_stream([file], 6.4, 64)
    assert stream.samples.shape == (1, 3, 640)
    assert np.flatnonzero(stream.reset[0]).tolist() == [400 // 64]
    present = np.zeros(640, np.bool_)
    present[0:100] = present[400:460] = present[560:640] = True
    np.testing.assert_array_equal(stream.valid[0, 0], present)
    np.testing.assert_array_equal(stream.valid[0, 2, :560], present[:560])
    assert not stream.valid[0, 2, 560:].any()
    np.testing.assert_array_equal(stream.samples[0, 0, 400:460], np.arange(60))


def test_the_last_seconds_of_each_station(tmp_path: Path) -> None:
    """Whole chunks up to the end; instruments of one station are rows of their own."""
    file = write(tmp_path / "a.mseed", ("HHZ", 0, 1000), ("HN2", 0, 1000), ("LOG", 0, 1000))
    stream = recorded_stream([file], 2.0, 64)
    assert stream.samples.shape == (2, 3, 192)
    assert stream.valid.any(axis=-1).tolist() == [[True, False, False], [False, False, True]]
    np.testing.assert_array_equal(stream.samples[0, 0], np.arange(192))


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Another rate, a file of something else, no file, less than a chunk."""
    slow = write(tmp_path / "slow.mseed", ("BHZ", 0, 500), rate_hz=20.0)
    (tmp_path / "notes.txt").write_text("not waveforms")
    good = write(tmp_path / "good.mseed", ("HHZ", 0, 500))
    for file, seconds, says in (
        (slow, 5.0, "no channel of three components or one at 100 Hz"),
        (tmp_path / "notes.txt", 5.0, r"notes\.txt: cannot be read as miniSEED"),
        (tmp_path / "absent.mseed", 5.0, r"absent\.mseed: cannot be read as miniSEED"),
        (good, 0.5, "less than one chunk"),
    ):
        with pytest.raises(ConfigError, match=says):
            recorded_stream([file], seconds, 64)
