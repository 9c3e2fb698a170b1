"""A run on disk: the folder ``last``, and while that is replaced ``previous``.

``index.json`` says what the run is, where it stands, and the digest of each file; ``shard-NNN.safetensors`` hold
weights and the moments of AdamW; ``rank-N.safetensors`` what belongs to one rank: buffers (codes in use, bank of
negatives) and statistics since the last log. Random states are not there: every draw follows from the step.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, distributed

from picker.errors import ConfigError
from picker.version import installed_version
from pretrain.objectives.objective import Objective
from pretrain.selfsupervised.settings import RunSettings, differing, plain
from pretrain.selfsupervised.trainer import Counters, Trainer

LAST, PREVIOUS, INDEX = "last", "previous", "index.json"
VERSION = 1
MOMENTS = ("exp_avg", "exp_avg_sq")
NotWhole = (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError)
"""What reading a damaged checkpoint raises."""


@dataclass(frozen=True)
class Form:
    """How checkpoints are written: in files of at most ``shard_bytes`` (or of one tensor), and in 16 bits or not."""

    shard_bytes: int = 2**30
    sixteen_bit: bool = False


def save_checkpoint(folder: Path, trainer: Trainer, form: Form | None = None) -> None:
    """Write ``last`` whole or not at all; every rank must call it, rank 0 writes."""
    form = form or Form()
    trainer.take_news(everything=True)
    mine = save(_own(trainer))
    ranks: list[Any] = [mine]
    if trainer.fabric.world_size > 1:
        ranks = [None] * trainer.fabric.world_size
        distributed.all_gather_object(ranks, mine)
    if trainer.fabric.global_rank == 0:
        index = {
            "version": VERSION,
            "settings": plain(trainer.settings),
            "counters": asdict(trainer.spent()),
            "data": {"micro_batch": trainer.counters.step * trainer.settings.training.accumulate, "ranks": len(ranks)},
            "statistics": trainer.sums.shapes if trainer.sums.vector is not None else {},
            "sixteen_bit": form.sixteen_bit,
            "versions": {"onset": installed_version(), "torch": torch.__version__},
        }
        files = dict(_shards(_tensors(trainer, form.sixteen_bit), form.shard_bytes))
        files |= {f"rank-{rank}.safetensors": data for rank, data in enumerate(ranks)}
        _write(folder, index, files)
    trainer.fabric.barrier()


def _tensors(trainer: Trainer, sixteen_bit: bool) -> Iterator[tuple[str, Tensor]]:
    """Weights and moments by name, on the CPU."""
    named = dict(trainer.objective.named_parameters())
    for name, weight in named.items():
        yield f"weight/{name}", _kept(weight, torch.float16 if sixteen_bit else weight.dtype)
    for name, weight in named.items():
        for key, value in trainer.optimizer.adam.state.get(weight, {}).items():
            # The squares of small gradients are zero in float16.
            form = torch.bfloat16 if sixteen_bit and key in MOMENTS else value.dtype
            yield f"{key}/{name}", _kept(value, form)


def _own(trainer: Trainer) -> dict[str, Tensor]:
    """What belongs to this rank."""
    own = {f"buffer/{name}": _kept(value, value.dtype) for name, value in trainer.objective.named_buffers()}
    if trainer.sums.vector is not None:
        own["statistics"] = _kept(trainer.sums.vector, torch.float64)
    return own | {f"extra/{name}": _kept(torch.as_tensor(value), None) for name, value in trainer.extra.items()}


def _kept(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    return value.detach().to("cpu", dtype).contiguous().clone()


def _shards(tensors: Iterator[tuple[str, Tensor]], most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Files of at most ``most_bytes`` of tensors, a tensor that is larger alone in its own."""
    part: dict[str, Tensor] = {}
    number = 0
    for name, value in tensors:
        if part and sum(t.nbytes for t in part.values()) + value.nbytes > most_bytes:
            yield f"shard-{number:03d}.safetensors", save(part)
            part, number = {}, number + 1
        part[name] = value
    yield f"shard-{number:03d}.safetensors", save(part)


def _write(folder: Path, index: dict[str, Any], files: Mapping[str, bytes]) -> None:
    """``last`` as a whole: written beside, flushed to disk, and renamed; what was there becomes ``previous``."""
    part, last, previous = (folder / name for name in (f"{LAST}.part", LAST, PREVIOUS))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, data in files.items():
        _flushed(part / name, data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    _flushed(part / INDEX, json.dumps(index | {"files": digests}, indent=1).encode())
    _flush_folder(part)
    if last.is_dir():
        shutil.rmtree(previous, ignore_errors=True)
        last.rename(previous)
    part.rename(last)
    _flush_folder(folder)


def _flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """So that a rename outlives a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read whole: its index, all tensors, and those of each rank."""

    path: Path
    index: dict[str, Any]
    tensors: dict[str, Tensor]
    ranks: list[dict[str, Tensor]]


def read_checkpoint(folder: Path) -> Saved | None:
    """The last whole checkpoint of a run, or none if it has none.

    Warns where the last one is damaged and the one before it is taken. Raises ConfigError where none can be read.
    """
    wrong = []
    for name in (LAST, f"{LAST}.part", PREVIOUS):
        if not (folder / name).is_dir():
            continue
        try:
            saved = _read(folder / name)
        except NotWhole as error:
            # One that was being written when the run was killed is no loss.
            if name != f"{LAST}.part":
                wrong.append(f"{folder / name} is damaged ({error})")
            continue
        if wrong:
            warnings.warn(f"{wrong[0]}; going on from {folder / name}", stacklevel=2)
        return saved
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)}; remove the folder to start afresh")
    return None


def _read(path: Path) -> Saved:
    index = json.loads((path / INDEX).read_text(encoding="utf-8"))
    if index["version"] != VERSION:
        raise ValueError(f"version {index['version']}, this Onset reads {VERSION}")
    tensors: dict[str, Tensor] = {}
    ranks: list[dict[str, Tensor]] = [{} for _ in range(index["data"]["ranks"])]
    for name, digest in index["files"].items():
        data = (path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{name} has changed since it was written")
        if name.startswith("rank-"):
            ranks[int(name.removeprefix("rank-").partition(".")[0])] = load(data)
        else:
            tensors |= load(data)
    return Saved(path, index, tensors, ranks)


def resume(saved: Saved, trainer: Trainer) -> list[str]:
    """Put a trainer where a checkpoint was; returns what there is to say about it, line by line.

    Raises ConfigError where the checkpoint is of other settings: it names the keys.
    """
    if differs := differing(plain(trainer.settings), saved.index["settings"]):
        raise ConfigError(
            f"{saved.path}: this run was started with other settings: {', '.join(differs)}; use another folder"
        )
    try:
        _put(saved, trainer)
    except NotWhole as error:
        raise ConfigError(
            f"{saved.path}: does not fit its own settings ({error}); remove it to start afresh"
        ) from error
    notes = [f"going on from step {trainer.counters.step}"]
    if saved.index["sixteen_bit"]:
        notes.append("its weights and moments are of 16 bits: the run goes on nearly, not exactly, as it would have")
    if len(saved.ranks) != trainer.fabric.world_size:
        notes.append(
            f"it was written by {len(saved.ranks)} ranks, and these are {trainer.fabric.world_size}: windows, masks "
            "and negatives are other ones from here on, and what each rank keeps for itself begins anew"
        )
    return notes


@torch.no_grad()
def _put(saved: Saved, trainer: Trainer) -> None:
    named = dict(trainer.objective.named_parameters())
    state = trainer.optimizer.adam.state
    for name, weight in named.items():
        weight.copy_(saved.tensors[f"weight/{name}"])
        for key in ("step", *MOMENTS):
            if f"{key}/{name}" in saved.tensors:
                value = saved.tensors[f"{key}/{name}"]
                dtype = torch.float32 if key == "step" else weight.dtype
                state[weight][key] = value.to(weight.device, dtype)
    trainer.counters = Counters(**saved.index["counters"])
    own = _own_of(saved.ranks, trainer.fabric.global_rank, trainer.fabric.world_size)
    for name, buffer in trainer.objective.named_buffers():
        if f"buffer/{name}" in own:
            buffer.copy_(own[f"buffer/{name}"])
    trainer.sums.shapes = {name: tuple(shape) for name, shape in saved.index["statistics"].items()}
    vector = own.get("statistics")
    trainer.sums.vector = None if vector is None else vector.to(trainer.fabric.device)
    extra = {name.removeprefix("extra/"): value for name, value in own.items() if name.startswith("extra/")}
    trainer.extra = {name: value.to(trainer.fabric.device) for name, value in extra.items()}
    trainer.begin_part()


def _own_of(ranks: Sequence[dict[str, Tensor]], rank: int, world: int) -> dict[str, Tensor]:
    """What a rank left behind; among another number of ranks, the buffers of each module that all of them had alike.

    Buffers of one module belong together: a bank that is full by its counter must not be without its vectors.
    """
    if len(ranks) == world:
        return ranks[rank]
    first, *others = ranks
    if not others:
        return {}
    buffers = {name: value for name, value in first.items() if name.startswith("buffer/")}
    differing = {
        name.rpartition(".")[0]
        for name, value in buffers.items()
        if not all(torch.equal(value, other[name]) for other in others)
    }
    return {name: value for name, value in buffers.items() if name.rpartition(".")[0] not in differing}


def load_objective(folder: str | Path) -> tuple[Objective, RunSettings]:
    """The whole objective of a run as its last checkpoint has it, in evaluation mode on the CPU, and its settings.

    Raises ConfigError where the folder holds no checkpoint, or none that can be read.
    """
    saved = read_checkpoint(Path(folder))
    if saved is None:
        raise ConfigError(f"{folder}: no checkpoint in it; name the folder of a run of `pretrain run`")
    try:
        settings = RunSettings.model_validate(saved.index["settings"])
        objective = settings.make()
        state = {name.partition("/")[2]: value for name, value in saved.tensors.items() if name.startswith("weight/")}
        own = saved.ranks[0].items()
        state |= {name.partition("/")[2]: value for name, value in own if name.startswith("buffer/")}
        objective.load_state_dict({name: state[name] for name in objective.state_dict()})
    except (*NotWhole, ConfigError) as error:
        raise ConfigError(f"{saved.path}: does not fit this version of Onset ({error})") from error
    return objective.eval(), settings
