"""What the daemon is told about SeedLink servers and what to ask them for."""

from __future__ import annotations

import ssl
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from picker.errors import ConfigError
from streamer.credentials import secret
from streamer.section import Port, Section

Code = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[A-Za-z0-9?*]+$")]
Location = Annotated[str, StringConstraints(pattern=r"^(--|[A-Za-z0-9?*]{0,2})$")]
Channel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9?*]{3}$")]
SecretName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]


class Selection(Section):
    """One entry of [[seedlink]] streams: which channels to ask for."""

    network: Code = Field(description="Network code; ? and * are wildcards.")
    station: Code = Field(description="Station code; ? and * are wildcards.")
    location: Location = Field(default="*", description='Location code; "--" or "" is the blank one, "*" is any.')
    channels: tuple[Channel, ...] = Field(
        default=("HH?", "BH?", "EH?", "SH?", "HN?"),
        description="Channel codes of three characters, ? for any one; an empty list asks for everything.",
    )

    @property
    def station_id(self) -> str:
        """``NET_STA`` as SeedLink writes it."""
        return f"{self.network}_{self.station}"

    @property
    def wildcard(self) -> bool:
        """Whether it may name several stations."""
        return any(letter in self.station_id for letter in "?*")

    @property
    def selectors(self) -> list[str]:
        """SeedLink v3 selectors ([LL]CCC); the client turns them into v4 form where v4 is spoken."""
        prefix = {"*": "", "": "--"}.get(self.location, self.location)
        return [prefix + channel for channel in self.channels]

    def names(self, station_id: str) -> bool:
        """Whether it speaks of the station NET_STA."""
        network, _, station = station_id.partition("_")
        return fnmatchcase(network, self.network) and fnmatchcase(station, self.station)

    def wants(self, location: str, channel: str) -> bool:
        """Whether a channel of such a station is asked for; a blank location is the empty string."""
        if self.location != "*" and not fnmatchcase(location, self.location.replace("--", "")):
            return False
        return not self.channels or any(fnmatchcase(channel, wanted) for wanted in self.channels)


class SeedLinkSettings(Section):
    """[[seedlink]]: one server; repeat the table for more."""

    host: str = Field(min_length=1, description="Name or address of the SeedLink server.")
    port: Port = Field(default=18000, description="TCP port of the SeedLink server.")
    protocol: Literal["auto", "3", "4"] = Field(
        default="auto", description='SeedLink version: "auto" takes 4 where offered.'
    )
    streams: tuple[Selection, ...] = Field(
        min_length=1, description="Channels to ask for: a list of {network, station, location, channels}."
    )
    tls: bool = Field(default=False, description="Whether to speak TLS, trusting the system's authorities.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the server's certificate; implies tls."
    )
    username: str | None = Field(
        default=None, pattern=r"^[!-~]+$", description="User name at a server of version 4; unset gives none."
    )
    password_file: Path | None = Field(
        default=None, description="File that holds the password; unset takes what password_name leads to."
    )
    password_name: SecretName = Field(
        default="ONSET_SEEDLINK_PASSWORD",
        description="The systemd credential that holds the password, or else the environment variable.",
    )
    token_file: Path | None = Field(
        default=None,
        description="File that holds a token (JWT), read anew at each connection; it goes before a user name.",
    )
    token_name: SecretName | None = Field(
        default=None, description="The systemd credential that holds a token, or else the environment variable."
    )
    idle_timeout_s: float = Field(
        default=60.0, gt=0, description="Reconnect when the server has sent nothing for so long (s)."
    )
    keepalive_s: float = Field(
        default=0.0,
        ge=0,
        description="Ask a server without data for a sign of life so often (s), so that it is not taken for dead until "
        "ten times idle_timeout_s; 0 never does.",
    )
    connect_timeout_s: float = Field(
        default=20.0, gt=0, description="Give up an attempt to connect, or a server's answer, after (s)."
    )
    silence_s: float = Field(
        default=60.0,
        gt=0,
        description="A station that was asked for by its sequence number and is silent for so long, while others "
        "deliver, is asked for by time (s).",
    )
    longest_resume_h: float = Field(
        default=1.0, ge=0, le=168, description="After a lost connection, ask for no more than the last (h)."
    )
    look_for_stations_min: float = Field(
        default=10.0, ge=0.01, description="Look so often for new stations that a wildcard means (min)."
    )

    @model_validator(mode="after")
    def _can_log_in(self) -> SeedLinkSettings:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username")
        if self.protocol == "3" and self.logs_in:
            raise ValueError("SeedLink 3 knows no user names and no tokens: take protocol 4, or leave them out")
        return self

    @property
    def address(self) -> str:
        """``host:port``, the name of the server in logs and metrics."""
        return f"{self.host}:{self.port}"

    @property
    def logs_in(self) -> bool:
        """Whether a user name or a token is given."""
        return self.username is not None or self._has_token

    @property
    def _has_token(self) -> bool:
        return self.token_file is not None or self.token_name is not None

    def auth(self) -> tuple[str, str] | str | None:
        """User name and password, or a token, or None. Never log it. Raises ConfigError where it is not to be had."""
        if not self.logs_in:
            return None
        if self._has_token or self.username is None:
            token = secret(self.token_file, self.token_name, "seedlink.token_file or token_name")
            if token is None:
                raise ConfigError(
                    f"{self.address}: there is no systemd credential and no environment variable {self.token_name}; "
                    "mend seedlink.token_name or give token_file"
                )
            return token
        password = secret(self.password_file, self.password_name, "seedlink.password_file or password_name")
        if password is None:
            raise ConfigError(
                f"{self.address}: no password for {self.username}: give password_file, or a systemd credential or "
                f"environment variable {self.password_name}"
            )
        return self.username, password

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context, which checks the server's name; None without TLS. Raises ConfigError for a bad CA file."""
        if self.ca_file is None and not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # SSLError is one
            raise ConfigError(
                f"{self.ca_file}: cannot be used as CA file of {self.address} ({error}); give a PEM certificate"
            ) from error
