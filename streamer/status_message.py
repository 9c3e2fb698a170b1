"""The retained messages: how the daemon is, and how each station is. Public API, described in docs/mqtt.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from streamer.instant import utc_text
from streamer.message import Instant

Attention = Literal["none", "silent", "noisy", "late", "offline"]
ATTENTION: tuple[Attention, ...] = ("silent", "noisy", "late", "offline")
"""Kinds that are cause for attention."""


class _Part(BaseModel):
    """Frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def encode(self) -> bytes:
        """UTF-8 JSON without white space; keys without a value are not written."""
        return self.model_dump_json(exclude_none=True).encode()


class ServerState(_Part):
    """One SeedLink server."""

    server: str = Field(description="host:port")
    delivers: bool = Field(description="Whether it delivers data")


class DaemonStatus(_Part):
    """The daemon's own status; the Last Will and the farewell say ``offline``."""

    model_config = ConfigDict(title="Onset daemon status")

    schema_version: Literal[1]
    status: Literal["online", "offline"] = Field(
        description="While it is offline, what is retained of its stations is the past"
    )
    version: str | None = Field(default=None, description="Version of Onset")
    bundle_label: str | None = Field(default=None, description="Name of the model bundle")
    bundle_digest: str | None = Field(default=None, description="SHA-256 of the model bundle, hexadecimal")
    started: Instant | None = Field(default=None, description="When the daemon was started")
    updated: Instant = Field(description="When the message was made; in a Last Will, when the daemon connected")
    servers: list[ServerState] | None = Field(default=None, description="The SeedLink servers; absent when offline")
    stations: int | None = Field(default=None, ge=0, description="Stations that are picked; absent when offline")
    attention: dict[Literal["silent", "noisy", "late", "offline"], int] | None = Field(
        default=None, description="Stations by the attention that they need; absent when offline"
    )


@dataclass(frozen=True, kw_only=True)
class DaemonFacts:
    """What the daemon knows of itself; the first four are the same from start to end."""

    version: str | None = None
    bundle_label: str | None = None
    bundle_digest: str | None = None
    started_ns: int | None = None
    servers: tuple[tuple[str, bool], ...] | None = None
    """Addresses, and whether they deliver."""
    stations: int | None = None
    attention: tuple[tuple[Attention, int], ...] | None = None


def daemon_status(status: Literal["online", "offline"], facts: DaemonFacts, now_ns: int) -> bytes:
    """The payload of the daemon's status."""
    online, servers, attention = status == "online", facts.servers, facts.attention
    return DaemonStatus(
        schema_version=1,
        status=status,
        version=facts.version,
        bundle_label=facts.bundle_label,
        bundle_digest=facts.bundle_digest,
        started=None if facts.started_ns is None else utc_text(facts.started_ns),
        updated=utc_text(now_ns),
        servers=[ServerState(server=name, delivers=on) for name, on in servers] if online and servers else None,
        stations=facts.stations if online else None,
        attention=dict(attention) if online and attention is not None else None,  # type: ignore[arg-type]
    ).encode()


class StationStatus(_Part):
    """One station, as it was when the message was made."""

    model_config = ConfigDict(title="Onset station status")

    schema_version: Literal[1]
    network: str
    station: str
    location: str = Field(description="A blank location is the empty string")
    band_instrument: str = Field(description="First two letters of the channels that are picked, for example HH")
    online: bool = Field(description="Whether data have come lately; false says that it is offline")
    attention: Attention = Field(description="The most pressing cause for attention")
    muted: bool = Field(description="Whether its picks are held back because there are too many of them")
    last_sample: Instant | None = Field(default=None, description="Time of the newest sample; absent where none came")
    latency_s: float | None = Field(
        default=None, description="From the newest sample to the arrival of the data that completed its chunk (s)"
    )
    components: str = Field(description="Those with data in the minute to last_sample, a part of ZNE")
    timing: Literal["good", "questionable"] = Field(
        description="questionable: in that minute the station itself doubted its clock"
    )
    timing_quality: int | None = Field(
        default=None, description="Timing quality of the newest records (0 to 100 %); absent where they give none"
    )
    quality: list[str] = Field(description="Flags of the data of that minute, those of picks; sorted")
    gaps: int = Field(ge=0, description="Gaps and fresh starts in the hour to last_sample")
    picks: dict[str, int] = Field(description="Picks confirmed in that hour, by phase, the muted ones included")
    picks_muted: int = Field(ge=0, description="Those of them that were held back")
    updated: Instant = Field(description="When the message was made")


def status_schema(model: type[DaemonStatus] | type[StationStatus]) -> dict[str, Any]:
    """JSON Schema (2020-12) of a message, open for keys to come: docs/daemon.schema.json, docs/station.schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("additionalProperties", None)
    return schema
