"""With what an archive is picked: model, thresholds and settings of stations, those of a daemon where one is named."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from picker.bundle import Bundle, load_bundle
from picker.errors import ConfigError
from picker.stepper import Stepper
from streamer.message import Source
from streamer.model_files import open_stepper
from streamer.pick_settings import PickSettings, Thresholds
from streamer.settings import Settings, StationSettings, load_settings
from streamer.station_rules import StationRules

DEFAULT_MODEL = Path("models/small")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a job needs beside the data."""

    bundle: Bundle
    stepper: Stepper
    rules: StationRules
    stations: StationSettings
    source: Source


def add_setup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``read_setup`` reads."""
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE",
        help="settings of a daemon, to pick as it does; the options below go before them")  # fmt: skip
    add("--model", type=Path, metavar="FOLDER", help=f"bundle (default: that of --config, else {DEFAULT_MODEL})")
    add("--threshold-p", type=float, metavar="X", help="probability at which P is picked (default: the bundle's)")
    add("--threshold-s", type=float, metavar="X", help="the same for S")
    add("--agency", help="agency in the source of every pick (default XX)")
    add("--author", help="author in the source of every pick (default onset)")
    add("--threads", type=int, metavar="N", help="threads of one call of the model (default 1)")


def read_setup(args: argparse.Namespace) -> Setup:
    """What the options say; raises ConfigError or BundleError."""
    settings = None if args.config is None else load_settings(args.config)
    threads = args.threads if args.threads is not None else settings.engine.threads if settings else 1
    if threads < 1:
        raise ConfigError(f"--threads {threads}: give 1 or more")
    bundle = load_bundle(_folder(args.model, settings))
    return Setup(
        bundle=bundle,
        stepper=open_stepper(bundle, threads),
        rules=_picks(args, settings.picks if settings else PickSettings()).station_rules(bundle.spec),
        stations=settings.stations if settings else StationSettings(),
        source=Source(
            agencyID=args.agency or (settings.agency if settings else "XX"),
            author=args.author or (settings.author if settings else "onset"),
        ),
    )


def _folder(named: Path | None, settings: Settings | None) -> Path:
    if named is None and settings is not None:
        return settings.bundle.path
    folder = named or DEFAULT_MODEL
    if not folder.is_dir():
        raise ConfigError(
            f"--model {folder}: no such folder; name a model bundle, such as models/small of Onset's source"
        )
    return folder


def _picks(args: argparse.Namespace, picks: PickSettings) -> PickSettings:
    """``picks`` with the thresholds that options give."""
    given = {"P": args.threshold_p, "S": args.threshold_s}
    given = {phase: value for phase, value in given.items() if value is not None}
    try:
        thresholds = Thresholds(**{**dict(picks.thresholds), **given})
    except ValidationError as error:
        said = ", ".join(f"--threshold-{phase.lower()} {value}" for phase, value in given.items())
        raise ConfigError(f"{said}: give a probability between 0 and 1") from error
    stations = (
        one.model_copy(update={"thresholds": one.thresholds.model_copy(update=given)}) for one in picks.stations
    )
    return picks.model_copy(update={"thresholds": thresholds, "stations": tuple(stations)})
