"""Settings: what is accepted, and how each mistake is told."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from tiny_bundle import write_tiny_bundle

from picker.bundle import load_bundle
from picker.decision import PhaseRule
from picker.errors import ConfigError
from streamer.assembly import broker_of, limits_of
from streamer.broker import Broker
from streamer.chunk import StationKey
from streamer.outbox import Limits
from streamer.pick_settings import PickSettings
from streamer.section import Section
from streamer.seedlink_settings import Selection
from streamer.settings import MqttSettings, Settings, StationSettings, load_settings
from streamer.station import StationPolicy

EXAMPLE = Path(__file__).parents[2] / "configs" / "streamer.toml"
BUNDLE = """
[bundle]
path = "bundle"
"""
SERVER = """
[[seedlink]]
host = "localhost"
streams = [{ network = "XX", station = "*" }]
"""
LEAST = BUNDLE + SERVER


def load(folder: Path, text: str) -> Settings:
    path = folder / "streamer.toml"
    path.write_text(text)
    return load_settings(path)


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'streamer.toml'}: ")
    assert "\n" not in message
    return message


def sections(model: type[BaseModel] = Settings) -> set[type[BaseModel]]:
    inner = {
        kind
        for field in model.model_fields.values()
        for kind in (field.annotation, *typing.get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, Section)
    }
    return {model}.union(*(sections(kind) for kind in inner))


def test_example_loads_and_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """configs/streamer.toml is valid; with every key uncommented it is too, names all keys, and changes no default."""
    given = load_settings(EXAMPLE)
    assert given.bundle.path == EXAMPLE.parent / "../models/small"
    lines = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in _example_lines()]
    full = load(tmp_path, "\n".join(lines))
    for section in ("engine", "stations", "picks", "outbox", "status", "mute", "metrics", "log"):
        assert getattr(full, section).model_fields_set == set(type(getattr(full, section)).model_fields)
    shown = full.seedlink[0].model_fields_set | full.mqtt.model_fields_set | full.model_fields_set
    assert shown == set(Settings.model_fields) | set(MqttSettings.model_fields) | set(
        type(full.seedlink[0]).model_fields
    )
    for section in ("engine", "stations", "status", "metrics", "log"):
        assert getattr(full, section) == getattr(given, section)
    assert full.outbox.model_copy(update={"path": None}) == given.outbox


def _example_lines() -> list[str]:
    return EXAMPLE.read_text().splitlines()


def test_every_key_is_described() -> None:
    """The field descriptions are the reference: none is missing, and every section forbids unknown keys."""
    found = sections()
    assert len(found) >= 17
    for model in found:
        assert model.model_config["extra"] == "forbid"
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{model.__name__}.{name}"


def test_defaults_are_those_of_the_parts(tmp_path: Path) -> None:
    """What is not set means what the station, the decision and the broker mean by default."""
    settings = load(tmp_path, LEAST)
    stations, policy = StationSettings(), StationPolicy()
    for name in ("component_wait_s", "interpolate_s", "hold_s"):
        assert getattr(stations, name) == getattr(policy, name)
    spec = load_bundle(write_tiny_bundle(tmp_path / "bundle", {"P": 0.42, "S": 0.17})).spec
    assert settings.picks.rules(spec) == {"P": PhaseRule(threshold=0.42), "S": PhaseRule(threshold=0.17)}
    assert broker_of(settings.mqtt) == Broker()
    assert limits_of(settings.outbox) == Limits()


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nothing changes a setting after it was read."""
    settings = load(tmp_path, LEAST)
    with pytest.raises(ValidationError):
        settings.mqtt.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (LEAST + "[mqt]\nport = 1", ["unknown key `mqt`", "did you mean `mqtt`?"]),
        (LEAST + "[mqtt]\nhots = 'x'", ["unknown key `mqtt.hots`", "did you mean `host`?"]),
        (LEAST + "[picks.thresholds]\np = 0.3", ["unknown key `picks.thresholds.p`", "did you mean `P`?"]),
        (LEAST + "[log]\nzzz = 1", ["unknown key `log.zzz`", "known keys here: format, level"]),
        (LEAST.replace("station =", "sation ="), ["unknown key `seedlink[0].streams[0].sation`", "`station`"]),
        (LEAST + "[mqtt]\nport = 99999", ["key `mqtt.port`", "65535"]),
        (LEAST + "[mqtt]\nprotocol = '4'", ["key `mqtt.protocol`", "'3.1.1'"]),
        (LEAST + "[mqtt]\ntopic_root = 'onset/#'", ["key `mqtt.topic_root`", "onset/v1"]),
        (LEAST + "[picks.thresholds]\nP = 1.5", ["key `picks.thresholds.P`", "less than 1"]),
        (LEAST + "[engine]\nkind = 'abacus'", ["key `engine.kind`", "'cpu'"]),
        (LEAST.replace('"*" }', '"*", channels = ["HHZZ"] }'), ["`seedlink[0].streams[0].channels[0]`", "three"]),
        (BUNDLE, ["the key `seedlink` is missing"]),
        (SERVER, ["the key `bundle` is missing"]),
        (LEAST + SERVER, ["two [[seedlink]] tables for localhost:18000"]),
        (LEAST + "[mqtt\n", ["not TOML", "line 8"]),
    ],
)
def test_a_mistake_is_told_by_key_and_mend(tmp_path: Path, text: str, parts: list[str]) -> None:
    """One line that names the file, the key, and what would be right."""
    message = complaint(tmp_path, text)
    for part in parts:
        assert part in message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Two mistakes: both in the one line, and no follow-up about the list that holds them."""
    message = complaint(tmp_path, LEAST.replace("station =", "sation =") + "[mqt]")
    assert message.count("unknown key") == 2
    assert "at least 1 item" not in message


def test_missing_and_unreadable_files_are_told(tmp_path: Path) -> None:
    """No such file, a folder, bytes that are no text: ConfigError each."""
    with pytest.raises(ConfigError, match=r"no such file; write one after configs/streamer\.toml"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path / "bytes.toml")


def test_values_given_never_appear_in_a_complaint(tmp_path: Path) -> None:
    """A value may be a secret in the wrong place."""
    message = complaint(tmp_path, LEAST + "[mqtt]\nusername = ['hunter2']\npasword_file = 'hunter2'\nport = 'hunter2'")
    assert "hunter2" not in message


def test_password_comes_from_file_or_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file goes before the variable, its path counts from the settings, and without a user there is none."""
    monkeypatch.setenv("ONSET_MQTT_PASSWORD", "from environment")
    (tmp_path / "secret").write_text("from file\n")
    assert load(tmp_path, LEAST).mqtt.password() is None
    assert load(tmp_path, LEAST + "[mqtt]\nusername = 'u'").mqtt.password() == "from environment"
    settings = load(tmp_path, LEAST + "[mqtt]\nusername = 'u'\npassword_file = 'secret'")
    assert settings.mqtt.password() == "from file"
    assert "from file" not in repr(broker_of(settings.mqtt))
    missing = load(tmp_path, LEAST + "[mqtt]\nusername = 'u'\npassword_file = 'none'").mqtt
    with pytest.raises(ConfigError, match=r"none: cannot read the MQTT password .* mend mqtt.password_file"):
        missing.password()


def test_outbox_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path counts from the settings; without one it lies in the state folder of systemd, or there is none."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert load(tmp_path, LEAST).outbox.file() is None
    assert load(tmp_path, LEAST + "[outbox]\npath = 'picks.db'").outbox.file() == tmp_path / "picks.db"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/elsewhere")
    assert load(tmp_path, LEAST).outbox.file() == tmp_path / "outbox.sqlite"
    with pytest.raises(ConfigError, match=r"none/picks\.db: there is no such folder for the outbox; make it, or mend"):
        load(tmp_path, LEAST + "[outbox]\npath = 'none/picks.db'").outbox.file()


@pytest.mark.parametrize(
    ("location", "channels", "selectors"),
    [
        ("*", ("HH?",), ["HH?"]),
        ("--", ("HH?", "BHZ"), ["--HH?", "--BHZ"]),
        ("", ("HH?",), ["--HH?"]),
        ("00", ("HH?",), ["00HH?"]),
        ("*", (), []),
    ],
)
def test_selection_becomes_seedlink_selectors(location: str, channels: tuple[str, ...], selectors: list[str]) -> None:
    """Any location is left out, the blank one is two dashes, no channels means everything."""
    selection = Selection(network="GE", station="WLF", location=location, channels=channels)
    assert (selection.station_id, selection.selectors) == ("GE_WLF", selectors)


def test_thresholds_of_a_station(tmp_path: Path) -> None:
    """The first table that fits holds, alone; a phase that it leaves out has the threshold of all."""
    text = """
    [picks.thresholds]
    S = 0.2
    [[picks.stations]]
    network = "CX"
    station = "PB0[12]"
    thresholds = { P = 0.5 }
    [[picks.stations]]
    network = "CX"
    thresholds = { P = 0.6, S = 0.7 }
    """
    spec = load_bundle(write_tiny_bundle(tmp_path / "bundle", {"P": 0.42, "S": 0.17})).spec
    picks = load(tmp_path, LEAST + text).picks
    rules_of = picks.station_rules(spec)

    def thresholds(network: str, station: str) -> list[float]:
        return [rule.threshold for rule in rules_of(StationKey(network, station, "", "HH")).values()]

    assert thresholds("CX", "PB01") == [0.5, 0.2]
    assert thresholds("CX", "PB03") == [0.6, 0.7]
    assert thresholds("GE", "PB01") == [0.42, 0.2]
    assert rules_of.default == picks.rules(spec)
    only_p = load_bundle(write_tiny_bundle(tmp_path / "only", {"P": 0.42})).spec
    wrong = PickSettings.model_validate({"stations": [{"station": "A", "thresholds": {"S": 0.5}}]})
    with pytest.raises(ConfigError, match=r"picks.stations\[0\].thresholds.S: this bundle picks P only"):
        wrong.station_rules(only_p)


def test_threshold_of_a_phase_that_the_bundle_lacks_is_refused(tmp_path: Path) -> None:
    """A threshold that would have no effect is a mistake."""
    spec = load_bundle(write_tiny_bundle(tmp_path, {"P": 0.3})).spec
    picks = PickSettings.model_validate({"thresholds": {"S": 0.5}})
    with pytest.raises(ConfigError, match=r"picks.thresholds.S: this bundle picks P only"):
        picks.rules(spec)
