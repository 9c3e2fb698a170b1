"""What all ranks must know alike about a step, without any of them waiting for the device.

Whether to stop, whether to save, how much of the time is over: ranks that decided each for itself would end up at
different steps and wait for each other for ever. So each puts its wishes into one small vector, the vector is summed
over ranks, and all read the same sum: at once on a CPU, ``LAG`` steps later on a GPU, when it has long arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

LAG = 2
"""Steps between what a GPU writes and what is read of it: enough that the reader does not wait."""


class Agreement:
    """Small vectors to the device and back, in order."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_gpu = device, device.type == "cuda"
        self._waiting: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def send(self, values: Sequence[float]) -> Tensor:
        """A float64 vector on the device; nothing waits for it."""
        vector = torch.tensor(values, dtype=torch.float64)
        return vector.pin_memory().to(self.device, non_blocking=True) if self.on_gpu else vector

    def publish(self, values: Tensor) -> None:
        """Start the way back of a vector."""
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=self.on_gpu)
        host.copy_(values, non_blocking=True)
        event = None
        if self.on_gpu:
            event = torch.cuda.Event()
            event.record()
        self._waiting.append((host, event))

    def read(self, everything: bool = False) -> list[list[float]]:
        """Vectors that have come back since the last call: those published ``LAG`` steps ago, or ``everything``."""
        left = 0 if everything or not self.on_gpu else LAG
        found: list[list[float]] = []
        while len(self._waiting) > left:
            host, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            found.append(host.tolist())
        return found
