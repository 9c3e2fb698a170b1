"""The pick message: its instants, identity, topic and content."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import jsonschema
import pytest
from mqtt_docs import SOURCE, example_report, schema_text
from pydantic import ValidationError

from picker.decision import PhaseRule
from picker.errors import ConfigError
from picker.pick import Pick
from streamer.chunk import StationKey
from streamer.identity import NAMESPACE, pick_id, threshold_text
from streamer.instant import sample_time_ns, utc_ns, utc_text
from streamer.measure import Measures
from streamer.message import PickMessage
from streamer.payload import build_message, reported_channel
from streamer.record import Nslc
from streamer.topic import checked_root, pick_topic, status_topic

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads(schema_text()), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


def message_of(**changes: object) -> dict[str, object]:
    report = example_report(**changes)
    encoded = build_message(report, SOURCE, report.step_ended_ns).encode()
    values: dict[str, object] = json.loads(encoded)
    return values


@pytest.mark.parametrize("sample", [174_980_000_001, 174_980_000_000.5, 174_980_123_456.25, 0.75, -1.5])
def test_sample_time_is_exact_where_float64_nanoseconds_are_not(sample: float) -> None:
    """The instant of a sample equals exact rational arithmetic, also at today's 1.7e18 ns."""
    assert sample_time_ns(sample, 3) == round(Fraction(sample) * 10_000_000) + 3


def test_instants_are_utc_text_with_microseconds() -> None:
    """Text is rounded to the microsecond, carries into the second, and reads back; other forms are refused."""
    instant_ns = 1_749_800_000_999_999_500
    assert utc_text(instant_ns) == "2025-06-13T07:33:21.000000Z"
    text = utc_text(1_274_977_473_315_000_000)
    assert datetime.fromisoformat(text) == datetime.fromtimestamp(1_274_977_473.315, UTC)
    assert utc_ns(text) == 1_274_977_473_315_000_000
    with pytest.raises(ValueError, match="does not match"):
        utc_ns("2010-05-27T16:24:33.315000+00:00")


def test_pick_id_is_the_documented_uuid5() -> None:
    """The ID is the UUIDv5 of the documented text, so that others can make it, and every part of it matters."""
    nslc, thresholds = Nslc("BW", "UH1", "", "SHZ"), threshold_text(PhaseRule())
    text = "BW.UH1..SHZ|P|abcd|threshold=0.3,release=0.5,dead_time_s=0.5,longest_s=1.0|1274977473250000000"
    assert pick_id(nslc, "P", "abcd", thresholds, 1_274_977_473_250_000_000) == str(uuid.uuid5(NAMESPACE, text))
    report = example_report()
    others = [
        example_report(phase="S"),
        example_report(channel="SHN"),
        example_report(bundle_digest="ff" * 32),
        example_report(rule=PhaseRule(threshold=0.31)),
        example_report(time_shift_ns=1),
        example_report(1),
    ]
    assert len({report.id, *(other.id for other in others)}) == 1 + len(others)


def test_pick_id_depends_on_the_crossing_alone() -> None:
    """A later peak, decision, probability or arrival of the same crossing is the same pick."""
    report, pick = example_report(), example_report().pick
    later = Pick(
        phase="P",
        sample=pick.sample + 3.2,
        probability=0.99,
        crossed_sample=pick.crossed_sample,
        decided_sample=pick.decided_sample + 64,
    )
    assert example_report(pick=later, data_complete_ns=0, flags=frozenset({"gap_near"})).id == report.id


@pytest.mark.parametrize(
    ("nslc", "phase", "topic"),
    [
        (Nslc("CX", "PB01", "", "HHZ"), "P", "onset/v1/picks/CX/PB01/--/P"),
        (Nslc("CX", "PB01", "00", "HHZ"), "S", "onset/v1/picks/CX/PB01/00/S"),
        (Nslc("C+", "P/#1", "  ", "HHZ"), "P", "onset/v1/picks/C_/P__1/--/P"),
        (Nslc("É\x00", "$SYS", "", "HHZ"), "P", "onset/v1/picks/__/_SYS/--/P"),
    ],
)
def test_topic_of_a_pick_is_safe_to_publish_to(nslc: Nslc, phase: str, topic: str) -> None:
    """Codes fill one level each, a blank location is ``--``, and what MQTT reserves never gets through."""
    assert pick_topic(nslc, phase) == topic


def test_topic_root_is_a_setting_and_checked() -> None:
    """The root may be changed, and one that cannot be published to is refused with its reason."""
    assert pick_topic(Nslc("CX", "PB01", "", "HHZ"), "P", "shadow/v1") == "shadow/v1/picks/CX/PB01/--/P"
    assert status_topic("onset/a", "shadow/v1") == "shadow/v1/status/onset_a"
    for root in ("", "onset/#", "+/v1", "/onset", "onset/", "$SYS"):
        with pytest.raises(ConfigError, match="topic root"):
            checked_root(root)


def test_reported_channel_follows_the_phase() -> None:
    """P is reported on the vertical, S on the first valid horizontal; the other kind stands in."""
    assert reported_channel("P", "HHZ", ["HHN", "HHE"]) == "HHZ"
    assert reported_channel("S", "HHZ", ["HHN", "HHE"]) == "HHN"
    assert reported_channel("S", "HHZ", ["HH2"]) == "HH2"
    assert reported_channel("S", "HHZ", []) == "HHZ"
    assert reported_channel("P", None, ["HHN", "HHE"]) == "HHN"
    with pytest.raises(ValueError, match="no component is valid"):
        reported_channel("P", None, [])


def test_message_says_what_the_report_says() -> None:
    """Codes, times, probability, provenance and flags arrive in the keys of the format and in Onset's own."""
    message = message_of(coordinates=(11.65, 48.08, 560.0))
    VALIDATOR.validate(message)
    assert message["time"] == "2010-05-27T16:24:33.315000Z"
    assert message["channel"] == {
        "type": "Feature",
        "geometry": {"type": "Point", "coordinates": [11.65, 48.08, 560.0]},
        "properties": {"network": "BW", "station": "UH1", "location": "", "channel": "SHZ"},
    }
    analytics = message["analyticsInfo"]
    assert isinstance(analytics, dict)
    assert analytics["predictions"][0] == {
        "label": "phase",
        "value": "P",
        "probability": 0.87,
        "modelID": "small-1a2b3c4d",
        "modelVersion": "1a2b3c4d" * 8,
    }
    added = analytics["extensions"]["onset"]
    assert (added["revision"], added["status"], added["threshold"]) == (1, "confirmed", 0.3)
    assert added["crossed_time"] == "2010-05-27T16:24:33.250000Z"
    assert added["quality"] == ["missing_E", "resampled"]


def test_latency_parts_add_up() -> None:
    """The four parts and the wait for evidence make up the time from the arrival of the wave to the publication."""
    report = example_report()
    published_ns = report.step_ended_ns + 500_000
    added = build_message(report, SOURCE, published_ns).analytics_info.extensions.onset
    parts = added.latency
    assert parts.queue_s == 0.004
    assert parts.inference_s == 0.007
    assert parts.decision_s == 0.0005
    waited_s = (report.decided_ns - report.time_ns) / 1e9
    total_s = waited_s + parts.data_s + parts.queue_s + parts.inference_s + parts.decision_s
    assert total_s == pytest.approx((published_ns - report.time_ns) / 1e9, abs=1e-5)


def onset_of(message: dict[str, object]) -> dict[str, object]:
    analytics = message["analyticsInfo"]
    assert isinstance(analytics, dict)
    added: dict[str, object] = analytics["extensions"]["onset"]
    return added


def test_measurements_stand_in_the_keys_of_the_format() -> None:
    """Amplitude, ratio and period in amplitudeInfo, to four digits; what could not be measured is left out."""
    message = message_of()
    assert message["amplitudeInfo"] == {
        "amplitude": 4213.0, "period": 0.08712, "snr": 18.23, "units": "counts", "method": "Z, 0.96 s"
    }  # fmt: skip
    assert message["polarity"] == "up"
    least = message_of(measures=Measures(components="NE", signal_s=0.5, amplitude=0.0))
    assert least["amplitudeInfo"] == {"amplitude": 0.0, "units": "counts", "method": "NE, 0.50 s"}
    assert least["polarity"] == message_of(measures=None)["polarity"] == "no-result"


def test_uncertainty_is_in_seconds_and_absent_while_unknown() -> None:
    """A peak of 6.21 samples is one of 0.0621 s; a provisional pick has none."""
    assert onset_of(message_of())["uncertainty_s"] == 0.0621
    assert onset_of(message_of())["reset_age_s"] == 5230.31
    assert onset_of(message_of(timing_quality=0))["timing_quality"] == 0
    open_still = replace(example_report().pick, uncertainty_samples=None)
    message = message_of(pick=open_still, status="provisional", reset_age_s=None)
    VALIDATOR.validate(message)
    assert not {"uncertainty_s", "reset_age_s"} & onset_of(message).keys()


@pytest.mark.parametrize(("limit_s", "high"), [(None, False), (1.3, False), (1.2, True)])
def test_high_latency_is_marked(limit_s: float | None, high: bool) -> None:
    """Above the limit, from the last sample needed to the publication: 1.28 s here."""
    latency = onset_of(message_of(latency_high_s=limit_s))["latency"]
    assert isinstance(latency, dict)
    assert ("high" in latency) == high
    assert latency.get("high", True) is True


def test_revisions_have_one_id_and_keys_of_their_own() -> None:
    """Each is a valid message; the outbox knows a pick in one message by its id, as it always did."""
    lives = [(1, "provisional"), (2, "confirmed"), (2, "retracted"), (1, "confirmed")]
    reports = [example_report(revision=revision, status=status) for revision, status in lives]
    assert len({report.id for report in reports}) == 1
    assert len({report.key for report in reports}) == 4
    assert reports[-1].key == reports[-1].id
    for (revision, status), report in zip(lives, reports, strict=True):
        message = json.loads(build_message(report, SOURCE, report.step_ended_ns).encode())
        VALIDATOR.validate(message)
        assert (onset_of(message)["revision"], onset_of(message)["status"]) == (revision, status)


def test_a_clock_set_after_the_crossing_leaves_the_id() -> None:
    """The shift where the threshold was crossed counts, not that of the picked sample."""
    report = example_report(time_shift_ns=700, crossed_shift_ns=0)
    assert report.id == example_report().id
    assert report.time_ns == example_report().time_ns + 700


def test_messages_are_small() -> None:
    """With all keys, long codes and every flag a message stays below 2 kB."""
    flags = ["gap", "reset", "resampled", "interpolated", "clock_questionable", "missing_Z", "missing_N"]
    message = message_of(
        flags=frozenset(flags),
        station=StationKey("XX", "ABCDEFGH", "00", "HH"),
        coordinates=(-179.12345, -89.12345, 1.5),
        revision=2,
        status="retracted",
        latency_high_s=0.1,
        bundle_label="a" * 40,
    )
    assert len(json.dumps(message, separators=(",", ":"))) < 2000


def test_absent_keys_are_left_out_save_geometry() -> None:
    """No key holds null, except the geometry that GeoJSON asks for."""
    message = message_of(measures=None)
    assert message["channel"]["geometry"] is None  # type: ignore[index]
    assert json.dumps(message).count("null") == 1
    assert not {"onset", "filterInfo", "amplitudeInfo", "associationInfo"} & message.keys()


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_impossible_probability_makes_no_message(probability: float) -> None:
    """A probability that is none is refused rather than published."""
    pick = Pick(phase="P", sample=1.0, probability=probability, crossed_sample=1, decided_sample=2)
    with pytest.raises(ValidationError):
        build_message(example_report(pick=pick), SOURCE, 0)


def test_model_is_closed_and_frozen_and_the_schema_is_open() -> None:
    """We never write an unknown key, while readers must live with keys that are added later."""
    message = message_of()
    model = PickMessage.model_validate(message)
    assert json.loads(model.encode()) == message
    with pytest.raises(ValidationError, match="frozen"):
        model.phase = "S"  # type: ignore[misc]
    added = message | {"added": 1}
    VALIDATOR.validate(added)
    with pytest.raises(ValidationError, match="Extra inputs"):
        PickMessage.model_validate(added)


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2010-05-27T16:24:33.315Z"},
        {"time": "2010-05-27 16:24:33.315000"},
        {"phase": "P/S"},
        {"type": "Detection"},
        {"onset": {"schema_version": 1}},
        {"polarity": None},
    ],
)
def test_schema_and_model_refuse_the_same(change: dict[str, object]) -> None:
    """What breaks the format is found by the published schema and by the model alike."""
    broken = message_of() | change
    with pytest.raises(ValidationError):
        PickMessage.model_validate(broken)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(broken)
