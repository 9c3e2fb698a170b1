"""What `ddp_gpu.py` says: bars, and the Markdown around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

INTRODUCTION = (
    "Each rank is a process under torchrun with the trainer of `pretrain run`. What a rank draws (windows, masks, "
    "negatives, dropout) follows from seed, rank and the index of the micro-batch alone: with the same number of ranks "
    "a run that goes on is the run that never stopped (on a processor to the last bit); with another number weights, "
    "moments and schedule go on exactly, and the draws are others."
)


@dataclass(frozen=True)
class Bar:
    """A figure and its ``limit``: the least where ``least``, else the most; none where nothing is asked of it.

    ``value`` is none where it was not measured, and ``reason`` says why.
    """

    key: str
    limit: float | None
    least: bool
    value: float | None
    reason: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is nothing to judge. A figure that is not a number misses."""
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def text(self) -> str:
        """The figure, or why there is none: what is not measured never looks like one that is."""
        return f"not run: {self.reason}" if self.value is None else f"{self.value:.4g}"

    def row(self) -> str:
        """Of the table."""
        verdict = {None: "", True: "met", False: "**missed**"}[self.met]
        limit = "none" if self.limit is None else f"{'>=' if self.least else '<='} {self.limit:g}"
        return f"| {self.key} | {self.text} | {limit} | {verdict} |"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def markdown(facts: Sequence[str], sections: Sequence[str], bars: Sequence[Bar]) -> str:
    """The whole report; at its end one ``key: value`` line for each bar."""
    parts = [
        "# Pretraining on several GPUs",
        INTRODUCTION,
        "\n".join(facts),
        *sections,
        "## Bars",
        "\n".join(["| | measured | bar | |", "|---|---:|---:|---|", *(bar.row() for bar in bars)]),
        "\n".join(["```", *(f"{bar.key}: {bar.text}" for bar in bars), "```"]),
    ]
    return "\n\n".join(parts) + "\n"
