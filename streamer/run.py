"""The sub-command ``streamer run``."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import structlog

from picker.bundle import Bundle
from picker.errors import OnsetError
from streamer.assembly import broker_of, open_outbox
from streamer.daemon import Daemon
from streamer.logs import configure_logs
from streamer.model_files import open_model
from streamer.reload import Reload
from streamer.settings import Settings, load_settings
from streamer.systemd import notify

DESCRIPTION = """\
Pick P and S on live SeedLink data and publish the picks over MQTT, until SIGTERM or Ctrl-C.

A server or broker that is absent is not an error: it is tried again, and picks are held, in the file outbox.path where
one is set (see configs/streamer.toml), so that a killed daemon does not lose them. On the first signal everything
received is worked off and published (within 5 s, exit status 0); a second one exits at once. SIGHUP reads the settings
again and swaps to the bundle that they name, once it is warm (docs/operations.md). Wrong settings, a damaged bundle or
an outbox that another daemon uses: one line that says what to mend, exit status 2."""

EXAMPLES = """\
examples:
  streamer run --config configs/streamer.toml            run the daemon
  streamer run --config configs/streamer.toml --check    only say whether settings and bundle are sound
  ONSET_MQTT_PASSWORD=... streamer run --config ...      with the broker's password from the environment
"""

DEADLINE_S = 4.8
"""From the first signal to the end of the process, whatever happens."""
THREADS = 64
"""For what blocks: name look-ups and files."""
ECHO_S = 0.2
"""A second signal this soon is the first one again: timeout(1) and others send it to the process and to its group."""

_log = structlog.get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer run``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="settings, see configs/streamer.toml"
    )
    parser.add_argument("--check", action="store_true", help="check settings and bundle, print a summary, and exit")


def run(args: argparse.Namespace) -> int:
    """Run ``streamer run``; returns the exit status. Raises OnsetError for what the user has to mend."""
    settings = load_settings(args.config)
    configure_logs(settings.log.format, settings.log.level)
    make = _opened(settings, strict=args.check)
    if args.check:
        print(summary(settings, make().picking.model.bundle))
        return 0
    faulthandler.enable(2)  # the service manager ends what is stuck by SIGABRT: then the log says where it was
    with closing(open_outbox(settings.outbox)) as outbox:
        daemon = make(outbox=outbox, keep=True)
        del make  # the daemon alone holds its models, so that what it swaps away is freed
        _log.info("starting", config=str(args.config), bundle=daemon.picking.model.bundle.label, process=os.getpid())
        return asyncio.run(_serve(daemon, args.config))


def _opened(settings: Settings, *, strict: bool) -> partial[Daemon]:
    """What makes the daemon of the settings, whose models are sound.

    A shadow that cannot be opened keeps no daemon from its work, unless ``strict``: then it raises BundleError too.
    """
    bundle, stepper = open_model(settings.bundle.path, settings.engine)
    shadow = None
    if settings.shadow.path is not None:
        try:
            shadow = open_model(settings.shadow.path, settings.engine)
        except OnsetError as error:
            if strict:
                raise
            _log.error("shadow model cannot be opened: picks of the first model alone", reason=str(error))
    return partial(Daemon, settings, bundle, stepper, shadow=shadow)


def summary(settings: Settings, bundle: Bundle) -> str:
    """What would run, for people."""
    spec = bundle.spec
    rules = settings.picks.rules(spec)
    lookahead = ", ".join(f"{spec.lookahead_of(phase) / spec.sampling_rate_hz:g} s for {phase}" for phase in rules)
    lines = [
        f"bundle    {bundle.label} in {bundle.folder}",
        f"          look-ahead {lookahead}, {spec.state_bytes / 1e6:.2f} MB of state a station",
        "picks     " + ", ".join(f"{phase} from {rule.threshold:g}" for phase, rule in rules.items()),
    ]
    for server in settings.seedlink:
        streams = ", ".join(f"{stream.station_id} {' '.join(stream.selectors)}".strip() for stream in server.streams)
        lines.append(f"seedlink  {server.address} (version {server.protocol}): {streams}")
    broker = broker_of(settings.mqtt)
    lines.append(f"mqtt      {broker.address} (version {broker.protocol}), topics under {settings.mqtt.topic_root}")
    shadow = settings.shadow
    lines.append(f"shadow    {f'{shadow.path}, topics under {shadow.topic_root}' if shadow.path else 'none'}")
    file = settings.outbox.file()
    lines.append(f"outbox    {file or 'in memory: picks that wait are lost where the daemon is killed'}")
    kept = settings.snapshot.file()
    every = f"{kept}, every {settings.snapshot.every_s:g} s"
    lines.append(f"snapshot  {every if kept else 'none: after a restart every station starts afresh'}")
    captured = settings.capture.folder()
    lines.append(f"capture   {f'{captured}, at most {settings.capture.max_gb:g} GB' if captured else 'off'}")
    metrics = settings.metrics
    lines.append(f"metrics   {f'http://{metrics.host}:{metrics.port}/metrics' if metrics.enabled else 'off'}")
    return "\n".join([*lines, "settings and bundle are sound"])


async def _serve(daemon: Daemon, config: Path) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Name services that do not answer hold a thread each: with the few of the default the disk would wait for them.
    loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="blocking"))
    reload = Reload(daemon, config)
    first_s = 0.0

    def on_signal(number: signal.Signals) -> None:
        nonlocal first_s
        if stop.is_set():
            if loop.time() - first_s < ECHO_S:
                return
            _log.warning("second signal: exiting at once", signal=number.name)
            _exit_now(128 + number)
        _log.info("signal received", signal=number.name)
        first_s = loop.time()
        notify("STOPPING=1")
        _set_deadline(daemon)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, reload.request)
    reloading = asyncio.create_task(reload.run(), name="reload")
    try:
        held = await daemon.run(stop, on_serving=_say_ready)
    except ExceptionGroup:
        _log.critical("a part of the daemon has failed: this is a fault of Onset", exc_info=True)
        return 1
    finally:
        reloading.cancel()
    _log.info("stopped", picks_not_delivered=held)
    return 0


def _say_ready() -> None:
    notify("READY=1")
    _log.info("serving")


def _set_deadline(daemon: Daemon) -> None:
    """Whatever hangs (a name server, a broker) must not hold the process: the service manager's patience is limited."""
    timer = threading.Timer(DEADLINE_S, lambda: _exit_now(0 if daemon.finished else 1))
    timer.daemon = True
    timer.start()


def _exit_now(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
