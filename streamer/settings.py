"""What the daemon is told: one TOML file, read once, frozen. The field descriptions are the reference."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from picker.errors import ConfigError
from streamer.capture.settings import CaptureSettings
from streamer.channels import DEFAULT_PREFERENCE
from streamer.complaint import complaint
from streamer.mqtt_settings import MqttSettings as MqttSettings
from streamer.pick_settings import PickSettings
from streamer.section import Section
from streamer.seedlink_settings import SeedLinkSettings
from streamer.shadow_settings import ShadowSettings
from streamer.station_xml import KnownChannels, read_station_xml
from streamer.status_settings import MuteSettings, StatusSettings

Preference = Annotated[str, StringConstraints(pattern=r"^[A-Z?]{2}$")]


def _listed(value: Any) -> Any:
    """One file is a list of one."""
    return [value] if isinstance(value, str | Path) else value


class BundleSettings(Section):
    """[bundle]: the model that picks."""

    path: Path = Field(description="Folder of the model bundle; a relative path counts from the settings file.")
    warm_up_s: float = Field(
        default=120.0,
        ge=0,
        le=3600,
        description="Data of a station that a new bundle sees, after a reload, before it picks there (s).",
    )


class EngineSettings(Section):
    """[engine]: what runs the model."""

    kind: Literal["cpu", "cuda", "tensorrt"] = Field(
        default="cpu",
        description='Inference engine: "cpu" is ONNX Runtime on the processor, "cuda" ONNX Runtime on an NVIDIA GPU '
        'with the states in its memory (extra gpu), "tensorrt" a plan of `python -m export plan` (extra tensorrt).',
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads of one call of the model, on the processor.")
    device: int = Field(default=0, ge=0, le=64, description="Number of the GPU, as nvidia-smi counts them.")
    cuda_graph: bool = Field(
        default=True,
        description='For kind "cuda": steps of 16, 32, 64 and so on stations are captured as CUDA graphs and replayed, '
        "which saves launches.",
    )
    tf32: bool = Field(
        default=True,
        description='For kind "cuda": products round their operands to 11 bits (TF32), which is faster; a pick may '
        "move by some hundredths of a second where the probability has two equal peaks.",
    )
    most_rows: int = Field(
        default=512, ge=1, le=65536, description="Stations in one call of the model; a GPU likes thousands."
    )
    fallback: bool = Field(
        default=False,
        description="Whether the processor takes over, with a warning, where the GPU cannot be used at the start; "
        "otherwise the daemon refuses to start.",
    )


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
    metadata: Annotated[tuple[Path, ...], BeforeValidator(_listed)] = Field(
        default=(),
        description="FDSN StationXML file or list of files: components are turned by their azimuths and dips, picks "
        "have coordinates. Relative paths count from the settings file; read at the start.",
    )

    def known(self) -> KnownChannels:
        """What the files of ``metadata`` say. Raises ConfigError."""
        return read_station_xml(self.metadata)


class OutboxSettings(Section):
    """[outbox]: where picks are kept until the broker has them, and how many."""

    path: Path | None = Field(
        default=None,
        description="SQLite file that holds the picks; unset takes outbox.sqlite in the folder that STATE_DIRECTORY "
        "names (systemd sets it), and without that the memory, which a killed daemon loses.",
    )
    max_entries: int = Field(
        default=50_000, ge=1, le=1_000_000, description="Picks held at most; beyond it the oldest are lost."
    )
    max_bytes: int = Field(
        default=100_000_000, ge=1_000_000, description="The same in bytes of messages; they are in memory too."
    )
    max_age_h: float = Field(default=72.0, gt=0, description="A pick that has waited so long is given up (h).")
    keep_acknowledged_h: float = Field(
        default=24.0,
        gt=0,
        description="So long an acknowledged pick is known by its id and not sent again, 100,000 of them at most (h).",
    )

    def file(self) -> Path | None:
        """The file, None for the memory. Raises ConfigError where there is no folder for it."""
        return _state_file(self.path, "outbox.sqlite", "outbox")


class SnapshotSettings(Section):
    """[snapshot]: what a daemon that was killed resumes from."""

    path: Path | None = Field(
        default=None,
        description="File of the snapshot; unset takes snapshot in the folder that STATE_DIRECTORY names (systemd sets "
        "it), and without that there is none: after a restart every station starts afresh.",
    )
    every_s: float = Field(
        default=30.0, ge=1, le=3600, description="Time from one snapshot to the next (s); there is one at the end too."
    )

    def file(self) -> Path | None:
        """The file, None for no snapshots. Raises ConfigError where there is no folder for it."""
        return _state_file(self.path, "snapshot", "snapshot")


def _state_file(path: Path | None, name: str, table: str) -> Path | None:
    """``path``, or ``name`` in the service's state folder, or None where there is none."""
    folder = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    path = path or (Path(folder, name) if folder else None)
    if path is not None and not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no such folder for the {table}; make it, or mend {table}.path")
    return path


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
    outbox: OutboxSettings = Field(default_factory=OutboxSettings, description="Where picks wait for the broker.")
    shadow: ShadowSettings = Field(default_factory=ShadowSettings, description="A second model beside the first.")
    snapshot: SnapshotSettings = Field(
        default_factory=SnapshotSettings, description="What a daemon that was killed resumes from."
    )
    capture: CaptureSettings = Field(
        default_factory=CaptureSettings, description="Whether what servers send is kept, to play it back later."
    )
    status: StatusSettings = Field(default_factory=StatusSettings, description="What is told of each station.")
    mute: MuteSettings = Field(default_factory=MuteSettings, description="Stations that pick without end.")
    metrics: MetricsSettings = Field(default_factory=MetricsSettings, description="The Prometheus endpoint.")
    log: LogSettings = Field(default_factory=LogSettings, description="What is written to standard error.")

    @model_validator(mode="after")
    def _servers_differ(self) -> Settings:
        addresses = [server.address for server in self.seedlink]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f"two [[seedlink]] tables for {address}: put their streams into one")
        return self

    @model_validator(mode="after")
    def _roots_differ(self) -> Settings:
        if self.shadow.path is not None and self.shadow.topic_root == self.mqtt.topic_root:
            raise ValueError("shadow.topic_root is mqtt.topic_root: the shadow's picks need topics of their own")
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
    mqtt = _files(settings.mqtt, folder, "ca_file", "cert_file", "key_file", "password_file")
    servers = (
        server.model_copy(update=_files(server, folder, "ca_file", "password_file", "token_file"))
        for server in settings.seedlink
    )
    outbox, snapshot, capture, shadow = (
        {} if section.path is None else {"path": folder / section.path.expanduser()}
        for section in (settings.outbox, settings.snapshot, settings.capture, settings.shadow)
    )
    metadata = tuple(folder / path.expanduser() for path in settings.stations.metadata)
    return settings.model_copy(
        update={
            "stations": settings.stations.model_copy(update={"metadata": metadata}),
            "outbox": settings.outbox.model_copy(update=outbox),
            "snapshot": settings.snapshot.model_copy(update=snapshot),
            "capture": settings.capture.model_copy(update=capture),
            "shadow": settings.shadow.model_copy(update=shadow),
            "bundle": settings.bundle.model_copy(update={"path": folder / settings.bundle.path.expanduser()}),
            "seedlink": tuple(servers),
            "mqtt": settings.mqtt.model_copy(update=mqtt),
        }
    )


def _files(section: Section, folder: Path, *keys: str) -> dict[str, Path]:
    """The paths at ``keys`` that are set, counted from ``folder``."""
    given = {key: getattr(section, key) for key in keys}
    return {key: folder / value.expanduser() for key, value in given.items() if value is not None}
