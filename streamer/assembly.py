"""The parts of a daemon, made of its settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from picker.bundle import Bundle
from streamer.broker import Broker
from streamer.engine import Engine, Model
from streamer.memory_outbox import MemoryOutbox
from streamer.message import Source
from streamer.metrics import Metrics
from streamer.model_run import ModelRun
from streamer.outbox import Limits, Outbox
from streamer.pick_settings import PickSettings
from streamer.picking import Picking, Publish
from streamer.publisher import Publisher
from streamer.retained import RetainedBoard
from streamer.session import Delivery
from streamer.settings import MqttSettings, OutboxSettings, Settings
from streamer.sqlite_outbox import SqliteOutbox
from streamer.station import StationPolicy
from streamer.station_watch import StationWatch
from streamer.station_xml import KnownChannels
from streamer.stations import Stations
from streamer.status_message import DaemonFacts

SHADOW_LIMITS = Limits(max_entries=10_000, max_bytes=20_000_000, max_age_s=3600.0)
"""What the shadow's picks may take of the memory while the broker is away."""

_log = structlog.get_logger(__name__)


def broker_of(settings: MqttSettings) -> Broker:
    """The broker that the settings name; raises ConfigError where the password file cannot be read."""
    broker = Broker(
        host=settings.host,
        port=settings.port,
        protocol=settings.protocol,
        username=settings.username,
        password=settings.password(),
        tls=settings.tls,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )
    return broker if settings.client_id is None else replace(broker, client_id=settings.client_id)


def limits_of(settings: OutboxSettings) -> Limits:
    """How much the outbox of the settings holds and remembers."""
    return Limits(
        max_entries=settings.max_entries,
        max_bytes=settings.max_bytes,
        max_age_s=settings.max_age_h * 3600,
        keep_acknowledged_s=settings.keep_acknowledged_h * 3600,
    )


def open_outbox(settings: OutboxSettings, clock_ns: Callable[[], int] = time.time_ns) -> Outbox:
    """The outbox that the settings name, opened; raises ConfigError where its file cannot be used."""
    limits, path = limits_of(settings), settings.file()
    if path is None:
        _log.warning("picks are held in memory alone: set outbox.path to keep them where the daemon is killed")
        return MemoryOutbox(limits, clock_ns=clock_ns)
    outbox = SqliteOutbox(path, limits, clock_ns=clock_ns)
    _log.info("outbox opened", file=str(path), held=len(outbox))
    return outbox


def make_picking(
    settings: Settings,
    known: KnownChannels,
    bundle: Bundle,
    stepper: Model,
    publish: Publish,
    metrics: Metrics,
    clock_ns: Callable[[], int],
) -> Picking:
    """The picking that the settings describe, which has done nothing yet; ``known`` is what StationXML says."""
    stations = settings.stations
    policy = StationPolicy(
        component_wait_s=stations.component_wait_s, interpolate_s=stations.interpolate_s, hold_s=stations.hold_s
    )
    return Picking(
        bundle,
        settings.picks.rules(bundle.spec),
        Stations(policy, stations.prefer, known=known),
        Engine(stepper),
        publish,
        metrics,
        guard_s=stations.guard_s,
        station_rules=settings.picks.station_rules(bundle.spec),
        provisional=settings.picks.provisional,
        latency_high_s=settings.picks.latency_high_s,
        clock_ns=clock_ns,
        most_rows=settings.engine.most_rows,
        watch=StationWatch(settings.status.rate_rule(), settings.mute.rule),
    )


def make_model(
    settings: Settings, picks: PickSettings, bundle: Bundle, stepper: Model, clock_ns: Callable[[], int]
) -> ModelRun:
    """A model to run beside the first: a shadow or a successor. Raises ConfigError as ``PickSettings.rules`` does."""
    return ModelRun(
        bundle,
        picks.rules(bundle.spec),
        Engine(stepper),
        guard_s=settings.stations.guard_s,
        rules_of=picks.station_rules(bundle.spec),
        provisional=picks.provisional,
        latency_high_s=picks.latency_high_s,
        clock_ns=clock_ns,
    )


def make_publisher(
    settings: Settings, outbox: Outbox | None, about: Callable[[], DaemonFacts], clock_ns: Callable[[], int]
) -> Publisher:
    """The publisher of the picks."""
    return Publisher(
        broker_of(settings.mqtt),
        Source(agencyID=settings.agency, author=settings.author),
        outbox,
        topic_root=settings.mqtt.topic_root,
        delivery=Delivery(message_expiry_s=settings.mqtt.message_expiry_s),
        board=RetainedBoard(settings.status.most_per_s),
        about=about,
        clock_ns=clock_ns,
    )


def make_shadow_publisher(
    settings: Settings, about: Callable[[], DaemonFacts], clock_ns: Callable[[], int]
) -> Publisher:
    """The publisher of the shadow's picks: a connection and an outbox of its own, so that it is in nobody's way."""
    broker = broker_of(settings.mqtt)
    return Publisher(
        replace(broker, client_id=f"{broker.client_id}-shadow"),
        Source(agencyID=settings.agency, author=settings.author),
        MemoryOutbox(SHADOW_LIMITS, clock_ns=clock_ns),
        topic_root=settings.shadow.topic_root,
        delivery=Delivery(message_expiry_s=settings.mqtt.message_expiry_s),
        about=about,
        clock_ns=clock_ns,
    )
