"""What SIGHUP does: read the settings again and let another bundle take over, or say why not. The daemon goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from picker.errors import OnsetError
from streamer.daemon import Daemon
from streamer.model_files import open_model
from streamer.settings import Settings, load_settings
from streamer.systemd import notify

TAKEN = frozenset({"bundle.path", "bundle.warm_up_s", "picks.thresholds", "picks.stations"})
"""Keys that are applied, with a bundle of another digest; all others need a restart."""
RESULTS = ("warming_up", "same_bundle", "refused", "failed")
"""What may come of a request, as the metric counts it."""

_log = structlog.get_logger(__name__)


class Reload:
    """``request`` asks for one, ``run`` is the task that does it; requests that come meanwhile are one."""

    def __init__(self, daemon: Daemon, config: Path) -> None:
        self._daemon, self._config = daemon, config
        self._requested = asyncio.Event()
        self.counts = dict.fromkeys(RESULTS, 0)
        """Requests by result."""
        daemon.metrics.add_counters("reloads", "Reloads asked for", lambda: self.counts, label="result")
        daemon.metrics.add_gauge("swap_running", "Whether another bundle warms up (0 or 1)", lambda: daemon.swapping)

    def request(self) -> None:
        """Reload soon; to be called on the event loop."""
        self._requested.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            notify("RELOADING=1")
            try:
                self.counts[await self._reload()] += 1
            except OnsetError as error:
                self.counts["refused"] += 1
                _log.error("reload refused: the daemon goes on as it was", reason=str(error))
            except Exception as error:
                self.counts["failed"] += 1
                _log.error("reload has failed: the daemon goes on as it was", reason=repr(error))
            notify("READY=1")

    async def _reload(self) -> str:
        """Do it, and say which of RESULTS it is."""
        daemon = self._daemon
        if daemon.swapping:
            _log.warning("reload refused: another bundle warms up, try again when it has been swapped")
            return "refused"
        settings = await asyncio.to_thread(load_settings, self._config)
        bundle, stepper = await asyncio.to_thread(open_model, settings.bundle.path, settings.engine)
        same = bundle.digest == daemon.picking.model.bundle.digest
        keys = changed(daemon.settings, settings) - (frozenset() if not same else frozenset({"bundle.path"}))
        if waiting := sorted(keys if same else keys - TAKEN):
            _log.warning("settings have changed that need a restart", keys=", ".join(waiting))
        if same:
            _log.info("settings read again: the bundle is the one that picks", bundle=bundle.label)
            return "same_bundle"
        daemon.swap(settings, bundle, stepper)
        return "warming_up"


def changed(before: Settings, after: Settings) -> frozenset[str]:
    """Keys whose values differ, as ``table.key``."""
    old, new = _flat(before), _flat(after)
    return frozenset(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _flat(settings: Settings) -> dict[str, Any]:
    """Values by ``table.key``; a list of tables is one value."""
    flat: dict[str, Any] = {}
    for name, value in settings.model_dump().items():
        flat |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return flat
