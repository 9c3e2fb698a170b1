"""What the tests of captures share: a capture made without a server, and a live run that keeps one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from archive_kit import COMPONENTS, bundle, packets
from daemon_kit import SECOND_NS, START_NS

from streamer.capture.entry import CapturedPacket, End, Entry, Header, Server
from streamer.capture.folder import CaptureFolder
from streamer.capture.settings import CaptureSettings
from streamer.cli import main
from streamer.compare import without_arrival

ADDRESSES = ("127.0.0.1:18000", "127.0.0.1:18001")
HEADER = Header(run="test", part=1, started_ns=0, servers=tuple(Server(address=one) for one in ADDRESSES), onset="1")


def captured(station: str = "ONE", server: int = 0, **more: Any) -> list[CapturedPacket]:
    """Every record of the known data as a packet of its own, half a second after its end, in order of arrival."""
    records = [
        (index + 1, code, record)
        for code, at_s in COMPONENTS.items()
        for index, record in enumerate(packets(code, at_s, (100,), station=station))
    ]
    return [
        CapturedPacket(
            received_ns=START_NS + round((number + 0.5) * SECOND_NS),
            server=server,
            station=f"XX_{station}",
            sequence=7 * place,
            protocol="4",
            format="3",
            subformat="D",
            payload=record,
            **more,
        )
        for place, (number, _, record) in enumerate(sorted(records, key=lambda one: one[0]), 1)
    ]


def write_capture(
    folder: Path, entries: Iterable[Entry], *, started_ns: int = START_NS, end: bool = True, header: Header = HEADER
) -> Path:
    """A capture of one file with these entries, and its end."""
    files = CaptureFolder(folder, CaptureSettings(path=folder), header, clock_ns=lambda: started_ns)
    files.write([*entries, *([End(True)] if end else [])])
    files.close()
    (path,) = files.finished
    return path


def played_text(folder: Path, *arguments: str | Path) -> str:
    """What ``streamer pick --capture`` writes as lines of JSON."""
    out = folder / "played.jsonl"
    options = () if "--config" in arguments else ("--model", str(bundle(folder)))
    assert main(["pick", "--capture", *options, "--out", str(out), *map(str, arguments)]) == 0
    return out.read_text()


def played(folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    """The same, read."""
    return [json.loads(line) for line in played_text(folder, *arguments).splitlines()]


def timeless_bytes(messages: Sequence[dict[str, Any]]) -> list[bytes]:
    """The messages without what tells of arrival, as bytes; sorted, since stations may publish in any order."""
    return sorted(without_arrival(message).encode() for message in messages)


async def in_thread(folder: Path, *arguments: str | Path) -> list[dict[str, Any]]:
    """``played`` beside an event loop."""
    return await asyncio.to_thread(played, folder, *arguments)
