"""What the daemon counts; ``streamer/endpoint.py`` serves it in the Prometheus text format.

Names are public: they begin with ``onset_``, counters end in ``_total``, units are in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

ByReason = Callable[[], Mapping[str, int]]
ByWord = Callable[[], Mapping[str, float]]
Depth = Callable[[], float]


class Metrics:
    """All counters of one daemon, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"onset_{name}", text, labels, registry=self.registry)

        self.packets = counter("packets", "SeedLink packets received", "server")
        self.records = counter("records", "miniSEED records decoded", "server")
        self.bad_records = counter("bad_records", "Packets and records that could not be used", "reason")
        self.reconnects = counter("reconnects", "Connections to a server lost and attempts failed", "server")
        self.resumes = counter(
            "resume", "Connections that went on from the last data: by sequence, window, live", "kind"
        )
        self.seen = counter("records_seen", "Records dropped because the same had come before", "server")
        self.chunks = counter("chunks", "Chunks that stations completed")
        self.picks = counter("picks", "Picks handed to the publisher", "phase")
        self.connected = Gauge(
            "onset_server_connected", "Whether the server delivers data (0 or 1)", ["server"], registry=self.registry
        )
        self.step_s = Histogram(
            "onset_step_seconds", "Duration of one call of the model", buckets=STEP_BUCKETS_S, registry=self.registry
        )
        self.latency_s = Histogram(
            "onset_pick_latency_seconds",
            "From the arrival of the wave to the hand-over of its pick to the publisher",
            ["phase"],
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.publish_s = Histogram(
            "onset_publish_seconds",
            "From the hand-over of a pick to the publisher to the broker's acknowledgement",
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def add_counters(self, name: str, text: str, values: ByReason, label: str = "reason") -> None:
        """Serve a mapping of counts that somebody else keeps as the counter ``onset_<name>_total``."""
        self.registry.register(_Kept(lambda: _counters(f"onset_{name}", text, label, values())))

    def add_gauge(self, name: str, text: str, value: Depth) -> None:
        """Serve a number that somebody else keeps as the gauge ``onset_<name>``."""
        Gauge(f"onset_{name}", text, registry=self.registry).set_function(value)

    def add_gauges(self, name: str, text: str, values: ByWord, label: str = "reason") -> None:
        """Serve a mapping of numbers that somebody else keeps as the gauge ``onset_<name>``."""
        self.registry.register(_Kept(lambda: _gauges(f"onset_{name}", text, label, values())))


class _Kept(Collector):
    """Metrics that are computed when they are asked for."""

    def __init__(self, compute: Callable[[], CounterMetricFamily | GaugeMetricFamily]) -> None:
        self._compute = compute

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """See prometheus_client."""
        yield self._compute()


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in dict(values).items():
        family.add_metric([key], value)
    return family


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in dict(values).items():
        family.add_metric([key], value)
    return family
