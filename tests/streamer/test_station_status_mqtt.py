"""Client certificates and message expiry against a real Mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest
from broker import MOSQUITTO, mosquitto
from mqtt_docs import SOURCE, example_report
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from picker.errors import ConfigError
from streamer.broker import Broker
from streamer.memory_outbox import MemoryOutbox
from streamer.mqtt_settings import MqttSettings
from streamer.publisher import Publisher
from streamer.session import Delivery

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


def certified(folder: Path, name: str, authority: str = "ca") -> tuple[Path, Path]:
    """A certificate for ``name`` and 127.0.0.1 and its key, signed by ``authority``, which is made where it is not."""
    ca, ca_key = folder / f"{authority}.pem", folder / f"{authority}-key.pem"
    if not ca.exists():
        openssl(f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {ca_key} -out {ca}")
    key, request, certificate = (folder / f"{name}{end}" for end in ("-key.pem", ".csr", ".pem"))
    openssl(
        f"req -newkey rsa:2048 -nodes -subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {request}"
    )
    openssl(
        f"x509 -req -in {request} -CA {ca} -CAkey {ca_key} -CAcreateserial -days 2 -copy_extensions copy "
        f"-out {certificate}"
    )
    return certificate, key


def openssl(arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, timeout=30)


@contextlib.asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@needs_mosquitto
@needs_openssl
async def test_broker_that_asks_for_a_certificate(tmp_path: Path) -> None:
    """With a certificate of its authority the daemon is let in; without one, or with a stranger's, picks are held."""
    server_cert, server_key = certified(tmp_path, "broker")
    cert, key = certified(tmp_path, "daemon")
    strange_cert, strange_key = certified(tmp_path, "stranger", "other")
    both = tmp_path / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    lines = (
        f"cafile {tmp_path / 'ca.pem'}\ncertfile {server_cert}\nkeyfile {server_key}\n"
        "require_certificate true\nuse_identity_as_username true\n"
    )
    with mosquitto(tmp_path, lines) as server:
        good = Broker(
            host="127.0.0.1", port=server.port, client_id="a", ca_file=tmp_path / "ca.pem", cert_file=cert, key_file=key
        )
        for broker, held in (
            (good, 0),
            (replace(good, cert_file=both, key_file=None), 0),
            (replace(good, cert_file=None, key_file=None), 1),
            (replace(good, cert_file=strange_cert, key_file=strange_key), 1),
        ):
            publisher = Publisher(broker, SOURCE, sleep=lambda _: asyncio.sleep(0.05))
            publisher.put(example_report())
            async with running(publisher):
                assert await publisher.drain(0.8 if held else 10) == held
    gc.collect()  # a socket that is left open would be a warning, and so an error


@needs_openssl
def test_certificate_that_cannot_be_used_refuses_to_start(tmp_path: Path) -> None:
    """Missing, of another key, or encrypted (which would wait at a terminal): named at the start, with the mend."""
    cert, key = certified(tmp_path, "daemon")
    _, other_key = certified(tmp_path, "other-daemon")
    encrypted = tmp_path / "encrypted.pem"
    openssl(f"rsa -in {key} -aes256 -passout pass:secret -out {encrypted}")
    for cert_file, key_file in ((tmp_path / "missing.pem", key), (cert, other_key), (cert, None), (cert, encrypted)):
        with pytest.raises(ConfigError, match=r"mqtt\.cert_file and mqtt\.key_file") as caught:
            Publisher(Broker(cert_file=cert_file, key_file=key_file), SOURCE)
        assert str(cert_file) in str(caught.value)
    assert Broker(cert_file=cert, key_file=key).tls_context() is not None


@needs_mosquitto
async def test_pick_that_outlives_its_expiry_is_dropped(tmp_path: Path) -> None:
    """A subscriber that was away misses what has expired, the time in the outbox included; without expiry, nothing."""
    now_s = [1000.0]
    expiring = Delivery(message_expiry_s=30)

    def clock_ns() -> int:
        return round(now_s[0] * 1e9)

    with mosquitto(tmp_path) as server:
        broker = Broker(host="127.0.0.1", port=server.port, client_id="a")
        reports = [example_report(200 * n) for n in range(3)]
        for report, delivery, age_s in (
            (reports[0], Delivery(), 100.0),
            (reports[1], expiring, 20.0),
            (reports[2], expiring, 100.0),
        ):
            outbox = MemoryOutbox(clock_ns=clock_ns)
            publisher = Publisher(broker, SOURCE, outbox, clock_ns=clock_ns, delivery=delivery)
            publisher.put(report)
            now_s[0] += age_s
            if report is reports[0]:
                await absent_subscriber(server.port)
            async with running(publisher):
                assert await publisher.drain(10) == 0
        await asyncio.sleep(2.1)
        found = await kept_for_it(server.port)
    left_s = [getattr(message.properties, "MessageExpiryInterval", None) for message in found]
    assert len(found) == 2, "the third left with one second, and two have gone by"
    assert left_s[0] is None
    assert 5 <= left_s[1] <= 10


async def absent_subscriber(port: int) -> None:
    """Subscribe with a session that the broker keeps, and go."""
    async with session(port) as client:
        await client.subscribe("onset/v1/picks/#", qos=1)


async def kept_for_it(port: int) -> list[aiomqtt.Message]:
    """Come back, and take what the broker kept."""
    found = []
    async with session(port) as client:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                async for message in client.messages:
                    found.append(message)
    return found


def session(port: int) -> aiomqtt.Client:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 300
    return aiomqtt.Client(
        "127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, identifier="s", clean_start=False, properties=properties
    )


def test_settings_that_contradict_each_other_are_refused() -> None:
    """A key without its certificate, and an expiry with a protocol that has none."""
    with pytest.raises(ValueError, match=r"set mqtt\.cert_file too"):
        MqttSettings(key_file=Path("key.pem"))
    with pytest.raises(ValueError, match="knows no expiry"):
        MqttSettings(message_expiry_s=60, protocol="3.1.1")
