"""``streamer check`` against real servers and a real broker: what would be picked, what cannot, and what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiomqtt
import pytest
from broker import MOSQUITTO, free_port, mosquitto
from daemon_kit import channel, three_components, write_config
from scripted_seedlink import scripted_seedlink, silence

from streamer.check.verdict import judge
from streamer.cli import main
from streamer.record import Nslc
from streamer.replay import ReplayServer, ReplaySettings

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")


@needs_mosquitto
@pytest.mark.parametrize("version", ["3", "4"])
async def test_all_is_well(tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Stations, the channels used and those that are not, with reasons; nothing is published, nobody is pushed out."""
    data = three_components("ONE") + channel("HHA") + channel("BHZ") + channel("HHZ", station="TWO") + channel("LHZ")
    with mosquitto(tmp_path) as broker:
        async with (
            serving(tmp_path, data) as server,
            aiomqtt.Client("127.0.0.1", broker.port, identifier="onset-1") as running,
        ):
            await running.subscribe("#", qos=1)
            port = server.port
            config = write_config(
                tmp_path,
                seedlink=[server.port],
                mqtt=broker.port,
                server=f'protocol = "{version}"\n',
                channels=("HH?", "BH?"),
            )
            config.write_text(config.read_text().replace("[mqtt]\n", '[mqtt]\nclient_id = "onset-1"\n'))
            status = await checked(config)
            await running.publish("test/end", b"still here", qos=1)
            first = await anext(running.messages)
    assert str(first.topic) == "test/end", "nothing was published before, and the daemon's name was not taken"
    text = capsys.readouterr().out
    assert status == 0, text
    head, _, one, two, last = [line for line in text.splitlines() if "client gone" not in line][-5:]  # the replay's own
    assert head.startswith(f"server 127.0.0.1:{port}: SeedLink {version}, ")
    assert head.endswith("2 of 2 stations would be picked; 1 channels are not asked for")
    assert words(one) == "XX.ONE -- HHZ HHN HHE --.BHZ not_preferred, --.HHA orientation_not_picked"
    assert words(two) == "XX.TWO -- HHZ (vertical only: S will be rare)"
    assert last == f"broker 127.0.0.1:{broker.port}: accepts the connection"


async def test_what_is_absent_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is not there, one that has nothing of what is asked for, no broker: each is told, and status 1."""
    absent, nobody = free_port(), free_port()
    async with serving(tmp_path, channel("LHZ")) as server:
        config = write_config(tmp_path, seedlink=[absent, server.port], mqtt=nobody)
        assert await checked(config) == 1
    text = capsys.readouterr().out
    assert f"server 127.0.0.1:{absent}: cannot be used: " in text
    assert "0 of 0 stations would be picked; 1 channels are not asked for" in text
    assert "nothing there fits XX_* HH?: mend seedlink.streams" in text
    assert f"broker 127.0.0.1:{nobody}: cannot be used: " in text


@needs_mosquitto
async def test_station_that_cannot_be_picked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Channels that nobody can pick: the station is shown with the reasons, and status 1."""
    with mosquitto(tmp_path) as broker:
        async with serving(tmp_path, channel("HHA") + channel("HDF")) as server:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port, channels=())
            assert await checked(config) == 1
    text = capsys.readouterr().out
    assert "0 of 1 stations would be picked" in text
    assert "nothing" in text
    assert "--.HDF not_seismic, --.HHA orientation_not_picked" in text


@needs_mosquitto
async def test_broker_that_refuses_us(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong password: the broker's word is shown, the password is not."""
    known = tmp_path / "passwords"
    known.write_text("someone:$7$101$AAAA$AAAA\n")
    known.chmod(0o600)
    with mosquitto(tmp_path, f"password_file {known}\n") as broker:
        async with serving(tmp_path, three_components()) as server:
            config = write_config(tmp_path, seedlink=[server.port], mqtt=broker.port)
            (tmp_path / "secret").write_text("hunter2-secret\n")
            config.write_text(
                config.read_text().replace("[mqtt]\n", '[mqtt]\nusername = "onset"\npassword_file = "secret"\n')
            )
            assert await checked(config) == 1
    text = capsys.readouterr().out
    assert "cannot be used: " in text
    assert "authori" in text.lower()
    assert "hunter2" not in text


async def test_server_without_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that knows no INFO STREAMS is no fault; it is said that nothing is known."""
    async with scripted_seedlink(3, silence) as server:
        config = write_config(tmp_path, seedlink=[server.port], mqtt=free_port())
        await checked(config)
    assert "It lists no streams: what it has is seen when it runs" in capsys.readouterr().out


async def test_server_that_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that takes the connection and is silent costs the time that was given, no more."""
    handlers: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda _, writer: handlers.append(writer), "127.0.0.1", 0)
    try:
        config = write_config(tmp_path, seedlink=[mute.sockets[0].getsockname()[1]], mqtt=free_port())
        async with asyncio.timeout(5):
            assert await checked(config, "--timeout-s", "0.5") == 1
    finally:
        for writer in handlers:
            writer.close()
        mute.close()
    assert "cannot be used: no answer within 0.5 s" in capsys.readouterr().out


async def test_settings_are_mended_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A password file that is not there: one line on standard error and status 2, before anything is connected to."""
    config = write_config(
        tmp_path, seedlink=[1], mqtt=1, server='username = "observatory"\npassword_file = "nowhere"\n'
    )
    assert await checked(config) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "nowhere" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("channels", "picked", "refused"),
    [
        (["00.HHZ", "00.HHN", "00.HHE"], ("HHZ", "HHN", "HHE"), {}),
        (["00.BHZ", "10.HHZ"], ("HHZ",), {"00.BHZ": "not_preferred"}),
        ([".HHZ", ".HH1", ".HH2", ".HH3"], ("HHZ", "HH1", "HH2"), {"--.HH3": "component_conflict"}),
        ([".HH1", ".HH2", ".HH3"], ("HH1", "HH2", "HH3"), {}),
        ([".hhz"], ("HHZ",), {}),
        (
            [".LHZ", ".LOG", ".HH", ".HDF"],
            (),
            {
                "--.HDF": "not_seismic",
                "--.HH": "not_three_letters",
                "--.LHZ": "band_not_picked",
                "--.LOG": "not_seismic",
            },
        ),
    ],
)
def test_verdicts(channels: list[str], picked: tuple[str, ...], refused: dict[str, str]) -> None:
    """The rules are those of the daemon: preference, components, refusals."""
    (verdict,) = judge(Nslc("XX", "ONE", *code.split(".")) for code in channels)
    assert verdict.picked == picked
    assert dict(verdict.refused) == refused
    assert verdict.vertical_only == (len(picked) == 1)


def serving(folder: Path, data: bytes) -> ReplayServer:
    """A server that plays ``data`` at once and stays."""
    path = folder / "data.mseed"
    path.write_bytes(data)
    return ReplayServer(ReplaySettings(paths=(path,), port=0, speed=1000.0))


async def checked(config: Path, *more: str) -> int:
    """The exit status of ``streamer check``, run in a thread since it has an event loop of its own."""
    await asyncio.sleep(0.3)  # the replay has played
    return await asyncio.to_thread(main, ["check", "--config", str(config), *more])


def words(line: str) -> str:
    """``line`` with single blanks."""
    return " ".join(line.split())
