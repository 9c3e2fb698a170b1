"""The recorder: packets are kept in order, and whatever becomes of the disk, nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from capture_kit import ADDRESSES, HEADER, captured
from seedlink_client import SeedLinkPacket
from structlog.testing import capture_logs

from picker.errors import ConfigError
from streamer.capture.entry import CapturedPacket, Entry
from streamer.capture.folder import CaptureFolder
from streamer.capture.reader import Capture
from streamer.capture.recorder import Recorder
from streamer.capture.settings import CaptureSettings
from streamer.metrics import Metrics

PACKETS = captured()


def folder_at(path: Path, **settings: float) -> CaptureFolder:
    return CaptureFolder(path, CaptureSettings(path=path, **settings), HEADER)


def give(recorder: Recorder, packets: Sequence[CapturedPacket]) -> None:
    """As a reader does."""
    for one in packets:
        packet = SeedLinkPacket(one.station, one.sequence, one.format, one.subformat, one.payload)
        recorder.take(ADDRESSES[one.server], packet, one.protocol, one.received_ns, one.taken)


async def recorded(recorder: Recorder, packets: Sequence[CapturedPacket]) -> None:
    """Give packets to a running recorder and end it."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        give(recorder, packets)
        await asyncio.sleep(0)
        recorder.stop(flushed=True)
        give(recorder, packets)  # too late: passed over


async def test_all_is_kept_in_order(tmp_path: Path) -> None:
    """Each packet once, with all that is known of it, and how the run ended; the counts are metrics."""
    recorder, metrics = Recorder(folder_at(tmp_path / "c"), ADDRESSES), Metrics()
    recorder.register(metrics)
    packets = [*PACKETS[:50], *(one._replace(server=1, taken=False, sequence=None) for one in PACKETS[50:])]
    await recorded(recorder, packets)
    capture = Capture([tmp_path / "c"])
    assert [placed.packet for placed in capture] == packets
    assert capture.tally.end is not None
    assert capture.tally.end.flushed
    value = metrics.registry.get_sample_value
    assert value("onset_capture_total", {"kind": "written"}) == len(packets)
    assert value("onset_capture_total", {"kind": "lost"}) == 0
    assert recorder.stations == {"XX_ONE"}


async def test_a_disk_that_hangs_costs_the_capture_and_nobody_else(tmp_path: Path) -> None:
    """While a write does not return: packets beyond the bound are lost, with one error; the hole is in the file."""
    folder, release = folder_at(tmp_path / "c"), threading.Event()
    write = folder.write

    def slow(entries: Sequence[Entry]) -> int:
        release.wait(10)
        return write(entries)

    folder.write = slow  # type: ignore[method-assign]
    size = 200 + max(len(one.payload) for one in PACKETS)
    recorder = Recorder(folder, ADDRESSES, most_waiting=20 * size)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run())
            give(recorder, PACKETS[:10])
            await asyncio.sleep(0.4)  # these are being written
            give(recorder, PACKETS[10:60])
            lost = recorder.counts["lost"]
            release.set()
            await asyncio.sleep(0.4)
            give(recorder, PACKETS[60:75])
            recorder.stop(flushed=True)
    assert 25 <= lost <= 30
    assert [log["event"] for log in logs] == ["capture does not keep up: packets are left out of it, picking goes on"]
    with capture_logs() as logs:
        capture = Capture([tmp_path / "c"])
        assert [placed.packet for placed in capture] == [*PACKETS[: 60 - lost], *PACKETS[60:75]]
    assert capture.tally.lost == lost
    assert logs[0]["event"] == "the capture lacks packets here"


async def test_a_full_disk_is_said_and_tried_again(tmp_path: Path) -> None:
    """No room for the second write: an error, and after a while a new file; what was written before is whole."""
    folder = folder_at(tmp_path / "c")
    write, full = folder.write, [False]

    def failing(entries: Sequence[Entry]) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(entries)

    folder.write = failing  # type: ignore[method-assign]
    recorder = Recorder(folder, ADDRESSES, retry_s=0.5)
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(recorder.run())
            give(recorder, PACKETS[:30])
            await asyncio.sleep(0.4)
            full[0] = True
            give(recorder, PACKETS[30:40])
            await asyncio.sleep(0.4)
            give(recorder, PACKETS[40:50])
            full[0] = False
            await asyncio.sleep(0.6)
            give(recorder, PACKETS[50:])
            await asyncio.sleep(0.3)
            recorder.stop(flushed=True)
    assert [log["event"] for log in logs] == ["capture cannot be written: packets are left out of it, picking goes on"]
    assert logs[0]["reason"] == "No space left on device"
    assert (recorder.counts["lost"], recorder.counts["failures"]) == (20, 1)
    capture = Capture([tmp_path / "c"])
    assert [placed.packet for placed in capture] == [*PACKETS[:30], *PACKETS[50:]]
    assert capture.tally.lost == 20
    assert [header.part for _, header in capture.files] == [1, 2]


async def test_a_folder_that_cannot_be_made_does_not_end_the_recorder(tmp_path: Path) -> None:
    """A file is where the folder should be: said, counted, and the end comes in order."""
    (tmp_path / "c").write_text("in the way")
    recorder = Recorder(folder_at(tmp_path / "c"), ADDRESSES)
    await recorded(recorder, PACKETS)
    assert recorder.counts["written"] == 0
    assert recorder.counts["lost"] == len(PACKETS)


@pytest.mark.parametrize("hurry", [False, True])
async def test_files_are_compressed_when_they_are_complete(tmp_path: Path, hurry: bool) -> None:
    """All parts are compressed at the end; where there is no time the last ones are left as they are, and usable."""
    recorder = Recorder(folder_at(tmp_path / "c", max_gb=8 * 20_000 / 1e9), ADDRESSES, gzip=True)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(recorder.run())
        for begin in range(0, len(PACKETS), 40):
            give(recorder, PACKETS[begin : begin + 40])
            await asyncio.sleep(0.35)
        recorder.stop(flushed=False, hurry=hurry)
    names = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert len(names) >= 3
    assert all(name.endswith((".capture", ".capture.gz") if hurry else ".capture.gz") for name in names)
    assert names[0].endswith(".capture.gz")
    assert names[-1].endswith(".capture") == hurry
    assert [placed.packet for placed in Capture([tmp_path / "c"])] == PACKETS


def test_there_must_be_a_place_for_the_folder(tmp_path: Path) -> None:
    """The folder itself is made; the one that it lies in is not."""
    assert CaptureSettings(path=tmp_path / "new").folder() == tmp_path / "new"
    for path in (tmp_path / "gone" / "new", Path(__file__)):
        with pytest.raises(ConfigError, match=r"capture\.path"):
            CaptureSettings(path=path).folder()
