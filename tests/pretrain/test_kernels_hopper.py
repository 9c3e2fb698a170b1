"""What Triton makes of the kernels for a Hopper GPU: compiled, not run, so no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain import tfla

ROOT = Path(__file__).parents[2]
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
SHAPES = ((1024, 32, 64), (16, 128, 128), (128, 64, 64))
"""Tokens, keys and values: a chunk of 128 as in the presets, the shortest with the largest heads, and square heads."""


@pytest.mark.parametrize("tokens", [1536, 1024, 256, 96, 64, 16])
def test_blocks_and_warps_are_too_few_for_wgmma(tokens: int) -> None:
    """It multiplies 64 rows by 4 warps: an even share of neither may come up, in blocks or in memories of 64 keys."""
    sizes = tfla._sizes(tokens)
    assert sizes["siz_b_L_parallel"] < 64 or sizes["num_warps_intra"] % 4
    assert sizes["num_warps_inter"] % 4
    assert sizes["siz_b_L_parallel"] % sizes["siz_b_L_loop"] == 0
    assert sizes["siz_b_L_loop"] >= 16


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("gate", ["sigmoid", "exponential"])
def test_hopper_kernels_hold_no_wgmma(gate: str, tmp_path: Path) -> None:
    """Its operands from registers are what the assembler breaks; each product must be an ``mma.sync``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, gate], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(SHAPES) * len(POINTERS) * 7
    assert [name for name, wgmma, _ in found if wgmma] == []
    assert [name for name, _, mma in found if not mma] == []


def record_kernels(found: list[tuple[str, int, int]]) -> None:
    """Put a compiler for Hopper in the place of every launch: name, ``wgmma`` and ``mma.sync`` of each kernel."""
    import triton  # type: ignore[import-not-found,unused-ignore]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found,unused-ignore]
    from triton.compiler import ASTSource  # type: ignore[import-not-found,unused-ignore]
    from triton.runtime.jit import JITFunction  # type: ignore[import-not-found,unused-ignore]

    def launcher(kernel: Any, _: object) -> Callable[..., None]:
        def compile_it(*, num_warps: int, num_stages: int, **given: Any) -> None:
            values = {parameter.name: given.get(parameter.name, parameter.default) for parameter in kernel.params}
            tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
            signature = {name: POINTERS[tensors[name].dtype] if name in tensors else "constexpr" for name in values}
            constants = {name: value for name, value in values.items() if name not in tensors}
            aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(values) if name in tensors}
            source = ASTSource(kernel, signature, constants, aligned)
            options = {"num_warps": num_warps, "num_stages": num_stages}
            text = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
            found.append((kernel.fn.__name__, text.count("wgmma"), text.count("mma.sync")))

        return compile_it

    JITFunction.__getitem__ = launcher


def compile_all(gate: str) -> list[tuple[str, int, int]]:
    """Every kernel that an operator and its backward launch, at each of ``SHAPES``."""
    found: list[tuple[str, int, int]] = []
    record_kernels(found)
    for tokens, keys, values in SHAPES:
        for dtype in POINTERS:
            q, k, v, h = (torch.zeros(1, 2, tokens, size, dtype=dtype) for size in (keys, keys, values, values))
            i, f = torch.zeros(2, 1, 2, tokens)
            if gate == "sigmoid":
                tfla._sigmoid_rows(q, k, v, i, f)
                tfla._sigmoid_backward_rows(q, k, v, i, f, h)
            else:
                tfla._exponential_rows(q, k, v, i, f)
                tfla._exponential_backward_rows(q, k, v, i, f, i, i, h)
    return found


if __name__ == "__main__":
    json.dump(compile_all(sys.argv[1]), sys.stdout)
