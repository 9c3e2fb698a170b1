"""Where a run runs: devices, ranks and precision through Lightning Fabric, and the objective made ready for them.

One process runs on one device. Several are started by ``torchrun`` or by ``srun``, both of which Fabric recognises.
"""

from __future__ import annotations

from functools import partial
from os import environ
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from picker.errors import ConfigError
from picker.model.block import MLSTMBlock
from pretrain.kernels import compile_objective, use_kernels
from pretrain.objectives.objective import Objective
from pretrain.selfsupervised.settings import RunSettings

try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
except ModuleNotFoundError:
    if not TYPE_CHECKING:
        # The whole of Lightning brings Fabric under another name.
        from lightning.fabric import Fabric
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
        from lightning.fabric.strategies.ddp import DDPStrategy

__all__ = ["Fabric", "open_fabric", "ready_objective", "restart_advice"]


def ranks_here() -> tuple[int, int]:
    """Ranks on this machine and machines, as torchrun or Slurm started them; one of each otherwise."""
    if TorchElasticEnvironment.detect():
        here = int(environ["LOCAL_WORLD_SIZE"])
        return here, int(environ["WORLD_SIZE"]) // here
    if SLURMEnvironment.detect():
        ranks, nodes = int(environ["SLURM_NTASKS"]), int(environ.get("SLURM_NNODES", "1"))
        return ranks // nodes, nodes
    return 1, 1


def restart_advice() -> str | None:
    """What to mend where torchrun restarts ranks in a way that can hang: it keeps one store over all attempts, in which
    a restarted rank may find the address of a dead one."""
    shared = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and int(environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        return "a restart by torchrun may hang: export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before it"
    return None


def open_fabric(settings: RunSettings, device: str) -> Fabric:
    """Fabric on ``device`` (``cpu``, ``cuda`` or, for a single process, ``cuda:1``), its ranks connected.

    Raises ConfigError where this machine has not as many devices as it has ranks.
    """
    here, nodes = ranks_here()
    kind, _, number = device.partition(":")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"{here} processes on a machine with {torch.cuda.device_count()} GPUs; start one process a GPU "
            f"(torchrun --nproc-per-node {torch.cuda.device_count()}), or use --device cpu"
        )
    if kind == "cuda" and settings.training.precision == "bf16-mixed":
        torch.set_float32_matmul_precision("high")
    several = here * nodes > 1
    # Buffers are of their rank: what codes it has used, its bank of negatives.
    ddp = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if several else "auto"
    fabric = Fabric(
        accelerator=kind,
        devices=[int(number)] if number and not several else here,
        num_nodes=nodes,
        strategy=ddp,
        precision=settings.training.precision,
    )
    fabric.launch()
    return fabric


def ready_objective(settings: RunSettings, device: torch.device) -> tuple[Objective, str]:
    """The objective with the first weights of its seed on its device, and the line that says which mLSTM runs."""
    torch.manual_seed(settings.training.seed)
    objective, model = settings.make().to(device), settings.model
    line = use_kernels(objective, objective.backbone.config, device, model.tfla_kernels, settings.data.window_samples)
    if model.checkpointing:
        compute_twice(objective)
    if model.compile and device.type == "cuda":
        compile_objective(objective)
    return objective, line


def compute_twice(model: nn.Module) -> None:
    """Keep no activations inside mLSTM blocks: they are computed again, dropout included, when gradients need them."""
    for block in model.modules():
        if isinstance(block, MLSTMBlock):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
