"""What the daemon counts, in the Prometheus text format over HTTP.

Names are public: they begin with ``onset_``, counters end in ``_total``, units are in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from picker.errors import ConfigError

LATENCY_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
STEP_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

ByReason = Callable[[], Mapping[str, int]]
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

    def add_counters(self, name: str, text: str, values: ByReason, label: str = "reason") -> None:
        """Serve a mapping of counts that somebody else keeps as the counter ``onset_<name>_total``."""
        self.registry.register(_Kept(lambda: _counters(f"onset_{name}", text, label, values())))

    def add_gauge(self, name: str, text: str, value: Depth) -> None:
        """Serve a number that somebody else keeps as the gauge ``onset_<name>``."""
        Gauge(f"onset_{name}", text, registry=self.registry).set_function(value)


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


class MetricsServer:
    """The HTTP endpoint, in a thread of its own: ``with MetricsServer(metrics, host, port) as server: server.port``."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        try:
            served: tuple[WSGIServer, Thread] = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot listen on {host}:{port} ({error}); mend metrics.host or metrics.port"
            ) from error
        self._server, self._thread = served

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return int(self._server.server_port)

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
