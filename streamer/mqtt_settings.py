"""What the daemon is told about the MQTT broker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from picker.errors import ConfigError
from streamer.section import Port, Section
from streamer.topic import ROOT, checked_root


class MqttSettings(Section):
    """[mqtt]: the broker that picks go to."""

    host: str = Field(default="localhost", min_length=1, description="Name or address of the MQTT broker.")
    port: Port = Field(default=1883, description="TCP port of the MQTT broker.")
    protocol: Literal["5", "3.1.1"] = Field(default="5", description="MQTT version.")
    tls: bool = Field(default=False, description="Whether to speak TLS, trusting the system's authorities.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the broker's certificate; implies tls."
    )
    cert_file: Path | None = Field(
        default=None,
        description="PEM file with the daemon's own certificate, for brokers that ask for one; implies tls.",
    )
    key_file: Path | None = Field(
        default=None, description="PEM file of its key, not encrypted; unset takes the key from cert_file."
    )
    username: str | None = Field(default=None, description="User name at the broker; unset connects without one.")
    password_file: Path | None = Field(
        default=None,
        description="File that holds the password; unset takes what password_env leads to.",
    )
    password_env: str = Field(
        default="ONSET_MQTT_PASSWORD",
        description="The systemd credential that holds the password, or else the environment variable.",
    )
    topic_root: str = Field(default=ROOT, description="What every topic starts with.")
    client_id: str | None = Field(
        default=None,
        min_length=1,
        description="MQTT client identifier, unique at the broker; unset makes one from host and process.",
    )
    message_expiry_s: int = Field(
        default=0,
        ge=0,
        le=7 * 86400,
        description="A pick that has not reached a subscriber so long after it was made is dropped by the broker (s, "
        "MQTT 5 only); 0 keeps it.",
    )

    @field_validator("topic_root")
    @classmethod
    def _usable(cls, root: str) -> str:
        try:
            return checked_root(root)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _fits_together(self) -> MqttSettings:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("mqtt.key_file is the key of a certificate: set mqtt.cert_file too")
        if self.message_expiry_s and self.protocol != "5":
            raise ValueError(f'mqtt.message_expiry_s needs mqtt.protocol "5": MQTT {self.protocol} knows no expiry')
        return self

    def password(self) -> str | None:
        """The password, or None where no username is set or none is given. Never log it.

        Raises ConfigError where the file cannot be read.
        """
        if self.username is None:
            return None
        file, folder = self.password_file, os.environ.get("CREDENTIALS_DIRECTORY")
        if file is None and folder and Path(folder, self.password_env).is_file():
            file = Path(folder, self.password_env)
        if file is None:
            return os.environ.get(self.password_env)
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: cannot read the MQTT password ({error}); mend mqtt.password_file") from error
