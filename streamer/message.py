"""The pick message: the ANSS Pick JSON of the USGS (``anss-formats`` 0.1.3), written by models of our own.

The format has a key ``onset`` of its own (``impulsive``, ``emergent``, ``questionable``), so Onset's additions are the
one key ``onset`` of ``analyticsInfo.extensions``, the place that the format gives to additions.

Instants are text in UTC with microseconds and a ``Z``. Keys without a value are left out, save ``geometry``: GeoJSON
(RFC 7946) asks for it in every feature and for ``null`` where the place is not known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from streamer.instant import utc_ns

Phase = Annotated[str, Field(pattern=r"^[A-Za-z]+$")]
Status = Literal["provisional", "confirmed", "retracted"]


def _checked_instant(text: str) -> str:
    utc_ns(text)
    return text


Instant = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        json_schema_extra={"format": "date-time"},
    ),
    AfterValidator(_checked_instant),
]


class _Part(BaseModel):
    """Frozen, no unknown keys, no NaN; keys without a value are not written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key == "geometry"}


class Source(_Part):
    """Who made the pick."""

    agency_id: str = Field(alias="agencyID", description="FDSN code of the agency that runs the daemon")
    author: str = Field(description="Author within the agency")


class Geometry(_Part):
    """GeoJSON point of a channel."""

    type: Literal["Point"]
    coordinates: tuple[Annotated[float, Field(ge=-180, le=180)], Annotated[float, Field(ge=-90, le=90)], float] = Field(
        description="Longitude and latitude in degrees, elevation in metres"
    )


class ChannelProperties(_Part):
    """The four codes; a blank location is the empty string."""

    network: str
    station: str
    location: str
    channel: str


class Channel(_Part):
    """GeoJSON feature of the channel that was picked on."""

    type: Literal["Feature"]
    geometry: Geometry | None = Field(description="null where the place is not known")
    properties: ChannelProperties


class Filter(_Part):
    """A filter that the data went through before the pick."""

    type: str | None = None
    high_pass: float | None = Field(default=None, alias="highPass")
    low_pass: float | None = Field(default=None, alias="lowPass")
    units: str | None = None


class Amplitude(_Part):
    """Measured on the samples that had arrived."""

    amplitude: float | None = Field(default=None, description="Largest absolute value within a second after the onset")
    period: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Dominant period in seconds")
    snr: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        default=None, description="Root mean square after the onset over that before it, above 1 Hz"
    )
    units: str | None = Field(default=None, description="Of amplitude: counts")
    method: str | None = Field(default=None, description="Components and how long after the onset")


class Association(_Part):
    """How the pick was associated; written by an associator, never by Onset."""

    phase: Phase | None = None
    source: Source | None = None
    method: str | None = None


class Prediction(_Part):
    """What the model says: ``label`` is ``phase``, ``value`` the phase."""

    label: str
    value: str
    probability: float = Field(ge=0, le=1, description="That the pick is right, as the bundle is calibrated")
    model_id: str = Field(alias="modelID", description="Label of the model bundle")
    model_version: str = Field(alias="modelVersion", description="Digest of the model bundle, SHA-256")
    source: Source | None = None


class Latency(_Part):
    """Where the time went: the four and ``decided_time - time`` add up to ``published_time - time``. Seconds."""

    data_s: float = Field(description="From decided_time to the arrival of the record that completed the chunk")
    queue_s: float = Field(description="From there to the start of the inference")
    inference_s: float = Field(description="Duration of the inference")
    decision_s: float = Field(description="From the end of the inference to published_time")
    high: Literal[True] | None = Field(
        default=None,
        description="Written where published_time - decided_time is above the setting picks.latency_high_s",
    )


class OnsetInfo(_Part):
    """What Onset adds to the format."""

    schema_version: Literal[1]
    revision: int = Field(ge=1, description="Counts the messages of one id; the highest holds")
    status: Status = Field(
        description="A provisional pick is followed by one of the others; a retracted one is no pick"
    )
    bundle_label: str
    bundle_digest: str = Field(description="SHA-256 of the model bundle, hexadecimal")
    threshold: float = Field(gt=0, lt=1, description="Of the network's own probability, before any calibration")
    lookahead_s: float = Field(ge=0, description="Designed delay of the model")
    crossed_time: Instant = Field(description="Sample at which the probability first reached the threshold")
    decided_time: Instant = Field(description="Last sample that the decision needed")
    published_time: Instant = Field(description="When the message was handed to the outbox")
    uncertainty_s: float | None = Field(
        default=None,
        ge=0,
        description="Standard deviation of time, from the width of the probability peak, as the bundle is calibrated",
    )
    reset_age_s: float | None = Field(
        default=None, description="Data time from the model's last fresh start to the pick"
    )
    timing_quality: int | None = Field(
        default=None, description="Lowest miniSEED timing quality of the data around the pick, in per cent"
    )
    latency: Latency
    quality: list[str] = Field(description="Flags of the policies that touched the data, sorted")


class Extensions(_Part):
    """The place of additions in the format."""

    onset: OnsetInfo


class Analytics(_Part):
    """Predictions of the model, and Onset's additions."""

    predictions: list[Prediction]
    extensions: Extensions


class PickMessage(_Part):
    """One pick, complete in itself."""

    model_config = ConfigDict(title="Onset pick")

    type: Literal["Pick"]
    id: str = Field(description="UUIDv5; the same pick always has the same id")
    channel: Channel
    source: Source
    time: Instant = Field(description="Arrival time")
    phase: Phase
    polarity: Literal["up", "down", "no-result"]
    onset: Literal["impulsive", "emergent", "questionable"] | None = None
    method: str
    filter_info: list[Filter] | None = Field(default=None, alias="filterInfo")
    amplitude_info: Amplitude | None = Field(default=None, alias="amplitudeInfo")
    association_info: Association | None = Field(default=None, alias="associationInfo")
    analytics_info: Analytics = Field(alias="analyticsInfo")

    def encode(self) -> bytes:
        """UTF-8 JSON without white space: the payload of the MQTT message."""
        return self.model_dump_json(by_alias=True).encode()


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) for those who read pick messages: ``docs/pick.schema.json``.

    It is open where the model is closed: within one schema version keys may be added, and readers pass over them.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **PickMessage.model_json_schema()}
    for part in (schema, *schema["$defs"].values()):
        part.pop("additionalProperties", None)
    return schema
