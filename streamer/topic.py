"""MQTT topics: public API, described in docs/mqtt.md."""

from __future__ import annotations

import re

from picker.errors import ConfigError
from streamer.chunk import StationKey
from streamer.record import Nslc

ROOT = "onset/v1"
BLANK = "--"

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def checked_root(root: str) -> str:
    """``root`` itself; raises ConfigError where it cannot begin a topic that is published to."""
    if not root or root.startswith(("$", "/")) or root.endswith("/") or re.search(r"[+#\x00]", root):
        raise ConfigError(
            f"topic root {root!r}: must not be empty, begin with '$' or '/', end with '/', or hold '+', '#' or NUL; "
            f"the default is {ROOT!r}"
        )
    return root


def topic_level(code: str) -> str:
    """One level of a topic: ``--`` for a blank code, ``_`` for each character that is not safe in a topic."""
    return _UNSAFE.sub("_", code.strip()) or BLANK


def pick_topic(nslc: Nslc, phase: str, root: str = ROOT) -> str:
    """``<root>/picks/<network>/<station>/<location, -- if blank>/<phase>``."""
    levels = (nslc.network, nslc.station, nslc.location, phase)
    return "/".join((root, "picks", *map(topic_level, levels)))


def status_topic(client_id: str, root: str = ROOT) -> str:
    """``<root>/status/<client id>``: retained, the daemon's ``online`` or ``offline``."""
    return f"{root}/status/{topic_level(client_id)}"


def station_topic(client_id: str, station: StationKey, root: str = ROOT) -> str:
    """``<root>/status/<client id>/<network>/<station>/<location>/<band and instrument>``: retained, one station's."""
    return "/".join((status_topic(client_id, root), *map(topic_level, station)))
