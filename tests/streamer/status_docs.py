"""The parts of the documentation about retained messages that are made by code: two schemas and two examples.

Write them anew after a change of the messages: ``.venv/bin/python -m tests.streamer.status_docs``
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from streamer.chunk import StationKey
from streamer.deadman import PickRate
from streamer.instant import utc_ns
from streamer.station_status import station_status
from streamer.station_watch import HourCount, WatchedStation
from streamer.status_message import DaemonFacts, DaemonStatus, StationStatus, daemon_status, status_schema

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = DOCS / "mqtt.md"
MODELS: dict[str, type[DaemonStatus] | type[StationStatus]] = {"daemon": DaemonStatus, "station": StationStatus}
NOW_NS = utc_ns("2026-11-24T05:00:00.250000Z")
MINUTE_NS = 60_000_000_000


def example(name: str) -> str:
    """The example message, indented."""
    return json.dumps(json.loads(_daemon() if name == "daemon" else _station()), indent=2)


def _daemon() -> bytes:
    facts = DaemonFacts(
        version="0.5.0",
        bundle_label="small-1a2b3c4d",
        bundle_digest="1a2b3c4d" * 8,
        started_ns=NOW_NS - 5 * 86_400_000_000_000,
        servers=(("geofon.example.org:18000", True), ("bw.example.org:18000", False)),
        stations=212,
        attention=(("silent", 1), ("offline", 34)),
    )
    return daemon_status("online", facts, NOW_NS)


def _station() -> bytes:
    one = WatchedStation(PickRate(), None)
    one.last_sample_ns, one.latency_s, one.timing_quality = NOW_NS - 3_520_000_000, 2.84, 100
    one.flags_ns = {"missing_E": NOW_NS, "gap": NOW_NS - 5 * MINUTE_NS}
    one.components_ns = {"Z": NOW_NS, "N": NOW_NS, "E": NOW_NS - 5 * MINUTE_NS}
    minute = NOW_NS // MINUTE_NS
    one.gaps = HourCount([[minute - 5, 1]])
    one.picks = {"P": HourCount([[minute - 40, 3], [minute - 2, 1]]), "S": HourCount([[minute - 40, 2]])}
    return station_status(StationKey("CX", "PB01", "", "HH"), one, (True, "none", False), NOW_NS).encode()


def pattern(name: str) -> re.Pattern[str]:
    """Where the example stands in the guide."""
    return re.compile(rf"(?<=<!-- {name} example -->\n```json\n).*?(?=```)", re.DOTALL)


def schema_file(name: str) -> Path:
    """The file of a schema."""
    return DOCS / f"{name}.schema.json"


def schema_text(name: str) -> str:
    """Its text."""
    return json.dumps(status_schema(MODELS[name]), indent=2) + "\n"


if __name__ == "__main__":
    for name in MODELS:
        schema_file(name).write_text(schema_text(name), encoding="utf-8")
        text = GUIDE.read_text(encoding="utf-8")
        made = example(name) + "\n"
        GUIDE.write_text(pattern(name).sub(lambda _, made=made: made, text, count=1), encoding="utf-8")  # type: ignore[misc]
