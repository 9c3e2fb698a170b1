"""TLS with an own authority, user names, passwords and tokens; and that none of them is ever written anywhere."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from daemon_kit import three_components
from scripted_seedlink import close, peer, scripted_seedlink
from seedlink_kit import Reading, reading

from picker.errors import ConfigError
from streamer.credentials import LONGEST, secret
from streamer.replay import ReplayServer, ReplaySettings

PASSWORD, TOKEN = "h4nds-off!", "eyJhbGciOi.J9.c2VjcmV0"
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All that is logged, at the finest level, by us and by every library."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    client = logging.getLogger("seedlink_client")
    level = client.level
    client.setLevel(logging.DEBUG)
    root.addHandler(handler)
    monkeypatch.setattr(root, "level", logging.DEBUG)
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.PrintLoggerFactory(text)
    )
    yield text
    root.removeHandler(handler)
    client.setLevel(level)


def certificate(folder: Path, name: str = "IP:127.0.0.1") -> Path:
    """A PEM file with a certificate of our own for ``name``, and its key."""
    file, key = folder / f"{name[-3:]}.pem", folder / "key.pem"
    request = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName={name}"
    command = [*request.split(), "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    file.write_text(file.read_text() + key.read_text())
    return file


def served(folder: Path, **settings: Any) -> ReplayServer:
    path = folder / "data.mseed"
    path.write_bytes(three_components())
    given = {"port": 0, "speed": 1000.0, "wait_for_client": True} | settings
    return ReplayServer(ReplaySettings(paths=(path,), **given))


async def complete(one: Reading) -> None:
    await one.until(lambda: sum(one.samples().values()) == 12_000)


@needs_openssl
@pytest.mark.parametrize("version", ["3", "4"])
async def test_tls_with_an_authority_of_ones_own(tmp_path: Path, version: str) -> None:
    """The data come over TLS, and go on after a cut as without it."""
    pem = certificate(tmp_path)
    async with (
        served(tmp_path, tls_certificate=pem, speed=40.0) as server,
        reading(server.port, ca_file=pem, protocol=version) as one,
    ):
        await one.until(lambda: len(one.records) > 10)
        for connection in list(server._connections):
            connection.drop("by the test")
        await complete(one)
    assert one.resumed() == {"sequence": 1}


@needs_openssl
async def test_certificate_that_is_not_to_be_trusted_is_refused(tmp_path: Path, written: io.StringIO) -> None:
    """Unknown to the system's authorities, or of another host: no data, and a reason that names the setting."""
    pem, other = certificate(tmp_path), certificate(tmp_path, "DNS:seedlink.example.org")
    for served_by, trusted in ((pem, {"tls": True}), (other, {"ca_file": other})):
        async with (
            served(tmp_path, tls_certificate=served_by) as server,
            reading(server.port, **trusted) as one,
        ):
            await one.until(lambda one=one: len(one.slept_s) >= 2)
            assert one.records == []
    lines = [line for line in written.getvalue().splitlines() if "absent" in line]
    assert all("certificate not accepted" in line and "seedlink.ca_file" in line for line in lines), lines
    assert any("mismatch" in line for line in lines)
    assert any("self-signed" in line for line in lines)


@needs_openssl
@pytest.mark.parametrize("kind", ["password file", "password variable", "token file", "token credential"])
async def test_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: io.StringIO, kind: str) -> None:
    """From a file, systemd's credentials or the environment, over TLS; and nothing of it is in any log."""
    pem, file = certificate(tmp_path), tmp_path / "secret"
    file.write_text((PASSWORD if "password" in kind else TOKEN) + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path) if "credential" in kind else "")
    monkeypatch.setenv("SEEDLINK_SECRET", PASSWORD)
    given: dict[str, Any] = {
        "password file": {"username": "daemon", "password_file": file},
        "password variable": {"username": "daemon", "password_name": "SEEDLINK_SECRET"},
        "token file": {"token_file": file},
        "token credential": {"token_name": "secret"},
    }[kind]
    logins = {f"USERPASS daemon {PASSWORD}", f"JWT {TOKEN}"}
    async with (
        served(tmp_path, tls_certificate=pem, logins=logins) as server,
        reading(server.port, ca_file=pem, **given) as one,
    ):
        await complete(one)
        assert PASSWORD not in repr(one.reader.settings)
    text = written.getvalue()
    assert "AUTH ..." in text, "the client's own log is read here, too"
    assert PASSWORD not in text
    assert TOKEN not in text


async def test_wrong_password_is_told_without_it(tmp_path: Path, written: io.StringIO) -> None:
    """The server's refusal is the reason; one that repeats the password does not bring it into the log."""
    file = tmp_path / "secret"
    file.write_text("wr0ng-one")
    given: dict[str, Any] = {"username": "daemon", "password_file": file}
    async with (
        served(tmp_path, logins={f"USERPASS daemon {PASSWORD}"}) as server,
        reading(server.port, **given) as one,
    ):
        await one.until(lambda: len(one.slept_s) >= 2)
    async with (
        scripted_seedlink(4, close, refuse=("AUTH",), refusal=b"ERROR AUTH wr0ng-one is not the one\r\n") as echo,
        reading(echo.port, **given) as two,
    ):
        await two.until(lambda: len(two.slept_s) >= 2)
    text = written.getvalue()
    assert one.records == two.records == []
    assert text.count("the server refuses user name, password or token") >= 2
    assert "wr0ng-one" not in text


async def test_renewed_token_is_used_at_the_next_connection(tmp_path: Path) -> None:
    """A token that has run out is replaced in its file, and the daemon need not be restarted."""
    file = tmp_path / "token"
    file.write_text("old")
    async with served(tmp_path, logins={"JWT new"}) as server, reading(server.port, token_file=file) as one:
        await one.until(lambda: len(one.slept_s) >= 2)
        file.unlink()
        await one.until(lambda: len(one.slept_s) >= 4)
        file.write_text("new")
        await complete(one)


async def test_login_in_clear_or_nowhere_is_worth_a_warning(tmp_path: Path, written: io.StringIO) -> None:
    """Without TLS it can be read by others; a server of version 3 takes none."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with served(tmp_path, logins={f"JWT {TOKEN}"}) as server, reading(server.port, token_file=file) as one:
        await complete(one)
    async with scripted_seedlink(3, close) as old, reading(old.port, token_file=file) as two:
        await two.until(lambda: len(two.slept_s) >= 3)
    text = written.getvalue()
    assert text.count("go over the network in clear: set tls") == 1
    assert text.count("speaks SeedLink 3, which knows no login") == 1
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"username": "daemon"}, "no password for daemon"),
        ({"token_name": "NO_SUCH"}, "NO_SUCH"),
        ({"token_file": "/no/such/file"}, "cannot be read"),
        ({"ca_file": "/no/such/file"}, "cannot be used as CA file"),
    ],
)
def test_what_is_missing_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], told: str
) -> None:
    """Before anything is connected, in one line that names the key."""
    monkeypatch.delenv("ONSET_SEEDLINK_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match=told):
        Reading(1, **given)


@pytest.mark.parametrize("value", ["", "two words", "line\nline", "umläut", "x" * (LONGEST + 1), "\0"])
def test_secret_that_seedlink_cannot_carry_is_refused_and_not_shown(tmp_path: Path, value: str) -> None:
    """A blank or a line end would be another command; the message does not quote it."""
    file = tmp_path / "secret"
    file.write_text(value)
    with pytest.raises(ConfigError, match=r"seedlink\.key") as caught:
        secret(file, None, "seedlink.key")
    assert len(value) < 2 or value not in str(caught.value)


def test_secret_is_looked_for_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, systemd credential, environment, none."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    for path, text in ((tmp_path / "file", "a\n"), (folder / "NAME", "b\r\n")):
        path.write_text(text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.setenv("NAME", "c")
    assert secret(tmp_path / "file", "NAME", "key") == "a"
    assert secret(None, "NAME", "key") == "b"
    (folder / "NAME").unlink()
    assert secret(None, "NAME", "key") == "c"
    monkeypatch.delenv("NAME")
    assert secret(None, "NAME", "key") is None
    assert secret(None, None, "key") is None


@needs_openssl
async def test_half_open_tls_connection_does_not_hold_the_reader(tmp_path: Path) -> None:
    """A server that stops for ever, and does not say goodbye either, is left within the idle timeout and a second."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem := certificate(tmp_path))
    count = 0

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readline()
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with peer(stuck, context) as port, reading(port, ca_file=pem, connect_timeout_s=0.3) as one:
        begun_s = asyncio.get_running_loop().time()
        await one.until(lambda: count >= 2)
        assert asyncio.get_running_loop().time() - begun_s < 3
