"""The SeedLink protocol as a state machine: exact replies of v3 and v4, hostile input, and any cut of the bytes."""

from __future__ import annotations

import json
import struct
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymseed import MS3Record

from streamer.replay.directory import Directory
from streamer.replay.packet import served_in_v3
from streamer.replay.request import Origin, StreamRequest
from streamer.replay.ring import StationRing, StreamDescription
from streamer.replay.session import MAX_UNKNOWN_COMMANDS, Begin, Close, Event, Phase, Reply, Session
from streamer.replay.stream import parse_source_id

START_NS = 1_274_977_440_000_000_000


def directory() -> Directory:
    rings = []
    for station in ("BW_UH1", "BW_UH2", "MV_MBGA"):
        names = [parse_source_id(f"FDSN:{station}_{stream}") for stream in ("_H_H_Z", "00_B_H_Z")]
        streams = [StreamDescription(name, "2", "D", START_NS, served_in_v3("2", 512, name)) for name in names]
        rings.append(StationRing(station, streams, 8))
    return Directory("Test centre", START_NS, rings)


def talk(*lines: str, session: Session | None = None) -> tuple[str, list[Event]]:
    """Text of all replies, and the other events."""
    session = session or Session(directory())
    events = session.receive("".join(f"{line}\r\n" for line in lines).encode())
    text = b"".join(event.data for event in events if isinstance(event, Reply)).decode()
    return text, [event for event in events if not isinstance(event, Reply)]


def begun(*lines: str) -> StreamRequest:
    """What a handshake asked for."""
    _, events = talk(*lines)
    (event,) = events
    assert isinstance(event, Begin)
    return event.request


def test_hello_has_the_form_that_the_specification_asks_for() -> None:
    """Line one starts ``SeedLink vX.Y (implementation) ::`` and names the versions; line two is the site."""
    text, _ = talk("hello")
    first, second, end = text.split("\r\n")
    assert first.startswith("SeedLink v4.0 (Onset/")
    assert {"SLPROTO:4.0", "SLPROTO:3.1", "TIME"} <= set(first.partition(" :: ")[2].split())
    assert (second, end) == ("Test centre", "")


def test_login() -> None:
    """Where logins are set, AUTH comes before everything else; version 3, which has none, gets nothing."""
    session = Session(directory(), {"USERPASS a b", "JWT t"})
    station = "STATION BW_UH1"
    lines = ("SLPROTO 4.0", "INFO ID", station, "AUTH USERPASS a c", station, "AUTH JWT t", station)
    text, _ = talk(*lines, session=session)
    words = [line.split()[:2] for line in text.splitlines()]
    refused = ["ERROR", "UNAUTHORIZED"]
    assert words == [["OK"], refused, refused, ["ERROR", "AUTH"], refused, ["OK"], ["OK"]]
    text, _ = talk("STATION UH1 BW", "AUTH JWT t", "STATION UH1 BW", session=Session(directory(), {"JWT t"}))
    assert text.splitlines() == ["ERROR", "ERROR", "ERROR"]


def test_v4_handshake() -> None:
    """Commands are answered OK, END is not, and the request holds what was asked."""
    lines = ("SLPROTO 4.0", "USERAGENT a/1 b/2", "STATION BW_UH1", "SELECT _H_H_? !*_E", "DATA 17", "STATION MV_*")
    text, events = talk(*lines, "DATA ALL 2010-05-27T16:24:00Z 2010-05-27T16:25:00.5Z", "END")
    assert text == "OK\r\n" * 7
    (event,) = events
    assert isinstance(event, Begin)
    request = event.request
    first, second = request.stations
    assert (request.protocol, request.dialup, request.end_after_window) == (4, False, False)
    assert (first.pattern, first.start.origin, first.start.sequence) == ("BW_UH1", Origin.SEQUENCE, 17)
    assert [selector.negative for selector in first.selectors] == [False, True]
    assert (second.start.origin, second.start.begin_ns) == (Origin.EARLIEST, START_NS)
    assert second.start.end_ns == START_NS + 60_500_000_000


def test_v4_endfetch_asks_for_dialup() -> None:
    """ENDFETCH instead of END means: what is there, then END."""
    assert begun("SLPROTO 4.0", "STATION *", "DATA ALL", "ENDFETCH").dialup


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("STATION", "ARGUMENTS"),
        ("STATION BW_UH9", "ARGUMENTS"),
        ("STATION BW_[UH1]", "ARGUMENTS"),
        ("SELECT", "ARGUMENTS"),
        ("SELECT *:3", "ARGUMENTS"),
        ("SELECT !*_Z:native", "ARGUMENTS"),
        ("SELECT BH[Z]", "ARGUMENTS"),
        ("DATA abc", "ARGUMENTS"),
        ("DATA 99999999999999999999", "ARGUMENTS"),
        ("DATA ALL yesterday", "ARGUMENTS"),
        ("DATA ALL 2010-05-27T16:24:00", "ARGUMENTS"),
        ("DATA ALL 2010-13-27T16:24:00Z", "ARGUMENTS"),
        ("DATA ALL 2010-05-27T16:24:00Z 2010-05-27T16:23:00Z", "ARGUMENTS"),
        ("DATA 1 2010-05-27T16:24:00Z 2010-05-27T16:25:00Z 3", "ARGUMENTS"),
        ("TIME 2010,5,27,16,24,0", "UNSUPPORTED"),
        ("BATCH", "UNSUPPORTED"),
        ("CAT", "UNSUPPORTED"),
        ("AUTH USERPASS a b", "UNSUPPORTED"),
        ("SLPROTO 4.0", "UNEXPECTED"),
        ("GET / HTTP/1.1", "UNSUPPORTED"),
    ],
)
def test_v4_errors_carry_their_code(line: str, code: str) -> None:
    """A command that cannot be followed is answered on one line with the code of the specification."""
    text, events = talk("SLPROTO 4.0", "STATION BW_UH1", line)
    *_, answer, end = text.split("\r\n")
    assert text.count("\r\n") == 3
    assert answer.split()[:2] == ["ERROR", code]
    assert (end, events) == ("", [])


def test_v4_sequence_with_a_station_wildcard_is_refused() -> None:
    """Sequences count per station, so a wildcard cannot have one; ALL and none are fine."""
    text, _ = talk("SLPROTO 4.0", "STATION BW_*", "DATA 5", "DATA ALL", "DATA")
    assert [answer.split()[0] for answer in text.splitlines()] == ["OK", "OK", "ERROR", "OK", "OK"]


def test_v4_commands_after_a_refused_station_are_ignored() -> None:
    """SELECT and DATA up to the next STATION have no effect on the station before it."""
    lines = ("SLPROTO 4.0", "STATION BW_UH1", "DATA 3", "STATION BW_NONE", "SELECT *_Z", "DATA ALL", "END")
    (station,) = begun(*lines).stations
    assert (station.pattern, station.start.sequence, station.selectors) == ("BW_UH1", 3, [])


def test_v4_only_info_and_bye_during_transfer() -> None:
    """Once packets flow, other commands are unexpected, INFO is answered and BYE closes."""
    session = Session(directory())
    talk("SLPROTO 4.0", "STATION *", "DATA", "END", session=session)
    text, _ = talk("STATION *", session=session)
    assert text.startswith("ERROR UNEXPECTED")
    (reply,) = session.receive(b"INFO ID\n")
    assert isinstance(reply, Reply)
    assert reply.data.startswith(b"SEJI")
    session.end_sent()
    assert session.receive(b"INFO ID\nDATA\n") == []
    assert session.receive(b"bye\n") == [Close("BYE")]


def test_v3_handshake_of_several_stations() -> None:
    """STATION has the station first, sequences are hexadecimal, named stations come before wildcards."""
    lines = (
        "STATION * BW",
        "DATA",
        "STATION  UH1 BW",
        "SELECT 00BH?.D",
        "SELECT HHZ",
        "SELECT !HHE",
        "DATA 0xA",
        "END",
    )
    text, _ = talk(*lines)
    assert text == "OK\r\n" * 7
    request = begun(*lines)
    named, wildcard = request.stations
    assert (request.protocol, named.pattern, wildcard.pattern) == (3, "BW_UH1", "BW_*")
    assert (named.start.sequence, len(named.selectors)) == (10, 3)


def test_v3_uni_station_mode_begins_without_a_reply() -> None:
    """Without STATION, DATA, FETCH and TIME are action commands: the packets are the answer."""
    text, events = talk("SELECT BHZ", "DATA")
    assert text == "OK\r\n"
    assert isinstance(events[0], Begin)
    assert events[0].request.stations[0].pattern == "*"
    assert begun("FETCH").dialup
    window = begun("TIME 2010,5,27,16,24,0 2010,5,27,16,25,0")
    assert window.end_after_window
    assert window.stations[0].start.end_ns == START_NS + 60_000_000_000


def test_v3_uni_station_sequence_among_several_stations_is_refused() -> None:
    """A number cannot say which station it counts."""
    assert talk("DATA 5") == ("ERROR\r\n", [])


def test_v3_select_without_pattern_cancels_selectors() -> None:
    """An empty SELECT means all streams again."""
    assert begun("STATION UH1 BW", "SELECT BHZ", "SELECT", "DATA", "END").stations[0].selectors == []


def test_v3_errors_are_plain_and_extended_on_request() -> None:
    """ERROR alone, or with its reason after a CR once CAPABILITIES EXTREPLY was sent."""
    assert talk("STATION UH9 BW")[0] == "ERROR\r\n"
    text, _ = talk("CAPABILITIES EXTREPLY", "STATION UH9 BW")
    assert text == "OK\r\nERROR\rARGUMENTS station BW_UH9 is not served here\r\n"
    assert talk("STATION UH1 BW", "SELECT B")[0] == "OK\r\nERROR\r\n"


def test_v3_batch_silences_replies() -> None:
    """After BATCH, modifier commands and their errors have no reply."""
    assert talk("BATCH", "STATION UH9 BW", "STATION UH1 BW", "SELECT BHZ", "DATA")[0] == "OK\r\n"


def test_v3_cat_lists_stations() -> None:
    """One line a station, network first, then END."""
    text, _ = talk("CAT")
    assert [line.split()[:2] for line in text.splitlines()] == [["BW", "UH1"], ["BW", "UH2"], ["MV", "MBGA"], ["END"]]


def info_v3(level: str) -> tuple[ElementTree.Element, str, list[bytes]]:
    """XML of an INFO level, channel of its records, and their headers."""
    (reply,) = Session(directory()).receive(f"INFO {level}\r\n".encode())
    assert isinstance(reply, Reply)
    packets = [reply.data[at : at + 520] for at in range(0, len(reply.data), 520)]
    records = [MS3Record.parse(packet[8:], unpack_data=True) for packet in packets]
    text = b"".join(bytes(record.datasamples) for record in records).decode("ascii")
    return ElementTree.fromstring(text), records[0].sourceid, [packet[:8] for packet in packets]


def test_v3_info_is_xml_in_log_records() -> None:
    """INFO STREAMS spans several 520-byte packets; all but the last say that more follows."""
    root, source_id, headers = info_v3("STREAMS")
    assert source_id == "FDSN:SL_INFO__I_N_F"
    assert len(headers) > 1
    assert headers == [b"SLINFO *"] * (len(headers) - 1) + [b"SLINFO  "]
    stations = root.findall("station")
    assert [(one.get("network"), one.get("name"), one.get("begin_seq")) for one in stations] == [
        ("BW", "UH1", "000001"),
        ("BW", "UH2", "000001"),
        ("MV", "MBGA", "000001"),
    ]
    streams = [(one.get("location"), one.get("seedname"), one.get("type")) for one in stations[0].findall("stream")]
    assert streams == [("", "HHZ", "D"), ("00", "BHZ", "D")]
    assert stations[0].find("stream").get("begin_time") == "2010/05/27 16:24:00.0000"


def test_v3_info_levels() -> None:
    """ID names the server, CAPABILITIES lists, STATIONS has no streams; an unknown level is an ERR record."""
    assert info_v3("ID")[0].get("organization") == "Test centre"
    assert "window-extraction" in [one.get("name") for one in info_v3("CAPABILITIES")[0]]
    assert not info_v3("stations")[0].findall("station/stream")
    assert info_v3("GAPS")[1] == "FDSN:SL_INFO__E_R_R"


def info_v4(line: str) -> tuple[str, dict[str, object]]:
    """Subformat and document of a v4 INFO reply."""
    _, reply = Session(directory()).receive(f"SLPROTO 4.0\r\nINFO {line}\r\n".encode())
    assert isinstance(reply, Reply)
    signature, kind, length, sequence, station = struct.unpack_from("<2s2sIQB", reply.data)
    assert (signature, sequence, station, length) == (b"SE", 0, 0, len(reply.data) - 17)
    return kind.decode(), json.loads(reply.data[17:])


def test_v4_info_is_json_with_patterns() -> None:
    """Items hold what the schema of the specification lists for them; patterns choose stations and streams."""
    kind, document = info_v4("ID")
    assert (kind, sorted(document)) == ("JI", ["organization", "software"])
    assert sorted(info_v4("FORMATS")[1]) == ["filter", "format", "organization", "software"]
    _, document = info_v4("STREAMS BW_* 00_*")
    assert [station["id"] for station in document["station"]] == ["BW_UH1", "BW_UH2"]
    assert document["station"][0]["stream"] == [
        {
            "id": "00_B_H_Z",
            "format": "2",
            "subformat": "D",
            "start_time": "2010-05-27T16:24:00.000000Z",
            "end_time": "2010-05-27T16:24:00.000000Z",
        }
    ]
    _, document = info_v4("STATIONS MV_*")
    assert document["station"] == [{"id": "MV_MBGA", "description": "replay", "start_seq": 1, "end_seq": 1}]


@pytest.mark.parametrize(
    ("line", "code"), [("", "ARGUMENTS"), ("CONNECTIONS", "UNSUPPORTED"), ("STREAMS [", "ARGUMENTS")]
)
def test_v4_info_errors_are_packets(line: str, code: str) -> None:
    """INFO never gets an ERROR line: the error is a JSON packet with subformat E."""
    kind, document = info_v4(line)
    assert kind == "JE"
    assert document["error"]["code"] == code


def test_endless_line_is_cut_off() -> None:
    """A command line without end gets one error, closes the session and is not kept."""
    session = Session(directory())
    events = [event for _ in range(1000) for event in session.receive(b"A" * 1000)]
    assert events[0] == Reply(b"ERROR\r\n")
    assert isinstance(events[1], Close)
    assert len(events) == 2
    assert session.phase is Phase.CLOSED


def test_endless_garbage_is_cut_off() -> None:
    """A peer that speaks something else is closed after a few unknown commands."""
    events = Session(directory()).receive(b"\xff\x00 garbage\n" * 1000)
    assert sum(isinstance(event, Reply) for event in events) == MAX_UNKNOWN_COMMANDS + 1
    assert isinstance(events[-1], Close)


SCRIPTS = [
    b"HELLO\r\nSLPROTO 4.0\r\nUSERAGENT x/1\r\n"
    b"STATION BW_UH1\rSELECT _H_H_Z\rDATA 12\rSTATION *\nDATA ALL\nEND\r\nINFO ID\rBYE\r",
    b"HELLO\rCAT\r\n\r\n\nINFO STATIONS\r\nBATCH\n"
    b"STATION UH1 BW\rSELECT BH?\rDATA AB 2010,5,27,16,24,0\r\nEND\r\nDATA\r\n",
    b"SLPROTO 4.0\nNONSENSE\nSTATION BW_NO\nDATA\nSELECT *\n" + b"X" * 254 + b"\nHELLO\n",
    b"SELECT !BHZ.D\r\n" + b"Y" * 253 + b"\r\nFETCH\r\nBYE",
    b"\xff\xfe" * 100 + b"\r" + b"INFO\r" * 3,
]


@settings(max_examples=200, deadline=None)
@given(script=st.sampled_from(SCRIPTS), cuts=st.lists(st.integers(0, 400), max_size=12))
@example(script=SCRIPTS[0], cuts=list(range(400)))
@example(script=SCRIPTS[2], cuts=list(range(400)))
def test_any_cut_of_the_bytes_gives_the_same_events(script: bytes, cuts: list[int]) -> None:
    """The same commands cut at any places give the same replies, requests and closes."""
    whole = Session(directory()).receive(script)
    session, pieces, last = Session(directory()), [], 0
    for cut in [*sorted(min(cut, len(script)) for cut in cuts), len(script)]:
        pieces += session.receive(script[last:cut])
        last = cut
    assert pieces == whole
    assert whole


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600), protocol=st.sampled_from([b"", b"SLPROTO 4.0\r\n"]))
def test_any_bytes_are_answered_without_failing(data: bytes, protocol: bytes) -> None:
    """No input makes the state machine raise, and what it says is bounded by what it was asked."""
    events = Session(directory()).receive(protocol + data)
    assert len(events) <= len(protocol + data) + 1
