"""A plan on disk: read whole, for what it was built, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from picker.errors import BundleError, ConfigError
from picker.plan import Plan, PlanKey, find_plan, read_plan, write_plan
from picker.tensorrt import Gpu, capability_of

KEY = PlanKey(digest="0123456789abcdef", library="tensorrt", version="10.9.0", gpu="nvidia-l4-sm89", precision="fp32")
PLAN = Plan(key=KEY, batch=(1, 64, 1024), content=bytes(range(256)) * 40)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Key, profile and bytes; nothing else is left in the folder."""
    path = write_plan(tmp_path / "plans", PLAN)
    assert path.name == "nvidia-l4-sm89-fp32-tensorrt-10.9.0.plan"
    assert read_plan(path, KEY) == PLAN
    assert find_plan(tmp_path / "plans", KEY) == PLAN
    assert list((tmp_path / "plans").iterdir()) == [path]


@pytest.mark.parametrize("length", [0, 5, 13, 60, 400, 3000])
def test_a_truncated_plan_is_refused(tmp_path: Path, length: int) -> None:
    """Cut anywhere: in its first word, its header or its content."""
    path = write_plan(tmp_path, PLAN)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BundleError, match=r"cut short|not a plan") as error:
        read_plan(path, KEY)
    assert "export plan" in str(error.value)


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    """One byte changed, a file of something else, a broken header."""
    path = write_plan(tmp_path, PLAN)
    good = path.read_bytes()
    for content, says in (
        (good[:-1] + b"\x00", "damaged"),
        (b"ftrt" + good, "not a plan of Onset"),
        (good.replace(b'"digest"', b'"tsegid"', 1), "header cannot be read"),
        (good.replace(b'{"digest"', b'}"digest"', 1), "header cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=says):
            read_plan(path, KEY)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"digest": "f" * 16}, "another graph .bundle 01234567, this one is ffffffff"),
        ({"version": "11.0.0"}, "another version of the library .10.9.0, installed is 11.0.0"),
        ({"gpu": "nvidia-h200-sm90"}, "another GPU .nvidia-l4-sm89, here it is nvidia-h200-sm90"),
        ({"library": "tensorrt_rtx"}, "another library"),
        ({"precision": "fp16"}, "another precision .fp32, not fp16"),
    ],
)
def test_a_stale_plan_says_what_it_was_built_for(tmp_path: Path, change: dict[str, str], says: str) -> None:
    """Whether it is looked for by its name or by what is in the folder."""
    path, key = write_plan(tmp_path, PLAN), replace(KEY, **change)
    with pytest.raises(BundleError, match=says):
        read_plan(path, key)
    with pytest.raises(BundleError, match=says):
        find_plan(tmp_path, key)


def test_the_nearest_plan_is_the_one_that_is_named(tmp_path: Path) -> None:
    """Of several plans, the one that lacks least is spoken of; broken ones are passed over."""
    write_plan(tmp_path, replace(PLAN, key=replace(KEY, gpu="nvidia-a100-sm80", precision="fp16")))
    write_plan(tmp_path, PLAN)
    (tmp_path / "a.plan").write_bytes(b"")
    with pytest.raises(BundleError, match="built for another version") as error:
        find_plan(tmp_path, replace(KEY, version="10.10"))
    assert " and " not in str(error.value)


def test_no_plan_at_all(tmp_path: Path) -> None:
    """The error names the command that builds one."""
    with pytest.raises(BundleError, match=r"cannot be read.*export plan"):
        find_plan(tmp_path / "plans", KEY)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names --cache."""
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(BundleError, match="--cache"):
        write_plan(tmp_path / "plans", PLAN)


def test_gpu_labels_and_capabilities() -> None:
    """Labels are file names; a capability is a number of two parts."""
    assert Gpu((9, 0), "NVIDIA H200").label == "nvidia-h200-sm90"
    assert Gpu((12, 0)).label == "sm120"
    assert capability_of("12.0") == (12, 0)
    for text in ("", "89", "8.9.1", "x.y"):
        with pytest.raises(ConfigError, match=r"not a number such as 8\.9"):
            capability_of(text)
