"""The unit file: sound, tight, in agreement with the daemon, and not too tight for it to pick."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from broker import MOSQUITTO, mosquitto
from daemon_kit import ROOT, expected, found, subscriber, three_components, write_config
from sandbox import Unit, allowed

from streamer.cli import COMMANDS, _parser
from streamer.mqtt_settings import MqttSettings
from streamer.replay import ReplayServer, ReplaySettings
from streamer.seedlink_settings import SeedLinkSettings
from streamer.watchdog import CHECKS, EVERY_S, TELL_AFTER

UNIT = ROOT / "systemd" / "onset-streamer.service"
MOST_EXPOSURE = 2.0

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@pytest.fixture(scope="module")
def unit() -> Unit:
    """The unit, parsed."""
    return Unit(UNIT)


@needs_systemd
def test_exposure_is_low() -> None:
    """``systemd-analyze security`` rates the sandbox 2.0 or better (0 is best, 10 worst)."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    (overall,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert float(overall) <= MOST_EXPOSURE, result.stdout


@needs_systemd
def test_unit_is_valid(tmp_path: Path) -> None:
    """``systemd-analyze verify`` knows every key and value; only the program is replaced, since it is not installed."""
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text(), flags=re.MULTILINE))
    result = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    told = [line for line in result.stderr.splitlines() if UNIT.name in line and "Documentation" not in line]
    assert told == []


def test_unit_and_daemon_agree(unit: Unit) -> None:
    """The command is one of ours; readiness, watchdog, credentials and signals are those that the daemon knows."""
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert (Path(program).name, arguments[0] in COMMANDS) == ("streamer", True)
    assert _parser(arguments).parse_args(arguments).config == Path("/etc/onset/streamer.toml")
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    assert seconds(service["WatchdogSec"]) / CHECKS == EVERY_S, "healthz then says the same with and without systemd"
    assert TELL_AFTER < CHECKS, "it is told before it is killed"
    assert seconds(service["TimeoutStopSec"]) > 5
    assert unit.repeated["LoadCredential"] == [
        MqttSettings.model_fields["password_env"].default,
        SeedLinkSettings.model_fields["password_name"].default,
    ]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID", "what streamer/reload.py answers"
    assert int(service["RestartSec"].removesuffix("s")) > 0
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_credentials_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the unit loads is read where systemd puts it, before the environment; a password file goes before both."""
    settings = MqttSettings(username="onset")
    monkeypatch.setenv("ONSET_MQTT_PASSWORD", "from the environment")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.password() == "from the environment"
    (tmp_path / "ONSET_MQTT_PASSWORD").write_text("from systemd\n")
    assert settings.password() == "from systemd"
    (tmp_path / "file").write_text("from a file\n")
    assert MqttSettings(username="onset", password_file=tmp_path / "file").password() == "from a file"


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="needs systemd-sysusers")
def test_the_user_is_made(tmp_path: Path, unit: Unit) -> None:
    """sysusers makes the user that the unit names: without a login, at home in the state folder."""
    (tmp_path / "etc").mkdir()
    config = UNIT.with_name("onset.sysusers.conf")
    command = ["systemd-sysusers", f"--root={tmp_path}", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in (tmp_path / "etc" / "passwd").read_text().splitlines() if line.startswith("onset:")]
    assert line.split(":")[5:] == [f"/var/lib/{unit['Service']['StateDirectory']}", "/usr/sbin/nologin"]
    assert (unit["Service"]["User"], unit["Service"]["Group"]) == ("onset", "onset")


@needs_systemd
def test_the_filter_forbids_something(unit: Unit) -> None:
    """The expansion that the next test relies on: what a daemon needs is in, what it must not do is out."""
    calls = allowed(unit)
    assert {"read", "openat", "connect", "futex", "fsync", "socket"} <= calls
    assert not {"mount", "ptrace", "bpf", "chown", "setuid", "sched_setscheduler", "init_module"} & calls


@needs_systemd
@pytest.mark.skipif(find_library("seccomp") is None, reason="needs libseccomp")
@pytest.mark.parametrize(
    "attempt",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import os; os.chown('.', 1, 1)",
        "import os; os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))",
    ],
)
def test_the_sandbox_bites(attempt: str, tmp_path: Path) -> None:
    """What the unit forbids is refused in the sandbox of the next test, and works outside of it."""
    command = [sys.executable, "-c", attempt]
    subprocess.run(command, cwd=tmp_path, check=True)
    sandboxed = [sys.executable, str(Path(__file__).with_name("sandbox.py")), str(UNIT), *command]
    result = subprocess.run(sandboxed, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "no PR_SET_MDWE" in result.stderr and "mmap" in attempt:
        pytest.skip("this kernel cannot forbid it without systemd")
    assert "not permitted" in result.stderr or "Permission denied" in result.stderr


@needs_systemd
@pytest.mark.skipif(MOSQUITTO is None, reason="needs the Mosquitto broker")
@pytest.mark.skipif(find_library("seccomp") is None, reason="needs libseccomp")
async def test_daemon_picks_in_the_sandbox(tmp_path: Path) -> None:
    """Under the unit's system call filter, without write-execute memory and capabilities: all picks, by the outbox."""
    state, data = tmp_path / "state", tmp_path / "data.mseed"
    state.mkdir()
    data.write_bytes(three_components())
    replay = ReplayServer(ReplaySettings(paths=(data,), port=0, speed=20.0, wait_for_client=True))
    with mosquitto(tmp_path) as broker:
        async with replay as server, subscriber(broker.port) as picks:
            config = write_config(
                tmp_path, seedlink=[server.port], mqtt=broker.port, more="[metrics]\nenabled = true\nport = 0\n"
            )
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__).with_name("sandbox.py")), str(UNIT),
                sys.executable, "-W", "error", "-m", "streamer", "run", "--config", str(config),
                cwd=ROOT, env={**os.environ, "STATE_DIRECTORY": str(state)}, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                messages = await picks.receive(6, 60)
                process.send_signal(signal.SIGTERM)
                _, log = await asyncio.wait_for(process.communicate(), 10)
            finally:
                if process.returncode is None:
                    process.kill()
    assert found(messages) == expected()
    assert process.returncode == 0, log
    assert b"outbox opened" in log
    assert not [line for line in log.splitlines() if b'"level": "error"' in line]
    assert (state / "outbox.sqlite").stat().st_size > 0


def seconds(text: str) -> float:
    """``60s`` as 60."""
    return float(text.removesuffix("s"))
