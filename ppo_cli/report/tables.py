"""A comparison's tables as text, and how they fit a width."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.names import keyed
from ppo_cli.report.statistics import TOO_FEW, Estimate
from ppo_cli.text import short

Table = list[list[str]]  # the first row is the header, the first column the groups

NOTHING = "–"
STAYS = "*"
SAME = ("steps", "final return from")  # columns that are a line where all groups have the same
PAPER = 100  # columns of a Markdown table at most


class Fitted(NamedTuple):
    """A table that fits a width.

    Attributes:
        blocks: The tables with some of the columns each, and with the groups' names.
        lines: Lines on what the blocks leave out: columns in which all is the same, and names that are cut.
    """

    blocks: list[Table]
    lines: list[str]


def table(comparison: Comparison) -> Table:
    """A row for each group, the columns that matter most first."""
    header = ["group", "runs (seeds)", "IQM", "P(better)"]
    if comparison.threshold is not None:
        header.append(f"steps to {comparison.goal}")
    header += ["mean", "AUC", "steps", "final return from", "steps/s"]
    return [header, *(_row(comparison, summary) for summary in comparison.summaries)]


def failed_table(comparison: Comparison) -> Table:
    """The runs that failed, with why; the header alone where none did."""
    header = ["group", "seed", "steps", "reason"]
    return [
        header,
        *([name, str(run.seed), f"{run.last_step:,}", run.reason] for name, run in comparison.failed),
    ]


def overall_table(overall: Overall) -> Table:
    """The aggregates over environments, a row for each group."""
    header = ["group", "runs", "IQM", "P(better)", "median", "mean", "optimality gap"]
    return [
        header,
        *(
            [
                group.name,
                str(group.runs),
                number_with_interval(group.iqm, 3),
                "baseline" if group.name == overall.baseline else number_with_interval(group.improvement, 2),
                short(group.median, 3),
                short(group.mean, 3),
                short(group.gap, 3),
            ]
            for group in overall.groups
        ),
    ]


def fitted(rows: Table, width: int) -> Fitted:
    """A table in blocks that are at most ``width`` columns wide, `aligned`, if that can be."""
    header, *body = rows
    same = [
        place for place, name in enumerate(header) if name in SAME and len({row[place] for row in body}) == 1
    ]
    lines = [", ".join(f"{header[place]}: {body[0][place]}" for place in same)] if same else []
    names, key = keyed([row[0] for row in body], name_room(width))
    columns = [[row[place] for row in rows] for place in range(len(header)) if place not in same]
    columns[0][1:] = names
    blocks: list[list[list[str]]] = [[columns[0]]]
    for column in columns[1:]:
        if len(blocks[-1]) > 1 and _width([*blocks[-1], column]) > width:
            blocks.append([columns[0]])
        blocks[-1].append(column)
    return Fitted([[list(row) for row in zip(*block, strict=True)] for block in blocks], lines + key)


def name_room(width: int) -> int:
    """Columns that a group's name has in a table."""
    return max(16, width // 2 - 4)


def aligned(rows: Table, left: Sequence[int] = (0,)) -> str:
    """A Markdown table whose columns line up, so that it reads well as plain text too.

    Args:
        rows: The header first.
        left: The places of the columns that begin at the left; numbers end at the right.
    """
    safe = [[escaped_cell(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*safe, strict=True)]
    rule = ["-" * width if place in left else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    lines = [
        [
            _padded(cell, width, place in left or not position)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for position, row in enumerate(safe)
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def continued(rows: Table, width: int) -> Table:
    """A table whose last column goes on in further rows, so that all is at most ``width`` columns wide."""
    room = max(20, width - _width([[row[place] for row in rows] for place in range(len(rows[0]) - 1)]) - 3)
    found = []
    for row in rows:
        first, *rest = textwrap.wrap(row[-1], room) or [""]
        found += [[*row[:-1], first], *([*[""] * (len(row) - 1), line] for line in rest)]
    return found


def escaped(text: str) -> str:
    """A text that is no HTML and no link where it lies in Markdown."""
    return text.replace("\\", "\\\\").replace("<", "\\<").replace("](", "]\\(")


def escaped_cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return escaped(text).replace("|", "\\|")


def _padded(cell: str, width: int, left: bool) -> str:
    blanks = " " * (width - cell_len(cell))
    return cell + blanks if left else blanks + cell


def _width(columns: Sequence[Sequence[str]]) -> int:
    """The width of a Markdown table with these columns."""
    return 1 + sum(3 + max(cell_len(escaped_cell(cell)) for cell in column) for column in columns)


def _row(comparison: Comparison, summary: Summary) -> list[str]:
    runs = summary.group.runs
    steps = sorted({run.last_step for run in runs})
    row = [
        summary.group.name,
        f"{len(runs)} ({_seeds([run.seed for run in runs])})",
        number_with_interval(summary.iqm),
        better(comparison, summary),
    ]
    if summary.reached is not None:
        count = f"{sum(map(math.isfinite, summary.reached))}/{len(runs)} runs"
        median = summary.median_steps
        row.append(f"{f'{median:,.0f}' if math.isfinite(median) else 'not reached'} ({count})")
    return [
        *row,
        short(summary.mean),
        number_with_interval(summary.area),
        f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}",
        summary.source,
        f"{summary.speed:,.0f}",
    ]


def better(comparison: Comparison, summary: Summary) -> str:
    """The probability of improvement, `STAYS` behind it where that is significant after correction."""
    if summary.group.name == comparison.baseline:
        return "baseline"
    if summary.unlike:
        return summary.unlike
    improvement = summary.improvement
    if improvement is None:
        return NOTHING
    if improvement.estimate.why == TOO_FEW:
        return f"{short(float(improvement.estimate.value), 2)} [{TOO_FEW}]"
    return number_with_interval(improvement.estimate, 2) + (f" {STAYS}" if improvement.stays else "")


def number_with_interval(estimate: Estimate | None, decimals: int | None = None) -> str:
    """``1.2 [1.0, 1.5]``; the number alone where the seeds are too few for more."""
    if estimate is None:
        return NOTHING
    value = short(float(estimate.value), decimals)
    if estimate.low is None or estimate.high is None:
        return value if estimate.why in ("", TOO_FEW) else f"{value} [{estimate.why}]"
    return f"{value} [{short(float(estimate.low), decimals)}, {short(float(estimate.high), decimals)}]"


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in order: ``0-4``, or ``0, 3, 7`` where there are gaps."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))
