"""Records packets as they come, without ever making who receives them wait.

``take`` puts a packet into a bounded queue; a task writes what has gathered, in a worker thread. Where the disk is too
slow, full or gone, packets are left out of the capture, with an error, a count and a mark in the file, and picking goes
on as if nothing were.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog
from seedlink_client import SeedLinkPacket

from picker.version import installed_version
from streamer.capture.entry import CapturedPacket, End, Entry, Header, Hole, Server
from streamer.capture.folder import CaptureFolder, compress
from streamer.metrics import Metrics
from streamer.rate_limit import RateLimit
from streamer.settings import Settings

MOST_WAITING = 64_000_000
"""Bytes of packets that may wait for the disk."""
PACKET_BYTES = 200
"""What a packet takes beside its payload."""
GATHER_S = 0.2
RETRY_S = 60.0
WARN_INTERVAL_S = 60.0

_log = structlog.get_logger(__name__)


class Recorder:
    """``run`` is its task, ``stop`` its end. ``counts``: packets ``written`` and ``lost``, ``bytes``, ``failures``."""

    def __init__(
        self,
        folder: CaptureFolder,
        servers: Sequence[str],
        *,
        gzip: bool = False,
        most_waiting: int = MOST_WAITING,
        retry_s: float = RETRY_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter(written=0, lost=0, bytes=0, failures=0)
        self.stations: set[str] = set()
        self._folder, self._gzip, self._most, self._retry_s = folder, gzip, most_waiting, retry_s
        self._servers = {address: index for index, address in enumerate(servers)}
        self._monotonic = monotonic
        self._limit = RateLimit(WARN_INTERVAL_S, monotonic)
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = self._lost = 0
        self._off_until_s: float | None = None
        self._wake = asyncio.Event()
        self._end: End | None = None
        self._hurry = False

    def take(self, server: str, packet: SeedLinkPacket, protocol: str, received_ns: int, taken: bool) -> None:
        """A packet has come; returns at once."""
        if self._end is not None:
            return
        size = PACKET_BYTES + len(packet.payload)
        if self._off_until_s is not None or self._waiting_bytes + size > self._most:
            self._lose(1)
            return
        self._mark_hole()
        self._waiting_bytes += size
        self._waiting.append(
            CapturedPacket(
                received_ns=received_ns,
                server=self._servers[server],
                station=packet.station_id,
                sequence=packet.seqnum,
                protocol=protocol,
                format=packet.payload_format,
                subformat=packet.payload_subformat,
                payload=bytes(packet.payload),
                taken=taken,
            )
        )
        self._wake.set()

    def stop(self, *, flushed: bool, hurry: bool = False) -> None:
        """Nothing more will come: ``run`` writes what waits, and the end. ``hurry``: leave the last file as it is."""
        if self._end is None:
            self._end, self._hurry = End(flushed), hurry
            self._wake.set()

    def register(self, metrics: Metrics) -> None:
        """Serve the counts as metrics."""
        metrics.add_counters("capture", "Packets captured and left out, bytes, failures", lambda: self.counts, "kind")

    async def run(self) -> None:
        """Write until ``stop``."""
        compressing: asyncio.Task[None] | None = None
        try:
            while self._end is None:
                await self._wait()
                self._wake.clear()
                await self._write()
                if self._gzip and self._folder.finished and (compressing is None or compressing.done()):
                    compressing = asyncio.create_task(self._compress(), name="compression of captures")
            self._mark_hole()
            self._off_until_s = None
            self._waiting.append(self._end)
            await self._write()
            await asyncio.to_thread(self._close)
            if compressing is not None:
                await compressing
            if self._gzip and not self._hurry:
                await self._compress()
        finally:
            self._hurry = True  # a compression that is under way gives up
            if compressing is not None:
                await asyncio.gather(compressing, return_exceptions=True)

    async def _wait(self) -> None:
        """Until there is something to write, and a moment more for what comes with it."""
        left_s = None if self._off_until_s is None else max(0.0, self._off_until_s - self._monotonic())
        try:
            async with asyncio.timeout(left_s):
                await self._wake.wait()
        except TimeoutError:
            self._off_until_s = None
            return
        if self._end is None:
            await asyncio.sleep(GATHER_S)

    async def _write(self) -> None:
        entries, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        if not entries:
            return
        packets = sum(isinstance(entry, CapturedPacket) for entry in entries)
        try:
            self.counts["bytes"] += await asyncio.to_thread(self._folder.write, entries)
        except OSError as error:
            entries += self._waiting
            self._waiting, self._waiting_bytes = deque(), 0
            self._fail(error, entries)
            await asyncio.to_thread(self._close)
        else:
            self.counts["written"] += packets
            self.stations.update(entry.station for entry in entries if isinstance(entry, CapturedPacket))

    def _fail(self, error: OSError, entries: Sequence[Entry]) -> None:
        packets = sum(isinstance(entry, CapturedPacket) for entry in entries)
        self.counts["failures"] += 1
        self.counts["lost"] += packets
        self._lost += packets + sum(entry.packets for entry in entries if isinstance(entry, Hole))
        self._off_until_s = self._monotonic() + self._retry_s
        _log.error(
            "capture cannot be written: packets are left out of it, picking goes on",
            folder=str(self._folder.folder),
            reason=error.strerror or str(error),
            retry_s=self._retry_s,
        )

    def _lose(self, packets: int) -> None:
        self.counts["lost"] += packets
        self._lost += packets
        held_back = self._limit.admit("lost") if self._off_until_s is None else None
        if held_back is not None:
            _log.error(
                "capture does not keep up: packets are left out of it, picking goes on",
                lost=self.counts["lost"],
                held_back=held_back,
            )

    def _mark_hole(self) -> None:
        if self._lost:
            self._waiting.append(Hole(self._lost))
            self._lost = 0

    def _close(self) -> None:
        try:
            self._folder.close()
        except OSError as error:  # the file system has taken what was flushed; there is no more to be had
            _log.error("capture file not closed in order", reason=error.strerror or str(error))

    async def _compress(self) -> None:
        while self._folder.finished and not self._hurry:
            path = self._folder.finished.pop(0)
            try:
                await asyncio.to_thread(compress, path, lambda: self._hurry)
            except FileNotFoundError:
                continue  # it was deleted to make room
            except OSError as error:
                _log.warning("capture file not compressed", file=str(path), reason=error.strerror or str(error))


def recorder_of(settings: Settings, bundle: str = "") -> Recorder | None:
    """The recorder that the settings ask for, None for none; ``bundle`` is the digest of the model that picks.

    Raises ConfigError where there is no folder for its files.
    """
    folder = settings.capture.folder()
    if folder is None:
        return None
    servers = [
        Server(
            address=server.address,
            streams=tuple(" ".join((stream.station_id, *stream.selectors)) for stream in server.streams),
        )
        for server in settings.seedlink
    ]
    header = Header(
        run=uuid.uuid4().hex,
        part=1,
        started_ns=0,
        servers=tuple(servers),
        onset=installed_version(otherwise=""),
        bundle=bundle,
    )
    files = CaptureFolder(folder, settings.capture, header)
    return Recorder(files, [server.address for server in servers], gzip=settings.capture.gzip)
