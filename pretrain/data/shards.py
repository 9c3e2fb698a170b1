"""A folder of shards: the form of a pack for data of any size, read at random without loading it.

    OUT/pack.json                what it holds: version, dtype, folds, and the names of all its parts
    OUT/shards/<part>.npy        the codes of the part's traces one after another, one dimension, memory-mapped
    OUT/shards/<part>.catalogue  what is known of these traces (``catalogue``)
    OUT/shards/<part>.json       what became of the part; written last, so a part without it is not done

Each file is written beside its name and renamed.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from picker.errors import ConfigError
from pretrain.data.catalogue import Entry, catalogue_of, entry_of, from_bytes, join, to_bytes
from pretrain.data.reading import Reading
from pretrain.data.sample_codes import encode_samples
from pretrain.data.store import Store
from pretrain.data.trace import RATE_HZ, Trace

VERSION = 1
PLAN, SHARDS = "pack.json", "shards"
_HEADER_BYTES = 128


class ShardWriter:
    """Writes one part, trace by trace; what was written counts only after ``close``."""

    def __init__(self, folder: Path, part: str, dtype: str) -> None:
        self._base, self._dtype = folder / SHARDS / part, np.dtype(dtype)
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self._entries: list[Entry] = []
        self._partial = _beside(self._base, ".npy.part")
        self._file = self._partial.open("wb")
        self._file.write(bytes(_HEADER_BYTES))
        self.samples = 0

    def add(self, trace: Trace) -> None:
        """Code and append a trace."""
        codes, scale, bend = encode_samples(trace.waveform, trace.valid, self._dtype.name)
        self._file.write(codes.tobytes())
        self._entries.append(entry_of(trace, scale, bend))
        self.samples += codes.size

    def close(self, reading: Reading) -> None:
        """Finish the part: its files appear, the one that says so last."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": self._dtype.str, "fortran_order": False, "shape": (self.samples,)}
        )
        # NumPy pads the header of one dimension to the 128 bytes that were left for it.
        assert header.tell() == _HEADER_BYTES
        self._file.seek(0)
        self._file.write(header.getvalue())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(_beside(self._base, ".npy"))
        write_whole(_beside(self._base, ".catalogue"), to_bytes(catalogue_of(self._entries)))
        write_whole(_beside(self._base, ".json"), json.dumps(reading.to_dict()).encode())

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_plan(folder: Path) -> dict[str, Any]:
    """What ``pack.json`` says; raises ConfigError where it is missing, damaged or of another version."""
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        version = plan["version"]
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: missing; write a folder of shards with `pretrain pack`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error}); remove the folder and pack again") from error
    if version != VERSION:
        raise ConfigError(f"{path}: version {version}, this Onset reads {VERSION}; pack again")
    return dict(plan)


def write_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Write ``pack.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"version": VERSION, "sampling_rate_hz": RATE_HZ, **plan}
    write_whole(folder / PLAN, (json.dumps(whole, indent=1) + "\n").encode())


def reading_of(folder: Path, part: str) -> Reading | None:
    """What became of a part, None where it is not done."""
    path = _beside(folder / SHARDS / part, ".json")
    return Reading.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def open_folder(folder: str | Path) -> Store:
    """The store of a folder of shards, its codes memory-mapped.

    Raises ConfigError where it is missing, damaged, or not all of it has been packed yet.
    """
    folder = Path(folder)
    parts = list(read_plan(folder)["parts"])
    missing = sum(not _beside(folder / SHARDS / part, ".json").is_file() for part in parts)
    if missing:
        raise ConfigError(
            f"{folder}: {missing} of {len(parts)} parts are not packed yet; run the same `pretrain pack` again"
        )
    catalogues, shards = [], []
    for part in parts:
        base = folder / SHARDS / part
        try:
            known = from_bytes(_beside(base, ".catalogue").read_bytes())
            if not len(known):
                continue  # an empty file cannot be mapped
            codes = np.load(_beside(base, ".npy"), mmap_mode="r")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{base}: damaged ({error}); remove {base.name}.json and pack again") from error
        if len(codes) != 3 * int(known.samples.sum()):
            raise ConfigError(f"{base}.npy: of the wrong length; remove {base.name}.json and pack again")
        catalogues.append(known)
        shards.append(codes)
    if not shards:
        raise ConfigError(f"{folder}: no trace in it")
    return Store(catalogue=join(catalogues), shards=tuple(shards), folder=folder)
