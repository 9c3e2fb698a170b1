"""The MQTT broker: how to reach it, and a client that hands out the reason code of every PUBACK."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiomqtt
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from picker.errors import ConfigError

CONTENT_TYPE = "application/json"
REFUSED = 0x80
"""A PUBACK whose reason code is this or above says that the broker did not take the message (MQTT 5, 3.4.2.1)."""

CONNECT_TIMEOUT_S = 3.0
"""For the TCP connection, and again for the TLS handshake: they run in a thread that shutdown has to wait for."""

LARGEST_PACKET = 1_000_000
"""A peer that announces more is none of ours: a pick is below 2 kB."""

LEAVE_S = 1.0
"""Time given to an orderly end of a connection."""

_quiet = logging.getLogger(f"{__name__}.paho")
_quiet.setLevel(logging.CRITICAL)  # what it would say of a lost connection is said once, by who uses the client


def _client_id() -> str:
    return f"onset-{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where the broker is and how to speak to it. ``ca_file`` (PEM) implies TLS; ``tls`` alone trusts the system's.

    ``cert_file`` (PEM) is the daemon's own certificate and implies TLS too; its key is in ``key_file``, or with it.
    """

    host: str = "localhost"
    port: int = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    client_id: str = field(default_factory=_client_id)
    keepalive_s: int = 30

    @property
    def address(self) -> str:
        """``host:port`` for logs."""
        return f"{self.host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context, None without TLS; raises ConfigError where a file cannot be used."""
        if self.ca_file is None and self.cert_file is None and not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # SSLError is one
            raise ConfigError(
                f"{self.ca_file}: cannot be used as CA file of the MQTT broker ({error}); give a PEM certificate"
            ) from error
        if self.cert_file is not None:
            self._show_certificate(context, self.cert_file)
        context.sslsocket_class = _TidySocket
        return context

    def _show_certificate(self, context: ssl.SSLContext, cert_file: Path) -> None:
        try:
            # Without a password of ours an encrypted key would ask for one at the terminal, and wait for ever.
            context.load_cert_chain(cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            key = f" with the key {self.key_file}" if self.key_file else ""
            raise ConfigError(
                f"{cert_file}: cannot be used as certificate for the MQTT broker{key} ({error}); mqtt.cert_file and "
                "mqtt.key_file name PEM files that belong together, the key not encrypted"
            ) from error


class _TidySocket(ssl.SSLSocket):
    """Paho leaves a socket open whose handshake has failed."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


class _BoundedClient(paho.Client):
    """Paho asks for the rest of a packet at once, and would keep in memory whatever a peer announces."""

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > LARGEST_PACKET:
            raise ConnectionError(f"the broker announces a packet of {bufsize} bytes")
        return super()._sock_recv(bufsize)


class BrokerClient(aiomqtt.Client):
    """One connection to a broker: ``connect``, use, ``leave``; made anew for each connection.

    ``aiomqtt`` takes any PUBACK for success, and in MQTT 5 a PUBACK may be a refusal, so this client publishes through
    paho and yields the reason code. All of it happens on the event loop's thread.
    """

    def __init__(self, broker: Broker, *, window: int = 20, will: aiomqtt.Will | None = None) -> None:
        self._version5 = broker.protocol == "5"
        self._window = window
        self._acknowledgements: dict[int, asyncio.Future[ReasonCode]] = {}
        super().__init__(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            identifier=broker.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if self._version5 else aiomqtt.ProtocolVersion.V311,
            keepalive=broker.keepalive_s,
            tls_context=broker.tls_context(),
            will=will,
            logger=_quiet,
            max_inflight_messages=window + 1,  # one more for the farewell
        )
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        # aiomqtt makes it; to wrap a method of it would be a cycle, which keeps sockets open.
        self._client.__class__ = _BoundedClient

    @property
    def window(self) -> int:
        """Messages that may be in flight at once: ours, or the broker's receive maximum where that is less."""
        return self._window

    async def connect(self) -> None:
        """Connect; raises MqttError. Cancelled or failed, it leaves no socket behind."""
        entering = asyncio.create_task(self.__aenter__(), name="mqtt connect")
        try:
            await asyncio.shield(entering)
        except BaseException:
            if not entering.done() and not self._connected.done():
                self._connected.set_exception(aiomqtt.MqttError("given up"))
            # The thread that connects cannot be cancelled: let it come to its end before its socket is closed.
            await asyncio.wait({entering}, timeout=LEAVE_S)
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
            await self._close_socket()
            self._take_note()
            raise

    async def _close_socket(self) -> None:
        """Take leave of a peer that may not be listening; paho closes the socket once the farewell is written."""
        self._client.disconnect()
        for _ in range(10):
            if self._client.socket() is None:
                return
            await asyncio.sleep(0.01)

    async def leave(self) -> None:
        """Disconnect where still connected; never raises for a broker that is gone."""
        self.timeout = LEAVE_S
        with suppress(aiomqtt.MqttError):
            await self.__aexit__(None, None, None)
        self._take_note()

    def _take_note(self) -> None:
        """Of how the connection began and ended: asyncio complains of an exception that nobody has looked at."""
        for future in (self._connected, self._disconnected):
            future.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def send(
        self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None
    ) -> asyncio.Future[ReasonCode]:
        """Publish with QoS 1; the future holds the PUBACK's reason code.

        After ``expiry_s`` the broker drops what it has not delivered, and what is retained (MQTT 5 only, 3.3.2.3.3).
        Raises MqttError where the connection is gone. The future stays open where it goes later: see ``closed``.
        """
        info = self._client.publish(
            topic, payload, qos=1, retain=retain, properties=self._properties_of_publish(expiry_s)
        )
        if info.rc != 0:
            raise aiomqtt.MqttCodeError(info.rc, "cannot publish")
        future: asyncio.Future[ReasonCode] = asyncio.get_running_loop().create_future()
        self._acknowledgements[info.mid] = future
        return future

    async def closed(self) -> None:
        """Wait until the connection ends, and raise MqttError that says why. What arrives meanwhile is dropped."""
        try:
            async for _ in self.messages:
                pass
        except aiomqtt.MqttError as error:
            raise aiomqtt.MqttError(f"connection lost: {error.__cause__ or 'closed by the broker'}") from error

    def _properties_of_publish(self, expiry_s: int | None) -> Properties | None:
        if not self._version5:
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = CONTENT_TYPE
        properties.PayloadFormatIndicator = 1
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        return properties

    def _on_connect(
        self, client: Any, userdata: Any, flags: Any, reason_code: ReasonCode, properties: Properties | None = None
    ) -> None:
        self._window = min(self._window, getattr(properties, "ReceiveMaximum", self._window))
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_publish(
        self, client: Any, userdata: Any, mid: int, reason_code: ReasonCode, properties: Properties
    ) -> None:
        future = self._acknowledgements.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(reason_code)
        super()._on_publish(client, userdata, mid, reason_code, properties)
