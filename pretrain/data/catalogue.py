"""What is known of many coded traces, column by column: where each lies, how it is decoded, its arrivals, its words.

A row is a trace. Millions of them fit into memory, and picking rows needs no loop over them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain.data.trace import Label, Trace

WORDS = ("source", "kind", "status", "fold", "split", "group", "name")
PHASES = "PS"
_STATION = re.compile(r"(?P<data_set>.+)/[^/.]{1,8}\.[^/.]{1,8}")

Array = NDArray[Any]


def data_set_of(source: str) -> str:
    """The data set that a trace's ``source`` names: without its station, where it is told by one (``set/CM.CHI``)."""
    match = _STATION.fullmatch(source)
    return match["data_set"] if match else source


@dataclass(frozen=True, kw_only=True)
class Words:
    """A column of text: ``codes`` (T,) count into the distinct ``texts``."""

    codes: NDArray[np.int32]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, values: Iterable[str]) -> Words:
        """A column with these values."""
        known: dict[str, int] = {}
        codes = [known.setdefault(value, len(known)) for value in values]
        return cls(codes=np.array(codes, np.int32), texts=tuple(known))

    def __getitem__(self, row: int) -> str:
        return self.texts[int(self.codes[row])]

    def among(self, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Rows (T,) whose word is one of ``wanted``."""
        wanted = set(wanted)
        return np.array([text in wanted for text in self.texts], np.bool_)[self.codes]


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """T coded traces of three components.

    ``shard``, ``offset`` and ``samples`` (T,) say where a trace lies: component c at ``offset + c * samples`` of its
    shard. ``scale`` and ``bend`` (T, 3) decode it, ``alive`` (T, 3) says which components hold any data. Row t has
    ``label_count[t]`` labels from ``label_first[t]`` of ``label_sample`` and ``label_phase`` (0 P, 1 S) and
    ``label_weight``.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    samples: NDArray[np.int64]
    scale: NDArray[np.float32]
    bend: NDArray[np.float32]
    alive: NDArray[np.bool_]
    label_first: NDArray[np.int64]
    label_count: NDArray[np.int64]
    label_sample: NDArray[np.float64]
    label_phase: NDArray[np.int8]
    label_weight: NDArray[np.float32]
    words: dict[str, Words]

    def __len__(self) -> int:
        return len(self.samples)

    def labels(self, row: int) -> slice:
        """Where the labels of a row lie."""
        first = int(self.label_first[row])
        return slice(first, first + int(self.label_count[row]))

    def take(self, rows: Array) -> Catalogue:
        """The catalogue of some rows (numbers or flags); labels of the others stay where they are, out of sight."""
        one = {name: getattr(self, name)[rows] for name in _BY_ROW}
        words = {word: Words(codes=column.codes[rows], texts=column.texts) for word, column in self.words.items()}
        return replace(self, **one, words=words)

    def data_sets(self) -> Words:
        """The data set of each row."""
        column = self.words["source"]
        names = Words.of(data_set_of(text) for text in column.texts)
        return Words(codes=names.codes[column.codes], texts=names.texts)


_ARRAYS = tuple(field.name for field in fields(Catalogue) if field.name != "words")
_BY_ROW = tuple(name for name in _ARRAYS if name not in ("label_sample", "label_phase", "label_weight"))


class Entry(NamedTuple):
    """What a catalogue keeps of one coded trace; ``words`` are in the order of WORDS."""

    samples: int
    scale: Array
    bend: Array
    alive: Array
    labels: tuple[Label, ...]
    words: tuple[str, ...]


def entry_of(trace: Trace, scale: Array, bend: Array) -> Entry:
    """The entry of ``trace`` coded with ``scale`` and ``bend`` ((3,) each)."""
    words = tuple(getattr(trace, word) for word in WORDS)
    return Entry(trace.samples, scale, bend, np.asarray(trace.valid.any(axis=1)), trace.labels, words)


def catalogue_of(entries: Sequence[Entry]) -> Catalogue:
    """The catalogue of traces that lie one after another in shard 0."""
    samples = np.array([entry.samples for entry in entries], np.int64)
    counts = np.array([len(entry.labels) for entry in entries], np.int64)
    labels = [label for entry in entries for label in entry.labels]
    return Catalogue(
        shard=np.zeros(len(entries), np.int32),
        offset=3 * (np.cumsum(samples) - samples),
        samples=samples,
        scale=np.array([entry.scale for entry in entries], np.float32).reshape(-1, 3),
        bend=np.array([entry.bend for entry in entries], np.float32).reshape(-1, 3),
        alive=np.array([entry.alive for entry in entries], np.bool_).reshape(-1, 3),
        label_first=np.cumsum(counts) - counts,
        label_count=counts,
        label_sample=np.array([label.sample for label in labels], np.float64),
        label_phase=np.array([PHASES.index(label.phase) for label in labels], np.int8),
        label_weight=np.array([label.weight for label in labels], np.float32),
        words={word: Words.of(entry.words[place] for entry in entries) for place, word in enumerate(WORDS)},
    )


def join(parts: Sequence[Catalogue]) -> Catalogue:
    """The rows of all parts; part i is shard i."""
    labels = np.cumsum([0, *(len(part.label_sample) for part in parts)])
    moved = [
        replace(part, shard=np.full(len(part), number, np.int32), label_first=part.label_first + labels[number])
        for number, part in enumerate(parts)
    ]
    words = {}
    for word in WORDS:
        texts = Words.of(text for part in parts for text in part.words[word].texts)
        firsts = np.cumsum([0, *(len(part.words[word].texts) for part in parts)])
        codes = [texts.codes[first + part.words[word].codes] for first, part in zip(firsts, parts, strict=False)]
        words[word] = Words(codes=np.concatenate(codes), texts=texts.texts)
    return Catalogue(**{name: np.concatenate([getattr(part, name) for part in moved]) for name in _ARRAYS}, words=words)


def to_bytes(catalogue: Catalogue) -> bytes:
    """A compressed ``.npz`` of the catalogue."""
    texts = json.dumps({word: column.texts for word, column in catalogue.words.items()}).encode()
    arrays = {name: getattr(catalogue, name) for name in _ARRAYS}
    arrays |= {f"word_{word}": column.codes for word, column in catalogue.words.items()}
    file = io.BytesIO()
    np.savez_compressed(file, texts=np.frombuffer(texts, np.uint8), **arrays)
    return file.getvalue()


def from_bytes(data: bytes) -> Catalogue:
    """The catalogue of ``to_bytes``; raises KeyError, ValueError or zipfile.BadZipFile for anything else."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        texts = json.loads(file["texts"].tobytes())
        words = {word: Words(codes=file[f"word_{word}"], texts=tuple(texts[word])) for word in WORDS}
        return Catalogue(**{name: file[name] for name in _ARRAYS}, words=words)
