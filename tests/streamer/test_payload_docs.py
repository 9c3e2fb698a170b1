"""The public description of the payload holds: documentation, schema, and the package of the format itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jsonschema
import pytest
from mqtt_docs import EXAMPLE, GUIDE, SCHEMA, SOURCE, example_report, example_text, schema_text

from streamer.identity import NAMESPACE
from streamer.message import PickMessage
from streamer.payload import build_message

ANSS_PYTHON = os.environ.get("ONSET_ANSS_PYTHON")

READ_BY_ANSS = """
import sys
from anssformats.pick import Pick
for line in sys.stdin:
    print(Pick.model_validate_json(line).model_dump_json())
"""


def test_example_in_the_guide_is_what_the_code_writes() -> None:
    """The guide's example is the builder's own output and validates; mend it with the command in mqtt_docs.py."""
    found = EXAMPLE.search(GUIDE.read_text(encoding="utf-8"))
    assert found is not None
    assert found.group().strip() == example_text()
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(json.loads(found.group()))
    PickMessage.model_validate_json(found.group())


def test_schema_file_is_the_model_s() -> None:
    """The published schema is generated; mend it with the command in mqtt_docs.py."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


def test_guide_names_the_namespace_of_the_identity() -> None:
    """Whoever makes IDs after the guide uses the namespace of the code."""
    assert str(NAMESPACE) in GUIDE.read_text(encoding="utf-8")


def read_by_anss(lines: bytes) -> subprocess.CompletedProcess[bytes]:
    assert ANSS_PYTHON is not None
    return subprocess.run([ANSS_PYTHON, "-c", READ_BY_ANSS], input=lines, capture_output=True, timeout=60)


@pytest.mark.skipif(
    ANSS_PYTHON is None, reason="ONSET_ANSS_PYTHON names no interpreter that has anss-formats (its own environment)"
)
def test_format_s_own_package_reads_our_messages() -> None:
    """anss-formats takes every message and gives back all of it: times cut to milliseconds, null geometry left out."""
    reports = [
        example_report(),
        example_report(phase="S", coordinates=(11.65, 48.08, 560.0), flags=frozenset()),
    ]
    sent = [build_message(report, SOURCE, report.step_ended_ns).encode() for report in reports]
    result = read_by_anss(b"\n".join(sent) + b"\n")
    assert result.returncode == 0, result.stderr.decode()
    for ours, theirs in zip(map(json.loads, sent), map(json.loads, result.stdout.splitlines()), strict=True):
        ours["time"] = ours["time"][:-4] + "Z"
        if ours["channel"]["geometry"] is None:
            del ours["channel"]["geometry"]
        assert theirs == ours


@pytest.mark.skipif(
    ANSS_PYTHON is None, reason="ONSET_ANSS_PYTHON names no interpreter that has anss-formats (its own environment)"
)
def test_format_has_an_onset_of_its_own() -> None:
    """Why the additions stand under analyticsInfo.extensions: at the top the format refuses an object named onset."""
    report = example_report()
    message = json.loads(build_message(report, SOURCE, report.step_ended_ns).encode())
    message["onset"] = message["analyticsInfo"]["extensions"]["onset"]
    result = read_by_anss(json.dumps(message).encode() + b"\n")
    assert result.returncode != 0
    assert b"impulsive" in result.stderr


def test_python_of_the_daemon_stays_free_of_the_format_s_package() -> None:
    """Building a message brings in neither anss-formats nor a deep-learning framework nor obspy."""
    code = (
        "import sys, streamer.publisher, streamer.watch;"
        "print(sorted({'anssformats', 'torch', 'obspy', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
