"""A training run in progress, and how it is put on disk and taken up again."""

from __future__ import annotations

import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picker.errors import ConfigError, OnsetError
from picker.model.checkpoint import load_picker
from picker.model.config import preset
from picker.model.picker import Picker, PickerState
from picker.model.state import detach, named
from picker.model.state import replace as replace_tensors
from pretrain.augment import augment, augment_sequence
from pretrain.average import Averaged
from pretrain.bank import Bank, Windows
from pretrain.kernels import compile_picker, kernels_fit, use_kernels
from pretrain.labels import pick_loss, second_look_loss
from pretrain.objectives.backbone import transfer
from pretrain.objectives.backbone_file import is_backbone, load_backbone
from pretrain.parameter_groups import freeze_backbone, parameter_groups
from pretrain.settings import AUGMENTATIONS, MAY_CHANGE, TrainSettings, rate_at

MOST_SKIPPED = 20
"""A run ends when the gradient was not finite for this many steps in a row."""


class Trainer:
    """A run in progress: model, optimizer, averaged weights, random stream and the best validation so far.

    ``kernels`` is the line that says which mLSTM runs. ``step`` counts batches, ``skipped`` those whose gradient was
    not finite, ``spent_s`` is the time of the run over all its parts, ``best`` the highest mean F1 of a validation,
    ``stale`` counts validations since.
    """

    def __init__(self, settings: TrainSettings, folder: Path, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder, self.device = settings, folder, device
        config = replace(
            preset(settings.preset),
            lookahead_samples=settings.lookahead_samples,
            second_look_samples=settings.second_look_samples,
            gate=settings.gate,
            pooling=settings.pooling,
            dropout=settings.dropout,
        )
        self.model = Picker(config).to(device)
        if settings.initial is not None:
            self._take_weights(settings.initial)
        wanted = settings.tfla_kernels and device.type == "cuda" and kernels_fit(config, settings.window_samples)
        self.kernels = use_kernels(self.model, config, device, wanted)
        if settings.compile:
            compile_picker(self.model)
        groups = parameter_groups(self.model, settings.weight_decay, settings.layer_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
        self.averaged = Averaged(self.model, settings.average)
        self.generator = torch.Generator(device=device).manual_seed(settings.seed + 1)
        self.step, self.best, self.spent_s = 0, -1.0, 0.0
        self.skipped, self.skipped_in_a_row, self.stale = 0, 0, 0
        self._augmentation = AUGMENTATIONS[settings.augmentation]
        self._queue: list[Windows] = []
        self._state: PickerState | None = None

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by minutes, whichever is further."""
        minutes = self.settings.minutes
        by_time = self.spent_s / 60 / minutes if minutes is not None else 0.0
        return max(self.step / self.settings.steps, by_time)

    @property
    def over(self) -> bool:
        """Whether the run is at its end, or has been without a better validation for too long."""
        return self.progress >= 1 or 0 < self.settings.patience <= self.stale

    def train_step(self, bank: Bank) -> tuple[Tensor, Tensor]:
        """One batch; returns loss and gradient norm. A step whose gradient is not finite changes no weight.

        Raises OnsetError after ``MOST_SKIPPED`` of those in a row.
        """
        settings = self.settings
        frozen = self.step < settings.freeze_steps
        if settings.freeze_steps:
            freeze_backbone(self.model, frozen)
        for group in self.optimizer.param_groups:
            scale = group["scale"] if not frozen or group["distance"] == 0 else 0.0
            group["lr"] = scale * rate_at(self.step, settings, self.progress)
        windows = self._next(bank)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            if self._state is None:
                logits, later, after = self.model(windows.waveform, windows.valid)
            else:
                logits, later, after = self.model(windows.waveform, windows.valid, None, self._state)
        self._state = detach(after) if self._queue else None
        loss = self._loss(logits, later, windows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.step += 1
        if torch.isfinite(norm):
            self.optimizer.step()
            self.averaged.update(self.model)
            self.skipped_in_a_row = 0
        else:
            self._skip()
        return loss.detach(), norm.detach()

    def _loss(self, logits: Tensor, later: Tensor | None, windows: Windows) -> Tensor:
        settings, lookahead = self.settings, self.model.config.lookahead_samples
        loss = pick_loss(logits, windows, lookahead, (settings.weight_p, settings.weight_s))
        if later is None:
            return loss
        lookahead += self.model.config.second_look_samples
        return loss + second_look_loss(later, windows, lookahead, settings.weight_s)

    @torch.no_grad()
    def _next(self, bank: Bank) -> Windows:
        """The next window of the sequences in work; of new ones, from a fresh state, where they are over."""
        settings = self.settings
        if not self._queue:
            drawn = (bank, settings.batch, settings.window_samples)
            if settings.windows == 1:
                self._queue = [augment(*drawn, self.generator, self._augmentation)]
            else:
                how = self._augmentation, settings.whole
                self._queue = augment_sequence(*drawn, settings.windows, self.generator, *how)
            self._state = None
        return self._queue.pop(0)

    def _take_weights(self, path: str) -> None:
        """Start from a picker, or a pretrained backbone, of the same network; raises ConfigError where it is another.

        Dropout may differ, and so may what a backbone does not have: the head, and a shorter look-ahead.
        """
        if is_backbone(path):
            transfer(load_backbone(path)[0], self.model)
            return
        initial, _ = load_picker(path)
        if replace(initial.config, dropout=self.model.config.dropout) != self.model.config:
            raise ConfigError(
                f"{path}: a picker of another shape ({initial.config.name}); give its --preset, --gate, --pooling and "
                "look-ahead, and its --second-look-samples"
            )
        self.model.load_state_dict(initial.state_dict())

    def _carried(self) -> list[Tensor]:
        return [] if self._state is None else [tensor for _, tensor in named(self._state)]

    def _skip(self) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MOST_SKIPPED:
            raise OnsetError(
                f"{self.folder}: the gradient was not finite for {MOST_SKIPPED} steps in a row, up to step "
                f"{self.step}; start again in another folder with a lower --rate, or look for absurd data in the pack"
            )

    def save(self) -> None:
        """Write ``last.pt`` whole or not at all."""
        on_gpu = self.device.type == "cuda"
        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": (self.averaged.weights, self.averaged.count),
            "generator": self.generator.get_state(),
            "random": torch.get_rng_state(),
            "device_random": torch.cuda.get_rng_state(self.device) if on_gpu else None,
            "counters": (self.step, self.best, self.spent_s),
            "skipped": (self.skipped, self.skipped_in_a_row),
            "stale": self.stale,
            "sequence": ([vars(windows) for windows in self._queue], self._carried()),
        }
        torch.save(state, self.folder / "last.pt.part")
        (self.folder / "last.pt.part").replace(self.folder / "last.pt")

    def resume(self) -> None:
        """Go on from ``last.pt``; raises ConfigError where it is damaged or belongs to other settings."""
        path = self.folder / "last.pt"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self._refuse_other(path, state["settings"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averaged.weights, self.averaged.count = state["averaged"]
            self.generator.set_state(state["generator"].cpu())
            torch.set_rng_state(state["random"].cpu())
            self.step, self.best, self.spent_s = state["counters"]
        except (
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            LookupError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ConfigError(f"{path}: damaged or not of a run ({error}); remove it to start afresh") from error
        self.skipped, self.skipped_in_a_row = state.get("skipped", (0, 0))
        self.stale = state.get("stale", 0)
        waiting, carried = state.get("sequence", ([], []))
        self._queue = [Windows(**tensors) for tensors in waiting]
        if carried:
            self._state = replace_tensors(self.model.initial_state(self.settings.batch), carried)
        if self.device.type == "cuda" and state.get("device_random") is not None:
            torch.cuda.set_rng_state(state["device_random"].cpu(), self.device)

    def _refuse_other(self, path: Path, theirs: dict[str, Any]) -> None:
        mine = asdict(self.settings)
        differing = sorted(key for key in mine if key not in MAY_CHANGE and mine[key] != theirs.get(key))
        if differing:
            was = ", ".join(f"{key} {theirs.get(key)!r} (now {mine[key]!r})" for key in differing)
            raise ConfigError(f"{path}: this run was started with other settings: {was}; use another folder")
