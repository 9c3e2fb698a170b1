"""What ``stream_cpu.py`` found, as Markdown and as one ``key: value`` a line."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from machine import Machine
from timing import CHUNK_S, Clock, Rounds, Spread, best_batch, stations


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the report says. Results are keyed by contender, ours first, PhaseNet (if measured) last."""

    machine: Machine
    name: str
    """Of the bundle."""
    bundle: str
    results: dict[str, Rounds]
    phasenet: str | None
    """Name of PhaseNet's results; None where it was not measured."""
    phasenet_origin: str
    normalization_s: dict[int, list[float]]
    loads: tuple[float | None, float | None]
    """Load average at the beginning and at the end."""
    command: str

    @property
    def ours(self) -> str:
        """Name of the step graph's results."""
        return next(iter(self.results))

    def ratio(self, clock: Clock = "wall") -> Spread:
        """Our stations over PhaseNet's, round by round, each at its best batch."""
        assert self.phasenet is not None
        ours, theirs = self.results[self.ours], self.results[self.phasenet]
        pairs = zip(ours[best_batch(ours, clock)], theirs[best_batch(theirs, clock)], strict=True)
        return Spread.of([our.stations(clock) / their.stations(clock) for our, their in pairs])


def bars(findings: Findings) -> dict[str, str]:
    """The figures that are quoted, each under its key."""
    ours, engine, *_ = findings.results.values()
    lines = {
        f"stations_{findings.name}_one_core": f"{stations(ours).median:.0f}",
        f"stations_{findings.name}_engine_one_core": f"{stations(engine).median:.0f}",
    }
    if findings.phasenet is not None:
        theirs = findings.results[findings.phasenet]
        lines |= {
            "stations_phasenet_one_core": f"{stations(theirs).median:.0f}",
            "ratio": f"{findings.ratio().median:.2f}",
            "ratio_by_processor_time": f"{findings.ratio('cpu').median:.2f}",
            "phasenet_stride_for_equal_stations_s": f"{CHUNK_S * findings.ratio().median:.2f}",
        }
    return lines


def markdown(findings: Findings) -> str:
    """The results file."""
    before, after = ("unknown" if load is None else f"{load:.2f}" for load in findings.loads)
    parts = [
        "# Stations that one core serves in real time",
        "One station is 3 components at 100 Hz. Every 0.64 s the step graph takes the new chunk of each station; "
        "PhaseNet is re-run over the last 3001 samples of each. ONNX Runtime, one thread, one core, the same session "
        "options; the contenders take turns within each round.",
        "\n".join(
            [
                *findings.machine.lines(),
                f"- load average: {before} at the beginning, {after} at the end (this benchmark itself is 1)",
                f"- bundle: {findings.bundle}",
                f"- PhaseNet: {findings.phasenet_origin}",
                f"- command: `{findings.command}`",
            ]
        ),
        "## At the best batch",
        _summary(findings),
        _remarks(findings),
        "## Every batch",
        "Median milliseconds a call, and stations.",
        _batches(findings),
        "## Figures",
        "\n".join(["```", *(f"{key}: {value}" for key, value in bars(findings).items()), "```"]),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(findings: Findings) -> str:
    lines = [
        "| | batch | ms a call | stations, median of rounds | least to greatest | share of the core had "
        "| stations by processor time |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rounds in findings.results.items():
        batch = best_batch(rounds)
        timings, spread = rounds[batch], stations(rounds)
        wall_s, cpu_s = median(t.wall_s for t in timings), median(t.cpu_s for t in timings)
        lines.append(
            f"| {name} | {batch} | {wall_s * 1e3:.2f} | **{spread.median:.0f}** | "
            f"{spread.least:.0f} to {spread.greatest:.0f} | {cpu_s / wall_s:.0%} "
            f"| {stations(rounds, 'cpu').median:.0f} at {best_batch(rounds, 'cpu')} |"
        )
    return "\n".join(lines)


def _remarks(findings: Findings) -> str:
    if findings.phasenet is None:
        return "PhaseNet was not measured, so there is no ratio."
    ratio, by_cpu, theirs = findings.ratio(), findings.ratio("cpu"), findings.results[findings.phasenet]
    batch = best_batch(theirs)
    wall_s = median(timing.wall_s for timing in theirs[batch])
    normalization_s = median(findings.normalization_s[batch])
    return (
        f"Ratio of the step graph to PhaseNet, round by round: {ratio.median:.2f} "
        f"({ratio.least:.2f} to {ratio.greatest:.2f}); by processor time, which leaves out what other programs did on "
        f"the core, {by_cpu.median:.2f} ({by_cpu.least:.2f} to {by_cpu.greatest:.2f}). PhaseNet would serve as many "
        f"stations as the step graph if it were re-run every {CHUNK_S * ratio.median:.2f} s. Its windows come "
        f"normalised: the normalisation in NumPy, {normalization_s * 1e3:.2f} ms a call, would leave it "
        f"{batch * CHUNK_S / (wall_s + normalization_s):.0f} stations. Ours is inside the graph."
    )


def _batches(findings: Findings) -> str:
    names = list(findings.results)
    lines = ["| batch | " + " | ".join(f"{name}, ms | stations" for name in names) + " |"]
    lines.append("|---:|" + "---:|---:|" * len(names))
    for batch in findings.results[names[0]]:
        cells = []
        for rounds in findings.results.values():
            wall_s = median(timing.wall_s for timing in rounds[batch])
            cells.append(f"{wall_s * 1e3:.2f} | {stations(rounds, batch=batch).median:.0f}")
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
