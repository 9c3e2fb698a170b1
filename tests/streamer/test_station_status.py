"""The status of stations at a real Mosquitto: retained, fresh, bounded, after a published schema."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from broker import MOSQUITTO, mosquitto
from daemon_kit import daemon, subscriber, three_components, write_config
from mqtt_docs import SOURCE
from status_docs import GUIDE, MODELS, example, pattern, schema_file, schema_text
from status_kit import DELAY_NS, FIRST, KEY, SLOT_NS, VALIDATORS, a_chunk, feed, read
from structlog.testing import capture_logs

from streamer.broker import Broker
from streamer.chunk import StationKey
from streamer.metrics import Metrics
from streamer.mute import MuteRule
from streamer.publisher import Publisher
from streamer.replay import ReplayServer, ReplaySettings
from streamer.retained import RetainedBoard, RetainedMessage
from streamer.station_status import StationReporter
from streamer.station_watch import StationWatch
from streamer.status_settings import StatusSettings
from streamer.topic import station_topic

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed")
BEGUN_NS = FIRST * SLOT_NS
SECOND_NS = 1_000_000_000
CHUNK_NS = 64 * SLOT_NS


@dataclass
class Desk:
    """A reporter whose clocks are turned by hand; ``now_s`` counts from the start."""

    settings: StatusSettings = field(default_factory=StatusSettings)
    mute: MuteRule | None = None
    now_s: float = 0.0
    board: RetainedBoard = field(default_factory=RetainedBoard)

    def __post_init__(self) -> None:
        self.watch = StationWatch(self.settings.rate_rule(), lambda station: self.mute)
        self.reporter = StationReporter(
            self.watch, self.board, self.settings, lambda key: station_topic("d", key),
            clock_ns=lambda: BEGUN_NS + round(self.now_s * SECOND_NS), monotonic=lambda: self.now_s,
        )  # fmt: skip
        self.next = 0

    def live(self, seconds: float, *, data: bool = True, late_s: float = 0.0, picks: bool = False) -> None:
        """Time goes by, with or without data; the reporter looks every second."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 1
            now_ns = BEGUN_NS + round(self.now_s * SECOND_NS)
            while data and BEGUN_NS + (self.next + 1) * CHUNK_NS + DELAY_NS + late_s * SECOND_NS <= now_ns:
                feed(self.watch, [a_chunk(self.next, arrived_ns=now_ns)], [0] if picks else [])
                self.next += 1
            if not data:
                self.next = int((now_ns - BEGUN_NS) // CHUNK_NS)
            self.reporter.turn()

    def taken(self) -> list[dict[str, Any]]:
        """What is due on the board."""
        found = []
        for message in self.board.take(self.now_s, 1000):
            if message.payload:
                VALIDATORS["station"].validate(json.loads(message.payload))
            found.append(json.loads(message.payload or b"{}"))
        return found


def states(logs: list[Any]) -> list[tuple[str, str]]:
    return [(line["event"], line.get("kind", "")) for line in logs]


def test_goes_comes_back_and_is_forgotten() -> None:
    """Online, offline after so long without data, back with data; after longer cleared; one line each."""
    desk = Desk(StatusSettings(offline_after_s=30, forget_after_h=0.5))
    with capture_logs() as logs:
        desk.live(20)
        assert [(one["online"], one["attention"]) for one in desk.taken()] == [(True, "none")]
        desk.live(40, data=False)
        assert [(one["online"], one["attention"]) for one in desk.taken()] == [(False, "offline")]
        assert desk.reporter.attention == {"offline": 1}
        desk.live(10)
        assert [(one["online"], one["attention"]) for one in desk.taken()] == [(True, "none")]
        desk.live(1795, data=False)
        assert [one["online"] for one in desk.taken()] == [False]
        desk.live(10, data=False)
        assert desk.taken() == [{}]
    assert desk.watch.stations == {}
    assert states(logs) == [
        ("stations need attention", "offline"),
        ("stations need this attention no more", "offline"),
        ("stations need attention", "offline"),
        ("stations forgotten: offline for too long", ""),
    ]


def test_at_most_every_so_often_and_only_if_something_changed() -> None:
    """An hour of data makes a message a minute; an hour without any makes one."""
    desk = Desk()
    count = 0
    for _ in range(600):
        desk.live(6)
        count += len(desk.taken())
    assert 59 <= count <= 61
    desk.live(3600, data=False)
    assert len(desk.taken()) == 1


def test_late_data_are_told_with_hysteresis() -> None:
    """Late above the limit, and until the latency is below half of it."""
    desk = Desk(StatusSettings(late_after_s=60))
    desk.live(30)
    with capture_logs() as logs:
        desk.live(300, late_s=80)
        assert desk.taken()[-1]["attention"] == "late"
        desk.live(100, late_s=50)
        assert desk.reporter.attention == {"late": 1}
        desk.live(100, late_s=10)
        assert desk.taken()[-1]["attention"] == "none"
    assert states(logs) == [("stations need attention", "late"), ("stations need this attention no more", "late")]


def test_silent_station_is_told_once_each_way_and_in_the_metric() -> None:
    """Seven days of picks, a day without one, a pick: the verdict of its past reaches message, log and metric."""
    desk, metrics = Desk(), Metrics()
    desk.reporter.register(metrics)
    desk.live(5)
    one = desk.watch.stations[KEY]
    for _ in range(8 * 144):
        one.rate.pick()
        one.rate.advance(600.0)
    with capture_logs() as logs:
        desk.live(10)
        one.rate.advance(86400.0)
        desk.live(10)
        assert desk.taken()[-1]["attention"] == "silent"
        value = metrics.registry.get_sample_value("onset_stations_attention", {"kind": "silent"})
        assert value == 1
        one.rate.pick()
        one.rate.advance(600.0)
        desk.live(10)
    assert desk.taken()[-1]["attention"] == "none"
    assert states(logs) == [("stations need attention", "silent"), ("stations need this attention no more", "silent")]


def test_mute_is_announced_counted_and_taken_back() -> None:
    """Message, log line and metrics say that a station is muted, and that it is no more."""
    desk = Desk(mute=MuteRule(picks=5, window_s=60, release_picks=2, release_s=30))
    metrics = Metrics()
    desk.reporter.register(metrics)
    with capture_logs() as logs:
        desk.live(20, picks=True)
        message = desk.taken()[-1]
        assert (message["muted"], message["online"]) == (True, True)
        assert message["picks_muted"] > 0
        assert metrics.registry.get_sample_value("onset_stations_muted") == 1
        counted = metrics.registry.get_sample_value("onset_picks_muted_total", {"phase": "P"})
        assert counted == desk.watch.muted["P"] > 0
        desk.live(150)
        assert desk.taken()[-1]["muted"] is False
    assert states(logs) == [("stations muted: too many picks", ""), ("stations no longer muted", "")]


def test_many_stations_make_one_line() -> None:
    """A server that goes takes its stations along: one line that names some and counts the rest."""
    desk = Desk()
    for number in range(50):
        feed(desk.watch, [a_chunk(0, station=KEY._replace(station=f"S{number:02}"))])
    with capture_logs() as logs:
        desk.live(200, data=False)
    (line,) = logs
    assert line["stations"].split()[:2] == ["XX.S00..HH", "XX.S01..HH"]
    assert line["more"] == 30


def test_many_stations_take_turns() -> None:
    """With more stations than the rate allows in a minute each is told as often as the others, and changes go first."""
    desk = Desk(StatusSettings(most_per_s=5, every_s=10))
    keys = [KEY._replace(station=f"S{number:03}") for number in range(200)]
    told: Counter[str] = Counter()
    for second in range(1, 161):
        desk.now_s = float(second)
        for key in keys:
            desk.watch.chunk(a_chunk(second, station=key, arrived_ns=BEGUN_NS + second * SECOND_NS))
        if second == 150:
            desk.watch.stations[keys[7]].rate.verdict = "noisy"
        desk.reporter.turn()
        now = desk.taken()
        assert len(now) <= 5
        told.update(one["station"] for one in now)
        if second == 150:
            assert [one["station"] for one in now if one["attention"] == "noisy"] == ["S007"]
    assert set(told) == {key.station for key in keys}
    assert max(told.values()) - min(told.values()) <= 2


def test_station_of_a_snapshot_is_not_judged_before_its_time() -> None:
    """After a restart nothing is said of a station until it delivers, or has not for the time that makes it offline."""
    before = Desk()
    before.live(10)
    desk = Desk(now_s=500.0)
    desk.watch.restore(before.watch.saved())
    desk.live(100, data=False)
    assert desk.taken() == []
    desk.live(30, data=False)
    assert [one["online"] for one in desk.taken()] == [False]


@pytest.mark.parametrize("last_sample_ns", [-(10**20), -62_000_000_000 * SECOND_NS, 10**30])
def test_data_from_beyond_the_calendar_cost_a_count(last_sample_ns: int) -> None:
    """A station whose time no message can tell harms no other."""
    desk = Desk()
    desk.watch.chunk(a_chunk(0, station=KEY._replace(station="TWO")))
    desk.watch.chunk(a_chunk(0))
    desk.watch.stations[KEY].last_sample_ns = last_sample_ns
    desk.live(2, data=False)
    assert [one["station"] for one in desk.taken()] == ["TWO"]
    assert desk.board.counts["unusable"] == 1


def test_switched_off_nothing_is_published() -> None:
    """Without messages the log and the metrics remain."""
    desk = Desk(StatusSettings(enabled=False))
    with capture_logs() as logs:
        desk.live(20)
        desk.live(200, data=False)
    assert desk.taken() == []
    assert states(logs) == [("stations need attention", "offline")]


def test_board_keeps_the_newest_and_its_rate() -> None:
    """However much is put, what waits is one message a topic; tokens bound what goes; a renewal sends all again."""
    board = RetainedBoard(most_per_s=10)
    for number in range(1000):
        board.put(RetainedMessage(topic=f"t{number % 30}", payload=b"%d" % number))
    assert (len(board), board.counts["overtaken"]) == (30, 970)
    sent = []
    now_s = 100.0
    while (wait_s := board.wait_s(now_s)) is not None:
        now_s += wait_s
        sent += [(now_s, message) for message in board.take(now_s, 5)]
    assert sorted(int(message.payload) for _, message in sent) == list(range(970, 1000))
    assert sent[-1][0] - 100 == pytest.approx(2.0, abs=0.2)
    board.put(sent[0][1])
    assert board.wait_s(now_s) is None, "the same again is no news"
    board.renew()
    assert len(board.take(now_s + 60, 1000)) == 10
    board.clear("t0")
    board.acknowledged(RetainedMessage(topic="t0", payload=b""))
    assert len(board) == 29


class Retained:
    """What a broker holds, as a subscriber who comes now is told."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __call__(self, topic: str = "onset/v1/status/#", wait_s: float = 0.4) -> dict[str, aiomqtt.Message]:
        """By topic; waits so long for all of them."""
        found: dict[str, aiomqtt.Message] = {}
        version = aiomqtt.ProtocolVersion.V5
        async with aiomqtt.Client("127.0.0.1", self.port, protocol=version) as client:
            await client.subscribe(topic, qos=1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    async for message in client.messages:
                        if message.retain:  # rather than published just now
                            found[str(message.topic)] = message
        return found


@contextlib.asynccontextmanager
async def publishing(port: int, board: RetainedBoard, protocol: Any = "5") -> AsyncIterator[Publisher]:
    broker = Broker(host="127.0.0.1", port=port, protocol=protocol, client_id="d", keepalive_s=10)
    publisher = Publisher(broker, SOURCE, board=board, sleep=lambda _: asyncio.sleep(0.05))
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it may be any condition
            await asyncio.sleep(0.01)


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_station_is_retained_renewed_and_cleared(tmp_path: Path, protocol: str) -> None:
    """A subscriber who comes later is told; a broker that lost all is told again; a forgotten station goes."""
    desk = Desk(StatusSettings(offline_after_s=30, forget_after_h=0.5))
    desk.live(20)
    with mosquitto(tmp_path) as broker:
        retained = Retained(broker.port)
        async with publishing(broker.port, desk.board, protocol):
            await eventually(lambda: desk.board.counts["acknowledged"] == 1)
            found = await retained()
            assert sorted(found) == ["onset/v1/status/d", "onset/v1/status/d/XX/ONE/--/HH"]
            station = found["onset/v1/status/d/XX/ONE/--/HH"]
            assert read(station)["last_sample"].startswith("2023-11-14T22:13:")
            if protocol == "5":
                properties = station.properties
                assert properties is not None
                assert properties.ContentType == "application/json"  # type: ignore[attr-defined]
                assert 1700 < properties.MessageExpiryInterval <= 1800  # type: ignore[attr-defined]
            broker.kill()
            desk.live(60)
            broker.start()
            await eventually(lambda: desk.board.counts["acknowledged"] == 2)
            again = read((await retained())["onset/v1/status/d/XX/ONE/--/HH"])
            assert again["updated"] > read(station)["updated"]
            desk.live(1900, data=False)
            await eventually(lambda: len(desk.board) == 0)
            assert sorted(await retained()) == ["onset/v1/status/d"]


@needs_mosquitto
async def test_storm_of_changes_is_bounded(tmp_path: Path) -> None:
    """200 stations that change ten times a second cost the broker no more than the rate; the end is the newest."""
    board = RetainedBoard(most_per_s=100)
    with mosquitto(tmp_path) as broker:
        async with publishing(broker.port, board):
            for turn in range(20):
                for number in range(200):
                    key = StationKey("XX", f"S{number}", "", "HH")
                    board.put(RetainedMessage(topic=station_topic("d", key), payload=b'{"turn": %d}' % turn))
                await asyncio.sleep(0.1)
            sent = board.counts["sent"]
            assert 150 <= sent <= 330
            await eventually(lambda: board.counts["acknowledged"] == board.counts["sent"] >= sent + 100)
            found = await Retained(broker.port)("onset/v1/status/d/#", 1.0)
    stations = {topic: message for topic, message in found.items() if topic != "onset/v1/status/d"}
    assert len(stations) == 200
    newest = [json.loads(message.payload)["turn"] for message in stations.values()]  # type: ignore[arg-type]
    assert newest.count(19) == 200


@needs_mosquitto
async def test_refusal_is_told_once_and_picks_go_on(tmp_path: Path) -> None:
    """A broker that lets the daemon write no status costs a warning and a count, and holds nothing up."""
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite onset/v1/picks/#\ntopic readwrite onset/v1/status/d\n")
    board = RetainedBoard()
    for number in range(3):
        board.put(RetainedMessage(topic=f"onset/v1/status/d/XX/S{number}/--/HH", payload=b"{}"))
    with mosquitto(tmp_path, f"acl_file {rules}\n") as broker, capture_logs() as logs:
        async with publishing(broker.port, board) as publisher:
            await eventually(lambda: board.counts["refused"] == 3)
            assert publisher.connected
    assert len([line for line in logs if "refuses the status" in line["event"]]) == 1


@needs_mosquitto
async def test_daemon_tells_of_itself_and_its_stations(tmp_path: Path) -> None:
    """End to end: real data, real broker; daemon and stations are retained, valid, and offline at the end."""
    data = tmp_path / "data.mseed"
    data.write_bytes(three_components())
    more = "[status]\nevery_s = 5\noffline_after_s = 5\n"
    with mosquitto(tmp_path) as broker:
        async with (
            ReplayServer(ReplaySettings(paths=(data,), port=0, speed=20.0, wait_for_client=True)) as server,
            subscriber(broker.port) as picks,
        ):
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            config.write_text(config.read_text().replace("[mqtt]", '[mqtt]\nclient_id = "d"'))
            address = f"127.0.0.1:{server.port}"
            async with daemon(config) as running:
                await picks.receive(6)
                await running.logged("stations need attention", kind="offline", timeout_s=20)
                async with asyncio.timeout(10):
                    while True:
                        found = {topic: read(message) for topic, message in (await Retained(broker.port)()).items()}
                        if not found["onset/v1/status/d/XX/ONE/--/HH"]["online"]:
                            break
                assert (await running.stop())[0] == 0
            last = {topic: read(message) for topic, message in (await Retained(broker.port)()).items()}
    status, station = found["onset/v1/status/d"], found["onset/v1/status/d/XX/ONE/--/HH"]
    assert (status["status"], status["stations"]) == ("online", 1)
    assert status["servers"] == [{"server": address, "delivers": True}]
    assert status["bundle_digest"] == picks.messages[0]["analyticsInfo"]["predictions"][0]["modelVersion"]
    assert station["picks"] == {"P": 3, "S": 3}
    assert (station["online"], station["attention"], station["components"]) == (False, "offline", "ZNE")
    assert (last["onset/v1/status/d"]["status"], "servers" in last["onset/v1/status/d"]) == ("offline", False)
    assert last["onset/v1/status/d"]["started"] == status["started"]


@needs_mosquitto
async def test_daemon_mutes_a_station_where_it_is_asked_to(tmp_path: Path) -> None:
    """With a limit of two picks the later ones of the muted station stay here; the other station's all go."""
    data = tmp_path / "data.mseed"
    data.write_bytes(three_components() + three_components("TWO"))
    more = (
        "[mute]\nenabled = true\npicks = 2\nrelease_picks = 1\n"
        'stations = [ { network = "XX", station = "TWO", enabled = false } ]\n[status]\nevery_s = 5\n'
    )
    with mosquitto(tmp_path) as broker:
        async with (
            ReplayServer(ReplaySettings(paths=(data,), port=0, speed=20.0, wait_for_client=True)) as server,
            subscriber(broker.port) as picks,
        ):
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, more=more)
            async with daemon(config) as running:
                await picks.receive(8)
                await running.logged("stations muted: too many picks", stations="XX.ONE..HH")
                assert await picks.more(2.0) == 0
                assert (await running.stop())[0] == 0
    codes = [message["channel"]["properties"]["station"] for message in picks.messages]
    assert (codes.count("ONE"), codes.count("TWO")) == (2, 6)


@pytest.mark.parametrize("name", MODELS)
def test_guide_and_schemas_are_those_of_the_code(name: str) -> None:
    """Examples and schemas are generated; mend them with the command in status_docs.py."""
    found = pattern(name).search(GUIDE.read_text(encoding="utf-8"))
    assert found is not None
    assert found.group().strip() == example(name)
    assert schema_file(name).read_text(encoding="utf-8") == schema_text(name)
    VALIDATORS[name].check_schema(json.loads(schema_text(name)))
    VALIDATORS[name].validate(json.loads(found.group()))
