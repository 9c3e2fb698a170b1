"""The training pack: many traces in one file of a few tens of megabytes, quick to carry and to load.

A pack is an uncompressed ``.npz`` of two byte arrays: ``index`` (JSON: what each trace is, where its bytes lie and how
they are coded) and ``waveforms`` (the coded waveforms one after another). The same traces give the same bytes.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picker.errors import ConfigError
from pretrain.data.codec import Coding, decode, encode
from pretrain.data.resample import runs
from pretrain.data.trace import RATE_HZ, Label, Trace

PACK_VERSION = 1
_PLACE = len(', "bytes": [1000000000, 1000000000]') + 2
_WORDS = ("name", "kind", "fold", "status", "split", "source", "group", "channel")


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One trace as it lies in a pack: its entry in the index, and its bytes."""

    entry: dict[str, Any]
    data: bytes

    @property
    def size(self) -> int:
        """Bytes in the pack at most, its place in the index included."""
        return len(self.data) + len(json.dumps(self.entry)) + _PLACE


def pack_trace(trace: Trace) -> Packed:
    """Code one trace."""
    data, coding = encode(trace.waveform, trace.valid)
    entry: dict[str, Any] = {word: getattr(trace, word) for word in _WORDS}
    for name, labels in (("labels", trace.labels), ("doubtful", trace.doubtful)):
        entry[name] = [[label.phase, round(label.sample, 3), round(label.weight, 4)] for label in labels]
    entry |= {"valid": [runs(flags) for flags in trace.valid], "coding": asdict(coding)}
    return Packed(entry=entry, data=data)


def unpack_trace(packed: Packed) -> Trace:
    """The trace again; its waveform differs by the quantisation only."""
    entry = packed.entry
    waveform = decode(packed.data, Coding(**entry["coding"]))
    valid = np.zeros(waveform.shape, dtype=np.bool_)
    for flags, stretches in zip(valid, entry["valid"], strict=True):
        for start, stop in stretches:
            flags[start:stop] = True
    labels, doubtful = (
        tuple(Label(phase=phase, sample=sample, weight=weight) for phase, sample, weight in entry[name])
        for name in ("labels", "doubtful")
    )
    words = {word: entry[word] for word in _WORDS if word != "channel" or word in entry}  # older packs have none
    return Trace(waveform=waveform, valid=valid, labels=labels, doubtful=doubtful, **words)


def save_pack(path: str | Path, packed: Iterable[Packed]) -> int:
    """Write a pack whole or not at all; returns its size in bytes."""
    path, packed = Path(path), list(packed)
    entries, position = [], 0
    for item in packed:
        entries.append({**item.entry, "bytes": [position, position + len(item.data)]})
        position += len(item.data)
    index = json.dumps({"version": PACK_VERSION, "sampling_rate_hz": RATE_HZ, "traces": entries}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(
            file,
            index=np.frombuffer(index, dtype=np.uint8),
            waveforms=np.frombuffer(b"".join(item.data for item in packed), dtype=np.uint8),
        )
    partial.replace(path)
    return path.stat().st_size


def load_pack(path: str | Path, folds: Sequence[str] | None = None, kinds: Sequence[str] | None = None) -> list[Trace]:
    """Every trace of a pack, or those of some ``folds`` (train, tune) and ``kinds`` (labelled, pseudo, noise).

    Raises ConfigError where the file is missing, damaged or of another version.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            index = json.loads(file["index"].tobytes())
            data: NDArray[np.uint8] = file["waveforms"]
        if index["version"] != PACK_VERSION:
            raise ConfigError(f"{path}: pack version {index['version']}, this Onset reads {PACK_VERSION}; pack again")
        return [
            unpack_trace(Packed(entry=entry, data=data[slice(*entry["bytes"])].tobytes()))
            for entry in index["traces"]
            if (folds is None or entry["fold"] in folds) and (kinds is None or entry["kind"] in kinds)
        ]
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such pack; write one with `pretrain pack`") from error
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path}: damaged or not a pack ({error}); write it again with `pretrain pack`") from error
