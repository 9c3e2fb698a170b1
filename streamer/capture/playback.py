"""A capture through the daemon's own ``Picking``: the packets in their order, with their arrival as the clock.

What the reader of a server does to a packet is done again: records that came before are dropped, a packet that was left
aside is left aside. So the stations, the engine and the decision see what those of the live run saw, and the picks are
the same to the byte, apart from what tells of the work's duration.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from picker.errors import OnsetError
from streamer.archive.setup import Setup
from streamer.capture.reader import Capture, Placed
from streamer.decode import decode_each
from streamer.engine import Engine
from streamer.errors import BadRecord
from streamer.message import PickMessage
from streamer.metrics import Metrics
from streamer.payload import PickReport, build_message
from streamer.picking import MOST_ROWS, Picking
from streamer.record import Record
from streamer.seedlink import MINISEED_FORMATS
from streamer.seen import Seen
from streamer.settings import Settings
from streamer.station import StationPolicy
from streamer.station_watch import StationWatch
from streamer.stations import Stations


class Playback:
    """One run over a capture; ``write`` takes the messages in the order in which they are decided.

    ``daemon`` are the settings of the live run, None for the default ones; ``setup`` goes before them.
    """

    def __init__(
        self, setup: Setup, daemon: Settings | None, write: Callable[[PickMessage], None], most_rows: int = MOST_ROWS
    ) -> None:
        settings = setup.stations
        policy = StationPolicy(
            component_wait_s=settings.component_wait_s, interpolate_s=settings.interpolate_s, hold_s=settings.hold_s
        )
        self.records = 0
        self.refused: Counter[str] = Counter()
        """Packets and records that could not be used, by reason; ``seen``: the same had come before."""
        self.picks: Counter[str] = Counter()
        """Messages by phase."""
        self.picking = Picking(
            setup.bundle,
            setup.rules.default,
            Stations(policy, settings.prefer, known=settings.known()),
            Engine(setup.stepper),
            self._take,
            Metrics(),
            guard_s=settings.guard_s,
            station_rules=setup.rules,
            provisional=daemon is not None and daemon.picks.provisional,
            latency_high_s=None if daemon is None else daemon.picks.latency_high_s,
            most_rows=most_rows,
            watch=None if daemon is None else StationWatch(daemon.status.rate_rule(), daemon.mute.rule),
        )
        self._source, self._write = setup.source, write
        self._seen: dict[str, Seen] = {}

    @property
    def station_s(self) -> float:
        """Data worked off, summed over stations (s)."""
        spec = self.picking.engine.spec
        return self.picking.engine.counts["steps"] * spec.chunk_samples / spec.sampling_rate_hz

    def run(self, capture: Capture, on_packet: Callable[[], object] = lambda: None) -> None:
        """Work all packets off; ``on_packet`` is called after each. Whatever a part raises is raised.

        What is open at the end is decided where the live run decided it: where it was ended in order and kept no state.
        """
        try:
            asyncio.run(self._run(capture, on_packet))
        except ExceptionGroup as group:
            # One cause: the first part that fails ends the other.
            raise next((one for one in group.exceptions if isinstance(one, OnsetError)), group.exceptions[0]) from None

    async def _run(self, capture: Capture, on_packet: Callable[[], object]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.picking.run(), name="picking")
            for placed in capture:
                for record in self._usable(placed):
                    self.records += 1
                    await self.picking.deliver(record, placed.packet.received_ns)
                on_packet()
            end = capture.tally.end
            if end is None or not end.flushed:
                self.picking.between_rounds = lambda: None
            await self.picking.end()

    def _usable(self, placed: Placed) -> Iterator[Record]:
        packet = placed.packet
        if not packet.taken:
            return
        if packet.format not in MINISEED_FORMATS:
            self.refused["not_miniseed"] += 1
            return
        seen = self._seen.setdefault(placed.server, Seen())
        for item in decode_each(packet.payload):
            if isinstance(item, BadRecord):
                self.refused[item.reason] += 1
            elif seen.knows(item):
                self.refused["seen"] += 1
            else:
                seen.note(item, packet.received_ns)
                yield item

    def _take(self, report: PickReport) -> None:
        complete_ns = report.data_complete_ns
        at_once = replace(report, step_started_ns=complete_ns, step_ended_ns=complete_ns)
        self.picks[report.pick.phase] += 1
        self._write(build_message(at_once, self._source, complete_ns))
