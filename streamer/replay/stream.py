"""What a stream of packets is called: the codes of SeedLink v3 and the IDs of v4, from one FDSN source identifier."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.errors import BadRecord

PREFIX = "FDSN:"
V3_RECORD_BYTES = 512


@dataclass(frozen=True, slots=True)
class StreamName:
    """Codes of one channel and what they are called in SeedLink.

    ``channel`` is the three-letter SEED code, or None where band, source and subsource do not fit into one letter each.
    """

    network: str
    station: str
    location: str
    band: str
    source: str
    subsource: str

    @property
    def station_id(self) -> str:
        """SeedLink v4 station ID, NET_STA."""
        return f"{self.network}_{self.station}"

    @property
    def stream_id(self) -> str:
        """SeedLink v4 stream ID, LOC_B_S_SS."""
        return f"{self.location}_{self.band}_{self.source}_{self.subsource}"

    @property
    def channel(self) -> str | None:
        """SEED channel code, or None when the codes have no three-letter form."""
        codes = (self.band, self.source, self.subsource)
        return "".join(codes) if all(len(code) == 1 for code in codes) else None

    @property
    def v3_key(self) -> str | None:
        """What SeedLink v3 selectors match: location padded to two with ``-``, then the channel; None without one."""
        channel = self.channel
        return None if channel is None or len(self.location) > 2 else f"{self.location:-<2}{channel}"


def parse_source_id(source_id: str) -> StreamName:
    """Codes of ``FDSN:NET_STA_LOC_B_S_SS`` (FDSN Source Identifiers); raises BadRecord for any other form."""
    parts = source_id.removeprefix(PREFIX).split("_")
    if not source_id.startswith(PREFIX) or len(parts) != 6 or not parts[0] or not parts[1]:
        raise BadRecord("source_id", f"{source_id!r} is not FDSN:NET_STA_LOC_B_S_SS")
    return StreamName(*parts)
