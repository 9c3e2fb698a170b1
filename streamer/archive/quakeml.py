"""Picks as QuakeML 1.2, through obspy.

QuakeML keeps picks inside an event, and Onset does not associate: all picks of a run are in one event without origin.
"""

from __future__ import annotations

import importlib
import io
import warnings
from types import ModuleType
from typing import Any, TextIO
from uuid import uuid5

from picker.errors import ConfigError
from streamer.identity import NAMESPACE
from streamer.message import PickMessage


class QuakeMLWriter:
    """Holds the picks and writes them as one document at the end, as the format asks."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._event = _obspy()
        self._picks: list[Any] = []

    @staticmethod
    def require() -> None:
        """Raise ConfigError where obspy is not installed."""
        _obspy()

    def write(self, message: PickMessage) -> None:
        """Take one pick: its resource identifier ends in the id of the pick, its probability is a comment."""
        event, obspy = self._event, importlib.import_module("obspy")
        codes, source = message.channel.properties, message.source
        prefix = f"smi:{_authority(source.agency_id)}/onset"
        flags = message.analytics_info.extensions.onset.quality
        prediction = message.analytics_info.predictions[0]
        comments = {"probability": f"probability={prediction.probability}", "flags": f"flags={' '.join(flags)}"}
        self._picks.append(
            event.Pick(
                resource_id=event.ResourceIdentifier(f"{prefix}/pick/{message.id}"),
                time=obspy.UTCDateTime(message.time),
                waveform_id=event.WaveformStreamID(
                    network_code=codes.network,
                    station_code=codes.station,
                    location_code=codes.location,
                    channel_code=codes.channel,
                ),
                method_id=event.ResourceIdentifier(f"{prefix}/model/{prediction.model_id}"),
                phase_hint=message.phase,
                evaluation_mode="automatic",
                comments=[
                    event.Comment(
                        text=text, resource_id=event.ResourceIdentifier(f"{prefix}/comment/{message.id}/{name}")
                    )
                    for name, text in comments.items()
                    if name != "flags" or flags
                ],
                creation_info=event.CreationInfo(
                    agency_id=source.agency_id, author=source.author, version=prediction.model_version
                ),
            )
        )

    def finish(self) -> None:
        """Write the document; the identifiers of event and catalogue come from those of the picks."""
        event = self._event
        name = uuid5(NAMESPACE, " ".join(str(one.resource_id) for one in self._picks))
        catalog = event.Catalog(
            events=[
                event.Event(resource_id=event.ResourceIdentifier(f"smi:local/onset/event/{name}"), picks=self._picks)
            ],
            resource_id=event.ResourceIdentifier(f"smi:local/onset/catalog/{name}"),
        )
        document = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # obspy finds its writers in a way that Python has deprecated
            catalog.write(document, format="QUAKEML")
        self._out.write(document.getvalue().decode())


def _authority(agency: str) -> str:
    """The agency as the authority of a QuakeML identifier, which has three characters or more."""
    text = "".join(character if character.isascii() and character.isalnum() else "-" for character in agency)
    return text if len(text) >= 3 else f"{text}.onset"


def _obspy() -> ModuleType:
    """``obspy.core.event``, found by name: only this output needs obspy, and nothing else may load it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("obspy.core.event")
    except ImportError as error:
        raise ConfigError("QuakeML needs obspy: pip install 'onset[obspy]', or take --format csv or jsonl") from error
