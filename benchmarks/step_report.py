"""What ``step_gpu.py`` found, as Markdown and as one ``key: value`` a line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from step_measure import Row

CHUNK_S = 0.64
SHARE = 0.95
"""Of the device's memory, what an engine may fill."""
BARS = {"small": 250_000, "base": 100_000}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the report says."""

    facts: list[str]
    rows: list[Row]
    networks: dict[str, tuple[int, dict[int, int]]]
    """By preset: bytes of state a station, and the fewest bytes of a step by batch."""
    bandwidth: float
    """Bytes a second of a copy on the device, read and written."""
    memory_bytes: int
    took_s: float

    def resident(self, row: Row) -> float:
        """Stations whose two sets of state fit beside what the step itself takes."""
        state, _ = self.networks[row.job.preset]
        own = row.device_mib * 2**20 - 2 * state * row.batch
        return max(0.0, SHARE * self.memory_bytes - own) / (2 * state)


def stations(row: Row) -> float:
    """Stations in real time: a step of the batch every 0.64 s."""
    return row.batch * CHUNK_S / row.step_s


def row_line(row: Row) -> str:
    """A row of the table of all."""
    head = f"| {row.job.preset} | {row.job.title} | {row.batch} |"
    if not row.reached:
        return f"{head} {row.failed} | | | | | |"
    if row.failed:
        return f"{head} failed: {row.failed.replace('|', '/')} | | | | | |"
    spread = f"{row.least_s * 1e3:.3f} to {row.greatest_s * 1e3:.3f}"
    return (
        f"{head} {row.step_s * 1e3:.3f} | {spread} | {row.wall_s * 1e3:.3f} | **{stations(row):,.0f}** | "
        f"{row.difference:.1e} | {row.device_mib:,.0f} |"
    )


def markdown(findings: Findings) -> str:
    """The results file."""
    parts = [
        "# Stations that one GPU serves in real time",
        "A step is 0.64 s of data of every station of the batch; stations = batch x 0.64 s / time of a step. Times are "
        "medians of steps one after the other, by device events (by the clock on a processor); samples are random and "
        "come from three sets in turn, states stay on the device and take turns between two sets. The samples are "
        "copied on the device within the step; copies from and to the host are not in it. The difference is to the "
        "network in float32 over the first two steps. torch carries the state over two steps only, which costs the "
        "same; `torch.compile` is compiled once for any batch.",
        "\n".join(
            [
                *findings.facts,
                f"- device copy: {findings.bandwidth / 1e12:.2f} TB/s, read and written",
                f"- the run took {findings.took_s:.0f} s",
            ]
        ),
        "## Every contender",
        "\n".join([*_header(), *(row_line(row) for row in findings.rows)]),
        "## Against the memory roof",
        _roof(findings),
        "## The longest kernels of the best of each engine",
        _kernels(findings),
        "## Figures",
        "\n".join(["```", *(f"{key}: {value}" for key, value in figures(findings).items()), "```"]),
    ]
    return "\n\n".join(parts) + "\n"


def _header() -> list[str]:
    columns = ["ms a step", "least to greatest", "ms by the clock", "stations", "difference", "device MiB"]
    return [f"| preset | contender | batch | {' | '.join(columns)} |", "|---|---|---:|" + "---:|" * len(columns)]


def _roof(findings: Findings) -> str:
    lines = [
        "The fewest bytes are the state read and written once, samples, probabilities and weights. What a graph moves "
        "are the inputs and outputs of its operators as exported (views and weights left out), before ONNX Runtime "
        "fuses any.",
        "",
        "| preset | contender | batch | fewest bytes, MB | floor, ms | times the floor | graph moves, MB a station | "
        "GB/s of that | of the copy |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in findings.rows:
        if row.failed or row.batch != max(row.job.batches):
            continue
        fewest = findings.networks[row.job.preset][1][row.batch]
        floor_s = fewest / findings.bandwidth
        line = f"| {row.job.preset} | {row.job.title} | {row.batch} | {fewest / 1e6:,.0f} | {floor_s * 1e3:.3f} | "
        line += f"{row.step_s / floor_s:.1f} |"
        if row.job.graph is None:
            lines.append(line + " | | |")
            continue
        moved = row.job.graph.moved_bytes * row.batch
        rate = moved / row.step_s
        lines.append(
            f"{line} {row.job.graph.moved_bytes / 1e6:.2f} | {rate / 1e9:,.0f} | {rate / findings.bandwidth:.0%} |"
        )
    return "\n".join(lines)


def best(findings: Findings, preset: str, batch: int, engine: str, *, compiled: bool = False) -> Row | None:
    """The fastest row of an engine: ``ort``, ``slots``, ``torch`` (without the kernel) or ``kernel``."""
    kind = {
        "ort": ("tf32", "exact"),
        "slots": ("all", "sparse"),
        "torch": ("autocast", "casts"),
        "kernel": ("kernel",),
    }[engine]
    rows = [
        row
        for row in findings.rows
        if not row.failed
        and (row.job.preset, row.batch) == (preset, batch)
        and row.job.engine == ("torch" if engine == "kernel" else engine)
        and row.job.kind in kind
        and row.job.compiled == compiled
    ]
    return min(rows, key=lambda row: row.step_s, default=None)


def _kernels(findings: Findings) -> str:
    parts = []
    for preset in findings.networks:
        batch = max((row.batch for row in findings.rows), default=0)
        for engine, compiled in (("ort", False), ("torch", False), ("torch", True), ("kernel", True)):
            row = best(findings, preset, batch, engine, compiled=compiled)
            if row is None or not row.kernels:
                continue
            lines = [f"`{preset}`, {row.job.title}, batch {batch}:", "", "| kernel | calls | ms | of the step |"]
            lines.append("|---|---:|---:|---:|")
            lines += [
                f"| {_short(name)} | {calls} | {ms:.3f} | {ms / 1e3 / row.step_s:.0%} |"
                for name, calls, ms in row.kernels
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) or "The profiler saw none."


def _short(name: str) -> str:
    """A kernel's name without what no one reads."""
    name = re.sub(r"^(void|std::\S+) ", "", name).replace("|", "/").replace("`", "'")
    return f"`{name[:90]}`"


def figures(findings: Findings) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    found: dict[str, str] = {}
    for preset in findings.networks:
        served = []
        for batch in sorted({row.batch for row in findings.rows}):
            chosen = {name: best(findings, preset, batch, name) for name in ("ort", "slots", "torch", "kernel")}
            chosen |= {
                f"compiled_{name}": best(findings, preset, batch, name, compiled=True) for name in ("torch", "kernel")
            }
            for name, row in chosen.items():
                if row is not None:
                    found[f"stations_{name}_{preset}_{batch}"] = f"{stations(row):.0f}"
            engine, graph = chosen["ort"], chosen["torch"]
            if engine is not None:
                found[f"engine_{preset}_{batch}"] = engine.job.title
                served.append(
                    min(stations(engine), findings.resident(engine)) if findings.memory_bytes else stations(engine)
                )
            daemon = chosen["slots"]
            if daemon is not None and graph is not None:
                found[f"daemon_over_torch_cuda_graph_{preset}_{batch}"] = f"{graph.step_s / daemon.step_s:.2f}"
            if engine is not None and graph is not None:
                found[f"engine_over_torch_cuda_graph_{preset}_{batch}"] = f"{graph.step_s / engine.step_s:.2f}"
        if served:
            found[f"stations_{preset}"] = f"{max(served):.0f}"
            if preset in BARS:
                found[f"bar_{preset}"] = f"{'met' if max(served) >= BARS[preset] else 'missed'} ({BARS[preset]:,})"
    found["contenders_failed"] = str(sum(1 for row in findings.rows if row.failed and row.reached))
    found["contenders_not_run"] = str(sum(1 for row in findings.rows if not row.reached))
    return found
