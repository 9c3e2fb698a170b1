"""The HTTP endpoint: ``/healthz`` says how the daemon is, any other path serves the metrics."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from picker.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HEALTH_PATH = "/healthz"
REQUEST_S = 10.0
"""A client that takes longer to ask, or to take its answer, is dropped."""

Report = Callable[[], tuple[bool, Mapping[str, Any]]]
"""Whether all is well, and what there is to say about it; called in a thread of the server."""


class Endpoint:
    """Serves while the context lasts, in threads of its own: ``with Endpoint(...) as endpoint: endpoint.port``.

    Raises ConfigError where the address cannot be listened on.
    """

    def __init__(self, registry: CollectorRegistry, report: Report, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _server_of(found[0])((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot listen on {host}:{port} ({error}); mend metrics.host or metrics.port"
            ) from error
        self._server.set_app(_application(registry, report))
        self._thread = Thread(target=self._server.serve_forever, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Port that is listened on."""
        return self._server.server_port

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _application(
    registry: CollectorRegistry, report: Report
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app(registry)

    def serve(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != HEALTH_PATH:
            answer: Iterable[bytes] = metrics(environ, start)
            return answer
        well, body = report()
        start(
            "200 OK" if well else "503 Service Unavailable",
            [("Content-Type", "application/json"), ("Cache-Control", "no-store")],
        )
        return [json.dumps(body).encode() + b"\n"]

    return serve


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would ask the name service who it is, which may take its time
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes in the middle is no event."""


def _server_of(family: int) -> type[_Server]:
    return type("_Server", (_Server,), {"address_family": family})


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_S

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
