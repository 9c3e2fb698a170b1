"""A real plan is built by TensorRT for RTX, ahead of time and without a GPU; skipped where the library is absent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from export.cli import main
from export.plan import PlanRequest, build_plan
from picker.bundle import Bundle, load_bundle
from picker.cuda import present_gpu
from picker.errors import BundleError, ConfigError
from picker.plan import plan_key, read_plan
from picker.plan_stepper import deserialised
from picker.tensorrt import MODULES, Gpu, Library, library

ROOT = Path(__file__).parents[2]
ADA = PlanRequest(capability=(8, 9), batch=(1, 16, 64))


@pytest.fixture(scope="module")
def rtx() -> Library:
    for module in MODULES["tensorrt_rtx"]:
        try:
            __import__(module)
        except ImportError:
            continue
        return library("tensorrt_rtx")
    pytest.skip("tensorrt_rtx is not installed: pip install 'onset[rtx]'")


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Bundle:
    return load_bundle(shutil.copytree(bundle.folder, tmp_path / "bundle"))


def has_gpu() -> bool:
    try:
        present_gpu()
    except ConfigError:
        return False
    return True


def test_a_plan_of_the_shipped_model(rtx: Library, tmp_path: Path) -> None:
    """The graph that ships is built as it is; its phases are told, and its key is what it was built from."""
    shipped, seen = load_bundle(ROOT / "models" / "small"), []
    request = PlanRequest(capability=(8, 9), batch=(1, 256, 8192), cache=tmp_path)
    built = build_plan(shipped, rtx, request, lambda phase, done, steps: seen.append((phase, done, steps)))
    assert built.path.parent == tmp_path
    assert built.path.name == f"sm89-fp32-tensorrt_rtx-{rtx.version}.plan"
    assert built.plan == read_plan(built.path, plan_key(shipped, rtx, Gpu((8, 9))))
    assert built.plan.batch == (1, 256, 8192)
    assert len(built.plan.content) > shipped.model_path.stat().st_size / 2
    assert len({phase for phase, _, _ in seen}) > 5
    assert any(done == steps > 1 for _, done, steps in seen)


def test_a_plan_is_kept_until_something_differs(rtx: Library, copied: Bundle) -> None:
    """The same request takes what stands; another profile, a cut file, another graph and a file of elsewhere do not."""
    first = build_plan(copied, rtx, ADA)
    assert first.why == "no plan for this GPU, library and precision yet"
    assert (first.path.parent / ".gitignore").read_text() == "*\n"
    written = first.path.stat().st_mtime_ns
    assert build_plan(copied, rtx, ADA).why == ""
    assert first.path.stat().st_mtime_ns == written
    assert "another profile of rows (1 16 64)" in build_plan(copied, rtx, PlanRequest(capability=(8, 9))).why
    first.path.write_bytes(first.path.read_bytes()[:5000])
    assert "cut short" in build_plan(copied, rtx, ADA).why
    assert build_plan(copied, rtx, ADA).why == ""
    newer = Bundle(folder=copied.folder, spec=copied.spec, digest="f" * 64)
    assert "another graph" in build_plan(newer, rtx, ADA).why
    second = build_plan(copied, rtx, PlanRequest(capability=(8, 6), tf32=True))
    assert second.path.name.startswith("sm86-fp32-tf32-")
    assert second.path.exists()
    assert first.path.exists()


def test_an_interrupted_build_leaves_nothing(rtx: Library, copied: Bundle) -> None:
    """What is raised while progress is told stops the builder, and is raised again once it has stopped."""

    def interrupt(phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(copied, rtx, ADA, interrupt)
    assert [file.name for file in (copied.folder / "plans").iterdir()] == [".gitignore"]


def test_a_graph_that_it_cannot_read(rtx: Library, copied: Bundle) -> None:
    """The parser's words are in the error."""
    copied.model_path.write_bytes(copied.model_path.read_bytes()[:9000])
    with pytest.raises(BundleError, match=r"model\.onnx: tensorrt_rtx cannot read it \("):
        build_plan(copied, rtx, ADA)


def test_a_gpu_that_it_does_not_build_for(rtx: Library, copied: Bundle) -> None:
    """TensorRT for RTX knows no compute capability 9.0 (H200); the error lists those it knows."""
    with pytest.raises(ConfigError, match=r"8\.9, .*not for 9\.0"):
        build_plan(copied, rtx, PlanRequest(capability=(9, 0)))
    assert not (copied.folder / "plans").exists()


@pytest.mark.parametrize("batch", [(0, 1, 2), (4, 2, 8), (1, 8, 4), (1, 2, 100_000)])
def test_a_profile_that_does_not_rise(batch: tuple[int, int, int]) -> None:
    """Least, best, most: in that order, and within the graph's axis."""
    with pytest.raises(ConfigError, match="--batch"):
        PlanRequest(batch=batch)


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_up_to_the_driver_boundary(rtx: Library, copied: Bundle) -> None:
    """Without a driver the library itself refuses to open a plan, and the error carries its words."""
    built = build_plan(copied, rtx, ADA)
    with pytest.raises(BundleError, match=r"cannot open the plan here \(.*CUDA driver"):
        deserialised(rtx, built.plan.content, "here")
    with pytest.raises(ConfigError, match=r"no NVIDIA GPU can be used here .*--capability 8\.9"):
        build_plan(copied, rtx, PlanRequest())


@pytest.mark.usefixtures("rtx")
def test_the_plan_command(copied: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Built, then up to date; one line of error for what it cannot do."""
    command = ["plan", str(copied.folder), "--library", "tensorrt_rtx", "--capability"]
    assert main([*command, "8.9", "--batch", "1", "4", "8"]) == 0
    said = capsys.readouterr().out
    assert "Optimizing graph" in said
    assert "built (no plan for this GPU" in said
    assert "1 to 8 rows, best at 4" in said
    assert main([*command, "8.9", "--batch", "1", "4", "8"]) == 0
    assert "up to date" in capsys.readouterr().out
    assert main([*command, "ninety"]) == 2
    assert capsys.readouterr().err == "export: compute capability 'ninety' is not a number such as 8.9\n"
