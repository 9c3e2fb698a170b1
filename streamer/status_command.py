"""The sub-command ``streamer status``: asks a running daemon how it is, over its HTTP endpoint."""

from __future__ import annotations

import argparse
import json
import math
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from picker.errors import ConfigError, OnsetError
from streamer.endpoint import HEALTH_PATH
from streamer.settings import load_settings

DESCRIPTION = """\
Ask the running daemon how it is: servers, stations, picks, broker, outbox, and what is wrong.

It asks the daemon's HTTP endpoint, which [metrics] enabled = true turns on. Exit status 0: healthy, 1: not, 2: no
daemon answers there."""

EXAMPLES = """\
examples:
  streamer status --config /etc/onset/streamer.toml      the daemon with these settings, on this machine
  streamer status --url http://picker.example:9109       a daemon elsewhere
  streamer status --url http://localhost:9109 --json     for programs
"""

MEANING = {
    "no_server": "no SeedLink server delivers",
    "broker_absent": "the MQTT broker is absent: picks are held",
    "queue_full": "the queue of records is full: the machine is too slow for these stations",
    "no_chunk": "records arrive, but no station completes a chunk: see the warnings for channels",
    "outbox_not_on_disk": "the outbox's disk takes nothing: picks are held in memory alone",
    "no_progress": "picking is stuck: the watchdog is not fed",
    "event_loop_blocked": "the daemon stands still",
}
"""Each reason for people; docs/operations.md says what to do."""

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Addresses that a daemon listens on, and where it is asked then."""


class Unreachable(OnsetError):
    """No daemon answers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer status``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="the daemon's settings: they say where to ask")
    where.add_argument("--url", metavar="URL", help="where to ask, such as http://localhost:9109")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, all metrics included")
    parser.add_argument(
        "--timeout-s", type=float, default=5.0, metavar="T", help="wait so long for an answer (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``streamer status``; returns the exit status. Raises ConfigError where nobody can be asked."""
    url = base_url(args.url) if args.url is not None else configured_url(args.config)
    try:
        body, metrics = ask(url, args.timeout_s)
    except Unreachable as error:
        print(f"streamer: {error}", file=sys.stderr)
        return 2
    if args.json:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        print(json.dumps({**body, "metrics": finite}))
    else:
        show(Console(highlight=False), url, body, metrics)
    return 0 if body["status"] == "ok" else 1


def configured_url(path: Path) -> str:
    """Where the daemon with the settings in ``path`` is asked; raises ConfigError where it serves nothing."""
    metrics = load_settings(path).metrics
    if not metrics.enabled:
        raise ConfigError(f"{path}: the daemon serves no HTTP; set metrics.enabled to true and restart it")
    if not metrics.port:
        raise ConfigError(f"{path}: metrics.port is 0, so the port is in the daemon's log: give it by --url")
    host = ANYWHERE.get(metrics.host, metrics.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{metrics.port}"


def base_url(text: str) -> str:
    """``text`` without path; raises ConfigError for what is no HTTP address."""
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--url {text!r}: not an HTTP address such as http://localhost:9109")
    return f"{parts.scheme}://{parts.netloc}"


def ask(url: str, timeout_s: float) -> tuple[dict[str, Any], dict[str, float]]:
    """The body of /healthz and all metrics, by name and labels; raises Unreachable."""
    try:
        body = json.loads(_get(url + HEALTH_PATH, timeout_s))
        if not {"status", "reasons", "servers"} <= body.keys():
            raise ValueError("what answers is no daemon of Onset")
        text = _get(f"{url}/metrics", timeout_s).decode()
        metrics = {
            _name(sample.name, sample.labels): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except (OSError, ValueError, AttributeError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(
            f"{url}: no answer ({reason}); is the daemon running, with metrics.enabled = true?"
        ) from error
    return body, metrics


def show(console: Console, url: str, body: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """The answer for people."""
    well = body["status"] == "ok"
    verdict = "[green]healthy[/]" if well else "[red]not healthy[/]"
    console.print(
        f"onset {escape(body['version'])} at {escape(url)}, process {body['process']}, "
        f"up {duration(body['up_s'])}: {verdict}",
        soft_wrap=True,
    )
    table = Table.grid(padding=(0, 2))
    for row in _rows(body, metrics):
        table.add_row(*row)
    console.print(table)
    for reason in body["reasons"]:
        console.print(
            f"[red]{escape(reason)}[/]: {escape(MEANING.get(reason, 'see docs/operations.md'))}", soft_wrap=True
        )


def _rows(body: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for server in body["servers"]:
        name = server["server"]
        state = "delivers" if server["delivers"] else f"[yellow]absent for {duration(server['absent_s'])}[/]"
        packets = metrics.get(_name("onset_packets_total", {"server": name}), 0)
        lost = metrics.get(_name("onset_reconnects_total", {"server": name}), 0)
        yield "server", f"{escape(name)}  {state}, {packets:.0f} packets, {lost:.0f} connections lost or failed"
    bad = sum(value for name, value in metrics.items() if name.startswith("onset_bad_records_total"))
    yield "stations", f"{body['stations']} picked, {body['records_waiting']} records waiting, {bad:.0f} bad records"
    picks = ", ".join(f"{count} {phase}" for phase, count in body["picks"].items())
    yield "picks", f"{picks} since the start"
    broker, outbox = body["broker"], body["outbox"]
    yield "broker", f"{escape(broker['broker'])}  {'connected' if broker['connected'] else '[yellow]absent[/]'}"
    place = "on disk" if outbox["on_disk"] else "[yellow]in memory alone[/]"
    waits = f", the oldest for {duration(outbox['oldest_s'])}" if outbox["held"] else ""
    yield "outbox", f"{place}, {outbox['held']} picks held{waits}, {outbox['given_up']} given up"


def duration(seconds: float) -> str:
    """For people: the two largest units."""
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit_s:
            rest = int(seconds % unit_s // smaller_s)
            return f"{int(seconds // unit_s)} {unit} {rest} {smaller}"
    return f"{seconds:.0f} s"


def _get(url: str, timeout_s: float) -> bytes:
    """What is there; a 503 is an answer too."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:
            data: bytes = reply.read()
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code != 503:
                raise
            data = refused.read()
    return data


def _name(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}" if inner else name
