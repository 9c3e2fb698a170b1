"""From a decided pick to its message: the facts of one pick as the daemon knows them, and the builder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from picker.decision import PhaseRule
from picker.pick import Pick
from streamer.chunk import StationKey
from streamer.identity import message_key, pick_id, threshold_text
from streamer.instant import SAMPLE_NS, sample_time_ns, utc_text
from streamer.measure import Measures
from streamer.message import (
    Amplitude,
    Analytics,
    Channel,
    ChannelProperties,
    Extensions,
    Geometry,
    Latency,
    OnsetInfo,
    PickMessage,
    Prediction,
    Source,
    Status,
)
from streamer.record import Nslc

METHOD = "onset"


@dataclass(frozen=True, kw_only=True)
class PickReport:
    """Everything that the message of one revision of a pick says.

    ``pick`` counts samples on the station's 100 Hz grid from the Unix epoch, ``time_shift_ns`` is the grid's shift (as
    in Chunk). ``channel`` is the code reported, see ``reported_channel``. ``rule`` is the rule that decided the pick.
    ``data_complete_ns``, ``step_started_ns`` and ``step_ended_ns`` are instants of the daemon's clock: the record that
    completed the chunk arrived, the inference began, the inference ended. ``coordinates`` are longitude and latitude in
    degrees and elevation in metres, or None where not known. ``crossed_shift_ns`` is the shift where the threshold was
    crossed, None where it is ``time_shift_ns``. ``latency_high_s`` is what is told as high latency.
    """

    pick: Pick
    station: StationKey
    channel: str
    time_shift_ns: int
    bundle_label: str
    bundle_digest: str
    lookahead_s: float
    rule: PhaseRule
    data_complete_ns: int
    step_started_ns: int
    step_ended_ns: int
    flags: frozenset[str] = field(default_factory=frozenset)
    coordinates: tuple[float, float, float] | None = None
    revision: int = 1
    status: Status = "confirmed"
    crossed_shift_ns: int | None = None
    reset_age_s: float | None = None
    timing_quality: int | None = None
    measures: Measures | None = None
    latency_high_s: float | None = None

    @property
    def nslc(self) -> Nslc:
        """Codes of the channel reported."""
        return Nslc(self.station.network, self.station.station, self.station.location, self.channel)

    @property
    def time_ns(self) -> int:
        """Arrival time, int ns UTC."""
        return sample_time_ns(self.pick.sample, self.time_shift_ns)

    @property
    def crossed_ns(self) -> int:
        """Instant of the sample whose probability first reached the threshold, int ns UTC."""
        shift_ns = self.time_shift_ns if self.crossed_shift_ns is None else self.crossed_shift_ns
        return sample_time_ns(self.pick.crossed_sample, shift_ns)

    @property
    def decided_ns(self) -> int:
        """Instant of the last sample that the decision needed, int ns UTC."""
        return sample_time_ns(self.pick.decided_sample, self.time_shift_ns)

    @property
    def id(self) -> str:
        """The pick's identity, see ``streamer.identity.pick_id``."""
        return pick_id(self.nslc, self.pick.phase, self.bundle_digest, threshold_text(self.rule), self.crossed_ns)

    @property
    def key(self) -> str:
        """By which the outbox knows this revision again: the id alone where there is but one."""
        return message_key(self.id, self.revision, self.status)


def reported_channel(phase: str, vertical: str | None, horizontals: Sequence[str]) -> str:
    """Code of the channel that a pick is reported on; the arguments are the codes of the components now valid.

    P is reported on the vertical and S on the first horizontal (N or 1 before E or 2); where that is missing, the other
    kind stands in. Raises ValueError where no component is valid.
    """
    wanted = [*horizontals, vertical] if phase == "S" else [vertical, *horizontals]
    for code in wanted:
        if code:
            return code
    raise ValueError(f"no component is valid, so no channel can be reported for {phase}")


def build_message(report: PickReport, source: Source, published_ns: int) -> PickMessage:
    """The message of ``report``, handed to the outbox at ``published_ns`` (int ns UTC).

    Raises ValueError (pydantic's ValidationError) where a value cannot be published, for example a probability that is
    not a number.
    """
    pick, nslc = report.pick, report.nslc
    prediction = Prediction(
        label="phase",
        value=pick.phase,
        probability=round(pick.probability, 6),
        modelID=report.bundle_label,
        modelVersion=report.bundle_digest,
    )
    return PickMessage(
        type="Pick",
        id=report.id,
        channel=Channel(
            type="Feature",
            geometry=Geometry(type="Point", coordinates=report.coordinates) if report.coordinates else None,
            properties=ChannelProperties(**nslc._asdict()),
        ),
        source=source,
        time=utc_text(report.time_ns),
        phase=pick.phase,
        polarity=(report.measures and report.measures.polarity) or "no-result",
        method=METHOD,
        amplitudeInfo=_amplitude(report.measures) if report.measures else None,
        analyticsInfo=Analytics(
            predictions=[prediction],
            extensions=Extensions(onset=_onset_info(report, published_ns)),
        ),
    )


def _onset_info(report: PickReport, published_ns: int) -> OnsetInfo:
    uncertainty, limit_s = report.pick.uncertainty_samples, report.latency_high_s
    return OnsetInfo(
        schema_version=1,
        revision=report.revision,
        status=report.status,
        bundle_label=report.bundle_label,
        bundle_digest=report.bundle_digest,
        threshold=report.rule.threshold,
        lookahead_s=report.lookahead_s,
        crossed_time=utc_text(report.crossed_ns),
        decided_time=utc_text(report.decided_ns),
        published_time=utc_text(published_ns),
        uncertainty_s=None if uncertainty is None else round(uncertainty * SAMPLE_NS / 1e9, 4),
        reset_age_s=None if report.reset_age_s is None else round(report.reset_age_s, 2),
        timing_quality=report.timing_quality,
        latency=Latency(
            data_s=_seconds(report.decided_ns, report.data_complete_ns),
            queue_s=_seconds(report.data_complete_ns, report.step_started_ns),
            inference_s=_seconds(report.step_started_ns, report.step_ended_ns),
            decision_s=_seconds(report.step_ended_ns, published_ns),
            high=True if limit_s is not None and _seconds(report.decided_ns, published_ns) > limit_s else None,
        ),
        quality=sorted(report.flags),
    )


def _amplitude(measures: Measures) -> Amplitude:
    return Amplitude(
        amplitude=_short(measures.amplitude),
        period=None if measures.period_s is None else _short(measures.period_s),
        snr=None if measures.snr is None else _short(measures.snr),
        units="counts",
        method=f"{measures.components}, {measures.signal_s:.2f} s",
    )


def _short(value: float) -> float:
    """Four digits are more than a measurement says."""
    return float(f"{value:.4g}")


def _seconds(earlier_ns: int, later_ns: int) -> float:
    """Seconds between two instants, to the microsecond."""
    return round((later_ns - earlier_ns) / 1e9, 6)
