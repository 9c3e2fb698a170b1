"""Capture files: what is written is read, whatever happened to them since; playback of what is left."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path
from typing import Any

import pytest
from capture_kit import HEADER, captured, played, timeless_bytes, write_capture
from daemon_kit import SECOND_NS, START_NS, expected, found
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from picker.errors import ConfigError
from streamer.capture.entry import (
    CapturedPacket,
    End,
    Entry,
    Header,
    Hole,
    Server,
    WrongHeaderError,
    decode,
    decode_header,
    encode,
)
from streamer.capture.folder import CaptureFolder, capture_files
from streamer.capture.reader import Capture
from streamer.capture.settings import CaptureSettings
from streamer.errors import BadRecord

letters = st.characters(min_codepoint=32, max_codepoint=126)
packets_ = st.builds(
    CapturedPacket,
    received_ns=st.integers(-(2**63), 2**63 - 1),
    server=st.integers(0, 65535),
    station=st.text(letters, max_size=20),
    sequence=st.none() | st.integers(0, 2**64 - 2),
    protocol=letters,
    format=letters,
    subformat=letters,
    payload=st.binary(max_size=600),
    taken=st.booleans(),
)


def test_known_data_give_known_picks(tmp_path: Path) -> None:
    """Each pulse of two stations is picked once, with the ids of every other way to read them."""
    path = write_capture(tmp_path / "c", [*captured("ONE"), *captured("TWO", server=1)])
    assert found(played(tmp_path, path)) == expected(["ONE", "TWO"])


@given(packets_ | st.builds(Hole, st.integers(0, 2**64 - 1)) | st.builds(End, st.booleans()))
def test_entries_come_back(entry: Entry) -> None:
    """What is decoded is what was encoded, its payload where it is said to be, and cut anywhere it is nothing."""
    data = encode(entry)
    decoded = decode(b"before" + data, 6)
    assert decoded is not None
    assert (decoded.entry, decoded.following) == (entry, 6 + len(data))
    if isinstance(entry, CapturedPacket):
        assert (b"before" + data)[decoded.payload_at : decoded.following] == entry.payload
    assert decode(data[:-1], 0) is None
    assert decode(data[:5], 0) is None


@given(packets_, st.integers(0), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(entry: CapturedPacket, place: int, change: int) -> None:
    """Any byte of an entry changed: it is refused, or ends beyond the file."""
    data = bytearray(encode(entry))
    data[place % len(data)] ^= change
    decoded = None
    with contextlib.suppress(BadRecord):
        decoded = decode(bytes(data), 0)
    assert decoded is None


def test_a_capture_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    """At every length of a file: the packets before the cut, one warning at most, never another packet."""
    packets = captured()[:3]
    path = write_capture(tmp_path / "c", packets)
    data = path.read_bytes()
    begin = data.index(b"\n") + 1
    ends = [begin + sum(len(encode(one)) for one in packets[:count]) for count in range(4)]
    for length in range(begin, len(data), 7):
        path.write_bytes(data[:length])
        with capture_logs() as logs:
            capture = Capture([path])
            kept = [placed.packet for placed in capture]
        assert kept == packets[: sum(end <= length for end in ends) - 1]
        whole = length in ends
        assert [log["event"] for log in logs] == [] if whole else ["capture is cut off in the middle of a packet"]
        assert capture.tally.end is None


def test_a_damaged_packet_is_passed_over_with_one_warning(tmp_path: Path) -> None:
    """Bytes of two packets changed, one in its length: all others are there, and so is every pick."""
    entries = sorted([*captured("ONE"), *captured("TWO", server=1)], key=lambda one: one.received_ns)
    damaged = [place for place, one in enumerate(entries) if one.station == "XX_ONE"][26:57:30]
    path = write_capture(tmp_path / "c", entries)
    data = bytearray(path.read_bytes())
    begin = data.index(b"\n") + 1
    starts = [begin + sum(len(encode(one)) for one in entries[:place]) for place in damaged]
    data[starts[0] + 100] ^= 1
    data[starts[1] + 7] = 0xFF  # the length: so long that it would be the rest of the file, and beyond
    path.write_bytes(data)
    with capture_logs() as logs:
        capture = Capture([path])
        kept = [placed.packet for placed in capture]
    assert kept == [one for place, one in enumerate(entries) if place not in damaged]
    assert (capture.tally.damaged, capture.tally.end) == (2, End(True))
    assert [log["event"] for log in logs] == ["damaged packet passed over; further ones are only counted"]
    assert found(played(tmp_path, path)) == expected(["ONE", "TWO"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty: no packet was captured"),
        (b"MS\x03 miniSEED, not a capture", "not a capture"),
        (b'{"onset_capture": 99}\n', "a capture of format 99"),
        (b'{"onset_capture": 1, "run": "x"}\n', "first line is damaged"),
        (HEADER.encode(), "the capture holds no packet"),
        (gzip.compress(b"text", mtime=0), "not a capture"),
        (gzip.compress(HEADER.encode(), mtime=0)[:20], "cannot be read"),
    ],
)
def test_a_file_that_is_no_capture_is_one_clear_error(tmp_path: Path, content: bytes, said: str, capsys: Any) -> None:
    """Exit status 2 and one line with the file and the reason, from both commands that play captures."""
    from archive_kit import bundle

    from streamer.cli import main

    path = tmp_path / "x.capture"
    path.write_bytes(content)
    for arguments in (["pick", "--model", str(bundle(tmp_path))], ["replay", "--port", "0"]):
        assert main([*arguments, "--capture", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line
        assert said in line


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    """A missing path and a folder without a capture are told apart."""
    with pytest.raises(ConfigError, match="no such file or folder"):
        Capture([tmp_path / "gone"])
    with pytest.raises(ConfigError, match="no capture in this folder"):
        Capture([tmp_path])


def test_the_header_comes_back() -> None:
    """All of it, and nothing else is taken for one."""
    header = Header(run="r", part=2, started_ns=7, servers=(Server(address="a:1", streams=("X_Y HH?",)),), bundle="b")
    assert decode_header(header.encode()) == header
    for line in (b"", b"[]", b"1", b'{"onset_capture": 1, "run": 1, "part": "x", "started_ns": 1, "servers": []}'):
        with pytest.raises(WrongHeaderError):
            decode_header(line)


def test_files_rotate_and_the_oldest_go(tmp_path: Path) -> None:
    """A new file after the time or the size, each readable alone; together they give all packets in order."""
    clock = [START_NS]
    settings = CaptureSettings(path=tmp_path, rotate_h=1.0, max_gb=8 * 5000 / 1e9)
    folder = CaptureFolder(tmp_path, settings, HEADER, clock_ns=lambda: clock[0])
    packets = captured()
    for number, packet in enumerate(packets):
        folder.write([packet])
        clock[0] += SECOND_NS if number != 3 else 3600 * SECOND_NS
    folder.close()
    files = capture_files(tmp_path)
    assert sum(path.stat().st_size for path in files) <= 8 * 5000 + 5000
    assert all(path.stat().st_size < 5000 + 2000 for path in files)
    assert files[0] != folder.finished[0], "the first ones were deleted"
    capture = Capture([tmp_path])
    kept = [placed.packet for placed in capture]
    assert kept == packets[-len(kept) :]
    parts = [header.part for _, header in capture.files]
    assert parts == list(range(parts[0], parts[0] + len(files)))
    assert parts[-1] == len(folder.finished) > len(files)
    with capture_logs() as logs:
        list(Capture([files[0], files[2]]))
    assert [log["event"] for log in logs] == ["parts of the capture are missing"]


def test_the_time_alone_begins_a_new_file(tmp_path: Path) -> None:
    """After an hour, though the file is small; what the parts hold, in whatever order they are named, is the whole."""
    clock = [START_NS]
    folder = CaptureFolder(tmp_path, CaptureSettings(path=tmp_path), HEADER, clock_ns=lambda: clock[0])
    packets = captured()
    folder.write(packets[:50])
    clock[0] += 3600 * SECOND_NS
    folder.write([*packets[50:], End(True)])
    folder.close()
    first, second = folder.finished
    whole = write_capture(tmp_path / "whole", packets)
    with gzip.open(tmp_path / "second.capture.gz", "wb") as file:
        file.write(second.read_bytes())
    again = played(tmp_path, tmp_path / "second.capture.gz", first)
    assert timeless_bytes(again) == timeless_bytes(played(tmp_path, whole))


def test_what_was_left_aside_and_what_came_twice_changes_nothing(tmp_path: Path) -> None:
    """A packet that the reader did not take, and packets that the server sent again: the same picks."""
    packets = captured()
    aside = packets[40]._replace(taken=False)
    path = write_capture(tmp_path / "c", [*packets[:30], aside, *packets[30:60], *packets[50:]])
    whole = write_capture(tmp_path / "whole", packets)
    assert timeless_bytes(played(tmp_path, path)) == timeless_bytes(played(tmp_path, whole))


def test_the_arrival_is_the_clock(tmp_path: Path) -> None:
    """A station whose data arrived before they were recorded is from the future, as it was then."""
    early = [one._replace(received_ns=one.received_ns - 3600 * SECOND_NS) for one in captured("TWO")]
    path = write_capture(tmp_path / "c", [*captured("ONE"), *early])
    assert found(played(tmp_path, path)) == expected(["ONE"])


def test_what_is_open_at_the_end_is_decided_only_where_the_run_ended(tmp_path: Path) -> None:
    """A P in the last chunk: a pick where the run ended in order, none where it was cut off."""
    packets = [one for one in captured() if one.received_ns <= START_NS + 13.6 * SECOND_NS]
    ended = found(played(tmp_path, write_capture(tmp_path / "a", packets)))
    assert ended == {("ONE", "P", START_NS + 12 * SECOND_NS)}
    assert found(played(tmp_path, write_capture(tmp_path / "b", packets, end=False))) <= ended


def test_a_truncated_gzip_gives_its_beginning(tmp_path: Path) -> None:
    """Cut in the middle: packets from the beginning, and a warning."""
    path = write_capture(tmp_path / "c", captured())
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[: len(packed) // 2])
    with capture_logs() as logs:
        kept = [placed.packet for placed in Capture([path])]
    assert kept == captured()[: len(kept)]
    assert 20 < len(kept) < len(captured())
    assert logs[0]["event"] == "compressed capture is damaged: its beginning is used"


async def test_garbage_between_packets_is_found_behind(tmp_path: Path) -> None:
    """Markers in garbage and in payloads lead to no packet that was not sent."""
    packets = captured()
    trick = packets[5]._replace(payload=b"\xf5OC\n" * 50 + encode(packets[6])[:-1])
    path = write_capture(tmp_path / "c", [*packets[:5], trick, *packets[7:]])
    content = await asyncio.to_thread(path.read_bytes)
    place = content.index(encode(packets[7]))
    path.write_bytes(content[:place] + b"\xf5OC\n" * 9 + b"\xff" * 31 + content[place:])
    capture = Capture([path])
    assert [placed.packet for placed in capture] == [*packets[:5], trick, *packets[7:]]
    assert capture.tally.damaged == 1
