"""The parts of the documentation that are made by code: ``docs/pick.schema.json`` and the example in ``docs/mqtt.md``.

Write them anew after a change of the message: ``.venv/bin/python -m tests.streamer.mqtt_docs``
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from picker.decision import PhaseRule
from picker.pick import Pick
from streamer.chunk import StationKey
from streamer.instant import sample_time_ns, utc_ns
from streamer.measure import Measures
from streamer.message import Source, json_schema
from streamer.payload import PickReport, build_message

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE, SCHEMA = DOCS / "mqtt.md", DOCS / "pick.schema.json"
EXAMPLE = re.compile(r"(?<=<!-- example -->\n```json\n).*?(?=```)", re.DOTALL)
SOURCE = Source(agencyID="XX", author="onset")


def example_report(sample_offset: int = 0, phase: str = "P", **changes: object) -> PickReport:
    """A pick of an earthquake near Unterhaching; ``sample_offset`` moves it along the grid."""
    sample = utc_ns("2010-05-27T16:24:33.310000Z") // 10_000_000 + sample_offset
    arrived_ns = sample_time_ns(sample + 92) + 1_200_000_000
    values: dict[str, object] = {
        "pick": Pick(
            phase=phase,
            sample=sample + 0.5,
            probability=0.8700000047683716,
            crossed_sample=sample - 6,
            decided_sample=sample + 85,
            uncertainty_samples=6.21,
        ),
        "station": StationKey("BW", "UH1", "", "SH"),
        "channel": "SHZ" if phase == "P" else "SHN",
        "time_shift_ns": 0,
        "bundle_label": "small-1a2b3c4d",
        "bundle_digest": "1a2b3c4d" * 8,
        "lookahead_s": 0.64,
        "rule": PhaseRule(),
        "data_complete_ns": arrived_ns,
        "step_started_ns": arrived_ns + 4_000_000,
        "step_ended_ns": arrived_ns + 11_000_000,
        "flags": frozenset({"resampled", "missing_E"}),
        "reset_age_s": 5230.315,
        "measures": Measures(
            components="Z" if phase == "P" else "N",
            signal_s=0.96,
            amplitude=4213.25,
            snr=18.23456,
            period_s=0.0871234,
            polarity="up" if phase == "P" else None,
        ),
    }
    return PickReport(**(values | changes))  # type: ignore[arg-type]


def example_text() -> str:
    """The example message, indented."""
    report = example_report()
    payload = build_message(report, SOURCE, report.step_ended_ns + 500_000).encode()
    return json.dumps(json.loads(payload), indent=2)


def schema_text() -> str:
    """The text of ``docs/pick.schema.json``."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    GUIDE.write_text(
        EXAMPLE.sub(lambda _: example_text() + "\n", GUIDE.read_text(encoding="utf-8"), count=1), encoding="utf-8"
    )
