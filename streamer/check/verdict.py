"""What the daemon would make of the channels that a server has: pure, by the rules of ``streamer/channels.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from streamer.channels import DEFAULT_PREFERENCE, components, normalised, preference_rank, refusal
from streamer.record import Nslc


@dataclass(frozen=True, kw_only=True)
class StationVerdict:
    """One station: the channels that it would be picked on, and why each of the others would not."""

    network: str
    station: str
    location: str
    picked: tuple[str, ...]
    """Channel codes by component, Z, N, E; empty where the station cannot be picked."""
    refused: tuple[tuple[str, str], ...]
    """Channels as LOC.CHA and the reasons, as the daemon counts them."""
    components: str = field(default="")
    """Those that the station has, of ZNE."""

    @property
    def vertical_only(self) -> bool:
        """Whether S picks will be rare."""
        return self.components == "Z"


def judge(streams: Iterable[Nslc], prefer: Sequence[str] = DEFAULT_PREFERENCE) -> list[StationVerdict]:
    """The verdict on each station of ``streams``, in order of their codes.

    A running daemon decides on what arrives in the first seconds, so a channel that is listed but sends nothing may
    change its choice.
    """
    by_station: dict[tuple[str, str], set[Nslc]] = {}
    for nslc in map(normalised, streams):
        by_station.setdefault((nslc.network, nslc.station), set()).add(nslc)
    return [_judge_station(found, prefer) for _, found in sorted(by_station.items())]


def _judge_station(streams: set[Nslc], prefer: Sequence[str]) -> StationVerdict:
    refused = {nslc: reason for nslc in streams if (reason := refusal(nslc.channel)) is not None}
    usable = streams - refused.keys()
    any_one = min(streams)
    picked: dict[str, str] = {}
    location = ""
    if usable:
        best = min(usable, key=lambda nslc: preference_rank(nslc.channel[:2], nslc.location, prefer))
        instrument, location = best.channel[:2], best.location
        chosen = {nslc for nslc in usable if nslc.channel[:2] == instrument and nslc.location == location}
        refused |= dict.fromkeys(usable - chosen, "not_preferred")
        by_letter = components(nslc.channel[-1] for nslc in chosen)
        refused |= {nslc: "component_conflict" for nslc in chosen if nslc.channel[-1] not in by_letter}
        picked = {component: instrument + letter for letter, component in by_letter.items()}
    return StationVerdict(
        network=any_one.network,
        station=any_one.station,
        location=location,
        picked=tuple(picked[component] for component in "ZNE" if component in picked),
        refused=tuple((f"{nslc.location or '--'}.{nslc.channel}", refused[nslc]) for nslc in sorted(refused)),
        components="".join(component for component in "ZNE" if component in picked),
    )
