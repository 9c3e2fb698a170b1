"""What the daemon is told: one TOML file, read once, frozen. The field descriptions are the reference."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from picker.decision import PhaseRule
from picker.errors import ConfigError
from picker.spec import PickerSpec
from streamer.channels import DEFAULT_PREFERENCE
from streamer.complaint import complaint
from streamer.topic import ROOT, checked_root

Port = Annotated[int, Field(ge=1, le=65535)]
Code = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[A-Za-z0-9?*]+$")]
Location = Annotated[str, StringConstraints(pattern=r"^(--|[A-Za-z0-9?*]{0,2})$")]
Channel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9?*]{3}$")]
Preference = Annotated[str, StringConstraints(pattern=r"^[A-Z?]{2}$")]


class Section(BaseModel):
    """A table of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BundleSettings(Section):
    """[bundle]: the model that picks."""

    path: Path = Field(description="Folder of the model bundle; a relative path counts from the settings file.")


class EngineSettings(Section):
    """[engine]: what runs the model."""

    kind: Literal["cpu"] = Field(default="cpu", description='Inference engine: "cpu" is ONNX Runtime on the processor.')
    threads: int = Field(default=1, ge=1, le=256, description="Threads of one call of the model.")


class Selection(Section):
    """One entry of [[seedlink]] streams: which channels to ask for."""

    network: Code = Field(description="Network code; ? and * are wildcards where the server allows them.")
    station: Code = Field(description="Station code; ? and * are wildcards where the server allows them.")
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
    def selectors(self) -> list[str]:
        """SeedLink v3 selectors ([LL]CCC); the client turns them into v4 form where v4 is spoken."""
        prefix = {"*": "", "": "--"}.get(self.location, self.location)
        return [prefix + channel for channel in self.channels]


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
    idle_timeout_s: float = Field(
        default=60.0, gt=0, description="Reconnect when the server has sent nothing for so long (s)."
    )
    connect_timeout_s: float = Field(
        default=20.0, gt=0, description="Give up an attempt to connect and subscribe after (s)."
    )

    @property
    def address(self) -> str:
        """``host:port``, the name of the server in logs and metrics."""
        return f"{self.host}:{self.port}"


class StationSettings(Section):
    """[stations]: how channels become stations, and the answers to gaps and lateness."""

    component_wait_s: float = Field(
        default=5.0,
        ge=0,
        le=60,
        description="How long a station waits for its slowest live component before it goes on without it (s).",
    )
    interpolate_s: float = Field(default=0.05, ge=0, le=60, description="Gaps up to this length are bridged (s).")
    hold_s: float = Field(
        default=2.0,
        ge=0,
        le=60,
        description="Through gaps up to this length the model goes on; after longer ones it starts afresh (s).",
    )
    guard_s: float = Field(default=3.0, ge=0, le=600, description="No pick so soon after a fresh start (s).")
    prefer: tuple[Preference, ...] = Field(
        default=DEFAULT_PREFERENCE,
        min_length=1,
        description="Band and instrument codes, best first, ? for any; where a station has several, one is picked.",
    )


class Thresholds(Section):
    """[picks.thresholds]: probability at which a phase becomes a pick."""

    P: float | None = Field(default=None, gt=0, lt=1, description="Threshold of P; unset means the bundle's own.")
    S: float | None = Field(default=None, gt=0, lt=1, description="Threshold of S; unset means the bundle's own.")


class PickSettings(Section):
    """[picks]: how probabilities become picks."""

    thresholds: Thresholds = Field(
        default_factory=Thresholds, description="Probability at which each phase becomes a pick."
    )
    release: float = Field(
        default=0.5, gt=0, lt=1, description="A pick is decided when its probability falls to this part of its peak."
    )
    dead_time_s: float = Field(
        default=0.5, ge=0, description="No second pick of the same phase sooner than this after one (s)."
    )
    longest_s: float = Field(
        default=1.0, gt=0, description="A pick is decided at the latest so long after its peak (s)."
    )

    def rules(self, spec: PickerSpec) -> dict[str, PhaseRule]:
        """The rule of each phase that the bundle picks, with the bundle's threshold where none is set.

        Raises ConfigError for a threshold of a phase that it does not pick.
        """
        for phase, threshold in self.thresholds:
            if threshold is not None and phase not in spec.thresholds:
                raise ConfigError(f"picks.thresholds.{phase}: this bundle picks {', '.join(spec.thresholds)} only")
        return {
            phase: PhaseRule(
                threshold=getattr(self.thresholds, phase, None) or spec.thresholds[phase],
                release=self.release,
                dead_time_s=self.dead_time_s,
                longest_s=self.longest_s,
            )
            for phase in spec.thresholds
        }


class MqttSettings(Section):
    """[mqtt]: the broker that picks go to."""

    host: str = Field(default="localhost", min_length=1, description="Name or address of the MQTT broker.")
    port: Port = Field(default=1883, description="TCP port of the MQTT broker.")
    protocol: Literal["5", "3.1.1"] = Field(default="5", description="MQTT version.")
    tls: bool = Field(default=False, description="Whether to speak TLS, trusting the system's authorities.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the broker's certificate; implies tls."
    )
    username: str | None = Field(default=None, description="User name at the broker; unset connects without one.")
    password_file: Path | None = Field(
        default=None,
        description="File that holds the password; unset takes it from the variable that password_env names.",
    )
    password_env: str = Field(
        default="ONSET_MQTT_PASSWORD", description="Environment variable that holds the password."
    )
    topic_root: str = Field(default=ROOT, description="What every topic starts with.")
    client_id: str | None = Field(
        default=None,
        min_length=1,
        description="MQTT client identifier, unique at the broker; unset makes one from host and process.",
    )

    @field_validator("topic_root")
    @classmethod
    def _usable(cls, root: str) -> str:
        try:
            return checked_root(root)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def password(self) -> str | None:
        """The password, or None where no username is set or none is given. Never log it.

        Raises ConfigError where the file cannot be read.
        """
        if self.username is None:
            return None
        if self.password_file is None:
            return os.environ.get(self.password_env)
        try:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.password_file}: cannot read the MQTT password ({error}); mend mqtt.password_file"
            ) from error


class MetricsSettings(Section):
    """[metrics]: the Prometheus endpoint."""

    enabled: bool = Field(default=False, description="Whether to serve metrics over HTTP.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=9109, ge=0, le=65535, description="Port to listen on; 0 takes a free one and logs it.")


class LogSettings(Section):
    """[log]: what is written to standard error."""

    format: Literal["console", "json"] = Field(
        default="console", description='"console" for people, "json" for machines.'
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is written."
    )


class Settings(Section):
    """All settings of the daemon."""

    agency: str = Field(default="XX", min_length=1, description="Agency identifier in the source of every pick.")
    author: str = Field(default="onset", min_length=1, description="Author in the source of every pick.")
    bundle: BundleSettings = Field(description="The model that picks.")
    engine: EngineSettings = Field(default_factory=EngineSettings, description="What runs the model.")
    seedlink: tuple[SeedLinkSettings, ...] = Field(min_length=1, description="The SeedLink servers, one table each.")
    stations: StationSettings = Field(default_factory=StationSettings, description="How channels become stations.")
    picks: PickSettings = Field(default_factory=PickSettings, description="How probabilities become picks.")
    mqtt: MqttSettings = Field(default_factory=MqttSettings, description="The broker that picks go to.")
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="The Prometheus endpoint.")
    log: LogSettings = Field(default_factory=LogSettings, description="What is written to standard error.")

    @model_validator(mode="after")
    def _servers_differ(self) -> Settings:
        addresses = [server.address for server in self.seedlink]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"two [[seedlink]] tables for {address}: put their streams into one")
        return self


def load_settings(path: str | Path) -> Settings:
    """Read a settings file; raises ConfigError that names the file, the key and the mend."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file; write one after configs/streamer.toml and name it with --config"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML ({error})") from error
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {complaint(error, Settings)}") from error
    return _absolute(settings, path.parent)


def _absolute(settings: Settings, folder: Path) -> Settings:
    """``settings`` whose relative paths count from ``folder``."""
    mqtt = {
        key: folder / value.expanduser()
        for key in ("ca_file", "password_file")
        if (value := getattr(settings.mqtt, key)) is not None
    }
    return settings.model_copy(
        update={
            "bundle": settings.bundle.model_copy(update={"path": folder / settings.bundle.path.expanduser()}),
            "mqtt": settings.mqtt.model_copy(update=mqtt),
        }
    )
