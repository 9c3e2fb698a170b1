"""Bundle to TensorRT plan: a strongly typed network from ``model.onnx``, with one profile over the batch axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picker.bundle import Bundle
from picker.cuda import present_gpu
from picker.errors import BundleError, ConfigError
from picker.plan import FOLDER, Plan, PlanKey, plan_key, read_plan, write_plan
from picker.tensorrt import Gpu, Library

MOST_ROWS = 65536
"""The batch axis of the graph reaches so far."""

Watch = Callable[[str, int, int], None]
"""Called with a phase of the build, its steps done, and its steps."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What to build: for which GPU (None: that of this machine), which rows a call (least, best, most)."""

    capability: tuple[int, int] | None = None
    batch: tuple[int, int, int] = (1, 256, 8192)
    tf32: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        least, best, most = self.batch
        if not 1 <= least <= best <= most <= MOST_ROWS:
            raise ConfigError(
                f"--batch is {least} {best} {most}; it must rise from least to best to most, from 1 to {MOST_ROWS}"
            )


@dataclass(frozen=True, kw_only=True)
class Built:
    """A plan that is in place; ``why`` is empty where it was there before, else why it was built."""

    path: Path
    plan: Plan
    why: str


def build_plan(
    bundle: Bundle, library: Library, request: PlanRequest, watch: Watch = lambda phase, done, steps: None
) -> Built:
    """Build the plan of a bundle, or take the one that stands if it is of the same key and profile.

    Raises ConfigError where the GPU is not to be had or the library does not build for it, BundleError with the
    library's own words where it refuses the graph.
    """
    gpu = _gpu(library, request.capability)
    key = plan_key(bundle, library, gpu, request.tf32)
    folder = request.cache or bundle.folder / FOLDER
    path = folder / key.file_name
    why = _why(path, key, request.batch)
    if why:
        _ignored_by_git(folder)
        content = _build(bundle, library, gpu, request, folder / f"{path.stem}.timing", watch)
        write_plan(folder, Plan(key=key, batch=request.batch, content=content))
    return Built(path=path, plan=read_plan(path, key), why=why)


def _gpu(library: Library, capability: tuple[int, int] | None) -> Gpu:
    if library.ahead_of_time:
        gpu = Gpu(capability) if capability else _present_or_named()
        _compute_capability(library, gpu)
        return gpu
    gpu = present_gpu()
    if capability not in (None, gpu.capability):
        raise ConfigError(
            f"{library.name} builds for the GPU of this machine ({gpu.label}) and no other: leave --capability out"
        )
    return gpu


def _present_or_named() -> Gpu:
    try:
        return present_gpu()
    except ConfigError as error:
        raise ConfigError(f"{error}; or name the GPU to build for, for example --capability 8.9") from error


def _compute_capability(library: Library, gpu: Gpu) -> Any:
    known = {
        name: value for name, value in library.module.ComputeCapability.__members__.items() if name.startswith("SM")
    }
    major, minor = gpu.capability
    if f"SM{major}{minor}" not in known:
        able = sorted((int(name[2:-1]), int(name[-1])) for name in known)
        raise ConfigError(
            f"{library.name} {library.version} builds for compute capability "
            f"{', '.join(f'{high}.{low}' for high, low in able)}, not for {major}.{minor}: name one of these, "
            "or use the library tensorrt on a machine with that GPU"
        )
    return known[f"SM{major}{minor}"]


def _why(path: Path, key: PlanKey, batch: tuple[int, int, int]) -> str:
    """Why the plan must be built; empty where it need not be."""
    if not path.exists():
        return "no plan for this GPU, library and precision yet"
    try:
        found = read_plan(path, key)
    except BundleError as error:
        return str(error).removeprefix(f"{path}: ").partition("; build")[0]
    return "" if found.batch == batch else "another profile of rows ({} {} {})".format(*found.batch)


def _ignored_by_git(folder: Path) -> None:
    """A plan is of one machine: it is not to be committed with the bundle."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written ({error}); name another folder with --cache") from error


def _build(bundle: Bundle, library: Library, gpu: Gpu, request: PlanRequest, timing: Path, watch: Watch) -> bytes:
    module = library.module
    library.said.clear()
    builder = module.Builder(library.logger)
    network = _network(bundle, library, builder)
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        _, *rest = tuple(tensor.shape)
        profile.set_shape(tensor.name, *((rows, *rest) for rows in request.batch))
    config.add_optimization_profile(profile)
    if not request.tf32:
        config.clear_flag(module.BuilderFlag.TF32)
    if library.ahead_of_time:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_compute_capability(library, gpu), 0)
    else:  # TensorRT for RTX times nothing before it runs, and warns when given a cache
        known = timing.read_bytes() if timing.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), False)
    monitor = _monitor(module, watch)
    config.progress_monitor = monitor
    content = builder.build_serialized_network(network, config)
    if monitor.stopped is not None:
        raise monitor.stopped
    if content is None:
        raise BundleError(f"{bundle.model_path}: {library.name} cannot build it: {library.complaints()}")
    if not library.ahead_of_time:
        timing.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(content)


def _network(bundle: Bundle, library: Library, builder: Any) -> Any:
    """The parsed graph. Types are as they stand in it: from TensorRT 11 on there is no other kind of network."""
    module = library.module
    strongly = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly is None else 1 << int(strongly))
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(bundle.model_path)):
        faults = "; ".join(" ".join(str(parser.get_error(index)).split()) for index in range(parser.num_errors))
        library.said.clear()
        raise BundleError(f"{bundle.model_path}: {library.name} cannot read it ({faults}); export the bundle again")
    return network


def _monitor(module: Any, watch: Watch) -> Any:
    """What the builder tells of its progress; an exception in ``watch``, an interrupt too, stops the build."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._say(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._say(phase_name, step + 1)
            return self.stopped is None

        def phase_finish(self, phase_name: str) -> None:
            self._say(phase_name, self._steps.get(phase_name, 0))

        def _say(self, phase: str, done: int) -> None:
            try:
                watch(phase, done, self._steps.get(phase, 0))
            except BaseException as error:  # nothing may be raised through the builder's own frames
                self.stopped = error

    return Monitor()
