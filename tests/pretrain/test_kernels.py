"""Which form of the mLSTM runs, what the kernels refuse, and (on CUDA) that they are the plain cell."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from picker.errors import ConfigError
from picker.model.block import MLSTMBlock
from picker.model.cell import CELLS, initial_cell_state, untouched
from picker.model.config import PRESETS, Gate, LevelConfig, preset
from picker.model.picker import Picker
from picker.model.state import clear, detach
from pretrain import kernels, tfla
from pretrain.kernels import KERNEL_CELLS, check_sizes, compile_objective, takes_kernel, use_kernels
from pretrain.objectives.backbone import Backbone
from pretrain.objectives.objective import Batch, Progress, build
from pretrain.tfla import kernel_chunk, pieces

GATES: tuple[Gate, ...] = ("sigmoid", "exponential")
TINY = replace(preset("small"), levels=preset("small").levels[:2], chunk_samples=64)


def blocks(model: torch.nn.Module) -> list[MLSTMBlock]:
    return [module for module in model.modules() if isinstance(module, MLSTMBlock)]


def inputs(batch: int, heads: int, tokens: int, keys: int = 32, values: int = 64, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens + heads)
    q, k, v = (torch.randn(batch, heads, tokens, size, generator=generator) for size in (keys, keys, values))
    i, f = (torch.randn(batch, heads, tokens, generator=generator) + shift for shift in (-1.0, 3.0))
    return [t.to(device) for t in (q, k, v, i, f)]


@pytest.mark.parametrize(
    ("wanted", "line"),
    [(True, "mLSTM: plain PyTorch (no CUDA device)"), (False, "mLSTM: plain PyTorch (tfla_kernels = false)")],
)
def test_plain_form_runs_without_cuda(wanted: bool, line: str) -> None:
    """One line says which form runs and why, and every block has it, whatever it had before."""
    model = Picker(TINY)
    for block in blocks(model):
        block.cell, block.shared_zeros = KERNEL_CELLS["sigmoid"], True
    assert use_kernels(model, TINY, "cpu", wanted) == line
    assert all(block.cell is CELLS["sigmoid"] and not block.shared_zeros for block in blocks(model))


@pytest.mark.parametrize("gate", GATES)
def test_kernels_go_into_every_block_on_cuda(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the device is touched: the call may come before the model is there."""
    monkeypatch.setattr(kernels, "find_spec", lambda name: name)
    config = replace(TINY, gate=gate)
    model = Backbone(config)
    line = use_kernels(model, config, torch.device("cuda", 1), True, samples=4096)
    assert line == f"mLSTM: TFLA Triton kernels (mlstm_kernels {version('mlstm_kernels')}, {gate} gate)"
    assert len(blocks(model)) == 4
    assert all(block.cell is KERNEL_CELLS[gate] and block.shared_zeros for block in blocks(model))


def test_missing_kernels_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wanted on CUDA and not installed: an error before the run, and no fall back to something slower."""
    monkeypatch.setattr(kernels, "find_spec", lambda name: None if name == "triton" else name)
    with pytest.raises(ConfigError, match=r"triton cannot be imported: install 'onset\[train\]'"):
        use_kernels(Picker(TINY), TINY, "cuda", True)


@pytest.mark.parametrize(("key", "size"), [("value_size", 32), ("key_size", 16), ("value_size", 256)])
def test_kernels_refuse_head_sizes(key: str, size: int) -> None:
    """Sizes that give NaN, or that nothing is proved for, are an error that says what is allowed."""
    check_sizes(TINY)
    with pytest.raises(ConfigError, match=rf"{key} is {size}; the TFLA kernels work with .*64.* tfla_kernels = false"):
        check_sizes(replace(TINY, **{key: size}))  # type: ignore[arg-type]


def test_kernels_refuse_odd_windows() -> None:
    """40 tokens of the coarsest level are no whole number of chunks of 16."""
    check_sizes(preset("base"), samples=6144)
    with pytest.raises(ConfigError, match=r"windows of 2560 samples .* use a multiple of 1024 samples"):
        check_sizes(preset("base"), samples=2560)


@pytest.mark.parametrize(
    ("tokens", "chunk"), [(1536, 128), (1024, 128), (384, 128), (96, 32), (64, 64), (48, 16), (40, None), (1, None)]
)
def test_kernel_chunk_divides_the_window(tokens: int, chunk: int | None) -> None:
    """A power of two from 16 to 128; other lengths are the plain cell's."""
    assert kernel_chunk(tokens) == chunk


def test_batch_goes_in_pieces_that_a_grid_holds() -> None:
    """CUDA's third grid axis ends at 65,535, and the kernels' offsets at 2^31."""
    assert pieces(2047, 4, 1024, 64) == 1
    assert pieces(2048, 4, 1024, 64) == 2
    assert pieces(8, 8, 2**20, 128) == 8


@pytest.mark.parametrize("gate", GATES)
def test_untouched_memory_is_known_by_its_strides(gate: Gate) -> None:
    """The shared zero is fresh, and stays so where values stay; whatever was computed is not, zero or not."""
    like = torch.zeros(1)
    state = initial_cell_state(gate, 1, 1, 16, 16, like, shared=True)
    assert untouched(state)
    assert all(not part.any() for part in state)
    assert untouched(detach(state))
    assert not untouched(initial_cell_state(gate, 1, 1, 16, 16, like))
    assert not untouched(clear(state, torch.tensor([True])))
    assert not untouched(type(state)(*(part + 0 for part in state)))
    _, after = CELLS[gate](*inputs(1, 1, 16, 16, 16), state, 16)
    assert not untouched(after)


@pytest.mark.parametrize("gate", GATES)
def test_kernel_cell_off_cuda_is_the_plain_cell(gate: Gate) -> None:
    """Serving, a carried state and a processor: the same numbers to the last bit, and the state goes on."""
    data = inputs(2, 3, 64)
    state = initial_cell_state(gate, 2, 3, 32, 64, data[0], shared=True)
    expected, carried = CELLS[gate](*data, state, 16)
    found, after = KERNEL_CELLS[gate](*data, state, 16)
    assert torch.equal(found, expected)
    assert torch.equal(after.memory, carried.memory)
    assert torch.equal(KERNEL_CELLS[gate](*data, after, 16)[0], CELLS[gate](*data, carried, 16)[0])


def test_kernel_cell_refuses_autocast() -> None:
    """Autocast would cast the state and the gates without a word."""
    data = inputs(1, 1, 16)
    state = initial_cell_state("sigmoid", 1, 1, 32, 64, data[0], shared=True)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="under autocast"):
        KERNEL_CELLS["sigmoid"](*data, state, 16)


@pytest.mark.parametrize("gate", GATES)
def test_plain_cell_promotes_what_autocast_made(gate: Gate) -> None:
    """Under autocast the cell still computes in float32: as if its inputs had been promoted before."""
    torch.manual_seed(0)
    config = replace(TINY, gate=gate)
    block = MLSTMBlock(config, config.levels[0], 16)
    seen: list[tuple[torch.dtype, ...]] = []

    def cell(*arguments: Tensor) -> tuple[Tensor, object]:
        q, k, v, i, f, *rest = arguments
        seen.append((q.dtype, k.dtype, v.dtype, i.dtype, f.dtype))
        narrow, state = CELLS[gate](*arguments)
        wide, _ = CELLS[gate](q.float(), k.float(), v.float(), i, f, *rest)
        assert torch.equal(narrow, wide)
        assert narrow.dtype == state.memory.dtype == torch.float32
        return narrow, state

    block.cell = cell  # type: ignore[assignment]
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(2, 64, config.levels[0].width), block.initial_state(2, torch.zeros(1)))
    assert seen == [(torch.bfloat16,) * 3 + (torch.float32,) * 2]


def gradients_of_two_steps(compiled: bool) -> tuple[list[str], dict[str, Tensor]]:
    torch.manual_seed(0)
    tiny = replace(TINY, levels=(LevelConfig(width=32, heads=1, down_blocks=1, up_blocks=0),) * 2)
    objective = build("contrastive", tiny, {"dropout": 0.0})
    names = compile_objective(objective, backend="aot_eager") if compiled else []
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.randn(2, 3, 512, generator=generator), torch.ones(2, 3, 512, dtype=torch.bool))
    for step in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            outcome = objective(batch, Progress(step, step / 4), generator)
        (outcome.total / outcome.count).backward()
    return names, {
        name: parameter.grad for name, parameter in objective.named_parameters() if parameter.grad is not None
    }


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at inputs that are no leaves
def test_compiled_objective_is_the_objective() -> None:
    """Gradients to the last bit under autocast, too: what is float32 on the way there comes back in float32."""
    names, found = gradients_of_two_steps(True)
    _, expected = gradients_of_two_steps(False)
    assert names == ["backbone.normalizer", "backbone.encoder", "backbone.unet", "quantizer", "negatives"]
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


def level_shapes() -> list[tuple[int, int]]:
    """Heads and tokens of every level of every preset, for windows of 4096 and 6144 samples."""
    return sorted(
        {
            (level.heads, samples // (config.stride * config.pooling**depth))
            for config in PRESETS.values()
            for depth, level in enumerate(config.levels)
            for samples in (4096, 6144)
        }
    )


def through_head_norm(gate: Gate, data: list[Tensor], kernel: bool) -> list[Tensor]:
    """Normalised h and the gradient of a weighted sum of it by q, k, v, i, f."""
    leaves = [t.clone().requires_grad_() for t in data]
    batch, heads, tokens, values = data[2].shape
    state = initial_cell_state(gate, batch, heads, data[0].shape[-1], values, data[3], shared=True)
    assert not kernel or takes_kernel(leaves[0], leaves[3], state)
    h, last = (KERNEL_CELLS if kernel else CELLS)[gate](*leaves, state, min(tokens, 64) if tokens % 64 == 0 else 32)
    assert not last.memory.requires_grad or not kernel
    normed = F.layer_norm(h.to(data[3].dtype), (values,), eps=1e-5)
    weights = torch.randn(normed.shape, generator=torch.Generator().manual_seed(1)).to(normed)
    return [normed, *torch.autograd.grad((normed * weights).sum(), leaves)]


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


BOUNDS = {torch.float32: (2e-3, 4e-3, 4e-3, 4e-3, 1e-2, 3e-2), torch.bfloat16: (2e-2, 4e-2, 4e-2, 4e-2, 6e-2, 0.2)}
"""Of h and the gradients by q, k, v, i, f: float32 products run in tf32, and the forget gate's gradient is a sum of
differences over the whole window."""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("heads", "tokens"), level_shapes())
def test_kernels_are_the_plain_cell(heads: int, tokens: int, gate: Gate, dtype: torch.dtype) -> None:
    """Forward and every gradient, behind the head norm, against the plain cell in float32 on the same inputs."""
    data = inputs(2, heads, tokens, device="cuda")
    narrow = [*(t.to(dtype) for t in data[:3]), *data[3:]]
    exact = through_head_norm(gate, [t.float() for t in narrow], kernel=False)
    found = through_head_norm(gate, narrow, kernel=True)
    for got, want, bound in zip(found, exact, BOUNDS[dtype], strict=True):
        assert error(got, want) < bound


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("keys", "values"), [(k, v) for k in kernels.KEY_SIZES for v in kernels.VALUE_SIZES])
def test_kernels_work_at_every_allowed_size(keys: int, values: int, gate: Gate) -> None:
    """At each chunk that a window may have."""
    for tokens in (16, 32, 64, 256):
        data = inputs(2, 2, tokens, keys, values, "cuda")
        narrow = [*(t.bfloat16() for t in data[:3]), *data[3:]]
        exact = through_head_norm(gate, [t.float() for t in narrow], kernel=False)
        found = through_head_norm(gate, narrow, kernel=True)
        assert max(error(got, want) for got, want in zip(found[:4], exact[:4], strict=True)) < 4e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gate", GATES)
def test_pieces_of_a_batch_are_the_whole(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch too large for one grid gives what it would have given."""
    data = inputs(5, 3, 64, device="cuda")
    whole = through_head_norm(gate, data, kernel=True)
    monkeypatch.setattr(tfla, "GRID", 6)
    assert pieces(5, 3, 64, 64) == 3
    for got, want in zip(through_head_norm(gate, data, kernel=True), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
