"""What a daemon knows between two rounds of picking, as one unit that survives it: the only point to resume from.

In it are, for one and the same instant: how far each server's data were worked off, the samples that stations still
hold, their clocks and offsets, the model states, and the picks in the making. A daemon that takes it up and is given
the data that came later makes the picks that it would have made, with the same ids. What comes from the settings
(thresholds, waiting times) is not in it: those of the new process hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from picker.bundle import Bundle
from picker.decision import Decider
from streamer.instant import utc_text
from streamer.picking import Picking
from streamer.resume import ResumePoint
from streamer.snapshot_file import SnapshotFile, SnapshotRefused, previous, read
from streamer.snapshot_tree import packed, unpacked
from streamer.tracker import Tracker

_log = structlog.get_logger(__name__)


def capture(picking: Picking, created_ns: int) -> SnapshotFile:
    """The state of ``picking``; only between two of its rounds, when nothing is half done.

    While a swap is under way the successor is the model in it: the settings of a restart name that one.
    """
    stations, model = picking.stations, picking.model if picking.swap is None else picking.swap.successor
    keys, arrays = model.engine.saved()
    tree = {
        "sites": stations.sites,
        "engine": keys,
        "trackers": {key: _state_of(tracker) for key, tracker in model.trackers.items()},
        "watch": None if picking.watch is None else picking.watch.saved(),
    }
    header = {
        "bundle_digest": model.bundle.digest,
        "bundle_label": model.bundle.label,
        "created_ns": created_ns,
        "stations": sum(site.station is not None for site in stations.sites.values()),
        "resume": {server: point.saved() for server, point in picking.worked.items()},
    }
    return SnapshotFile(header=header, tree=packed(tree), arrays=arrays)


def resumed(path: Path, bundle: Bundle, make: Callable[[], Picking]) -> Picking:
    """What ``make`` gives, brought to the newest snapshot at ``path`` or to the one before it.

    One that cannot be used is said with its reason and set aside as ``<name>.refused``, so that it is not kept as the
    previous one of the next. Where there is none to use the picking is fresh. Never raises for what a file holds.
    """
    for candidate in (path, previous(path)):
        picking = make()
        try:
            snapshot = read(candidate)
            same = restore(picking, bundle, snapshot)
        except FileNotFoundError:
            continue
        except (SnapshotRefused, OSError) as error:
            _log.warning("snapshot refused", file=str(candidate), reason=str(error))
            _set_aside(candidate)
            continue
        _log.info(
            "resumed from snapshot",
            file=str(candidate),
            of=utc_text(snapshot.header["created_ns"]),
            stations=snapshot.header["stations"],
        )
        if not same:
            _log.warning(
                "snapshot is of another bundle: stations go on where they were, with a model that starts afresh",
                made_with=snapshot.header["bundle_label"],
                bundle=bundle.label,
            )
        return picking
    return make()


def restore(picking: Picking, bundle: Bundle, snapshot: SnapshotFile) -> bool:
    """Bring a ``picking`` that has done nothing yet to the state of the snapshot; whether it is of this ``bundle``.

    That of another one has positions and samples to go on from, so that no data are missed, but its model states and
    what they had in the making mean nothing here. Raises SnapshotRefused, and then ``picking`` must not be used.
    """
    header = snapshot.header
    try:
        same = bool(header["bundle_digest"] == bundle.digest)
        tree = unpacked(snapshot.tree)
        picking.stations.restore(tree["sites"])
        if same:
            for key, state in tree["trackers"].items():
                _put_back(picking.tracker(key), state)
            picking.engine.restore(tree["engine"], snapshot.arrays)
        if picking.watch is not None:
            picking.watch.restore(tree.get("watch"))
        points = {server: ResumePoint.restored(saved) for server, saved in header["resume"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotRefused(f"its content does not fit ({type(error).__name__}: {error})") from error
    picking.worked.update(points)
    return same


def _state_of(tracker: Tracker) -> dict[str, dict[str, Any]]:
    return {"tracker": _live(tracker), "decider": _live(tracker.decider)}


def _put_back(tracker: Tracker, state: dict[str, dict[str, Any]]) -> None:
    for part, saved in ((tracker, state["tracker"]), (tracker.decider, state["decider"])):
        if saved.keys() != _live(part).keys():
            raise ValueError(f"a {type(part).__name__} of another version of Onset")
        vars(part).update(saved)


def _live(part: Tracker | Decider) -> dict[str, Any]:
    """The attributes that change while it runs."""
    return {name: value for name, value in vars(part).items() if name not in part.FIXED}


def _set_aside(path: Path) -> None:
    try:
        path.replace(path.with_name(path.name + ".refused"))
    except OSError as error:
        _log.warning("refused snapshot cannot be set aside", file=str(path), reason=str(error))
