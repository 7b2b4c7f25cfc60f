"""A comparison as text: Markdown, one HTML file that needs nothing else, and rows for CSV files."""

import base64
import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ppo_cli.files import printable
from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.statistics import CONFIDENCE, RESAMPLES, Estimate

Table = list[list[str]]  # the first row is the header
Cell = str | float | int | None

NOTHING = "–"
LEGEND = (
    "IQM and mean: of the seeds' final returns; AUC: IQM of the seeds' mean returns over steps. P(better): "
    "probability that a run returns more than one of the baseline; 0.5 is no difference. IQM and P(better) "
    f"as in Agarwal et al. 2021, arXiv:2108.13264. In brackets {CONFIDENCE:.0%} intervals: of an IQM the "
    f"expanded percentile bootstrap's ({RESAMPLES:,} resamples of the seeds), of P(better) Newcombe's."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; margin: 1rem 0; }
"""


def table(comparison: Comparison) -> Table:
    """A row for each group, as text."""
    header = ["group", "runs (seeds)", "steps", "final return from", "IQM", "mean", "AUC", "steps/s"]
    if comparison.threshold is not None:
        header.append(f"steps to {comparison.threshold:g}")
    header.append("P(better)")
    return [header, *(_row(comparison, summary) for summary in comparison.summaries)]


def markdown(comparisons: Sequence[Comparison], figures: Mapping[str, Sequence[str]]) -> str:
    """The report as Markdown.

    Args:
        comparisons: one for each environment.
        figures: names of the image files of each environment.
    """
    parts = ["# Report", LEGEND]
    for comparison in comparisons:
        parts += [f"## {_escaped(comparison.env_id)}", aligned(table(comparison))]
        parts += ["\n".join(f"- {_escaped(note)}" for note in comparison.notes())]
        parts += [f"![{name}]({name})" for name in figures[comparison.env_id]]
    return "\n\n".join(parts) + "\n"


def aligned(rows: Table) -> str:
    """A Markdown table whose columns line up, so that it reads well as plain text too."""
    safe = [[_escaped(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*safe, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [safe[0], rule]]
    lines += [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in safe[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """A text that is no HTML and no link where it lies in Markdown."""
    return text.replace("<", "\\<").replace("](", "]\\(")


def web_page(comparisons: Sequence[Comparison], figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """The report as one HTML file.

    Args:
        comparisons: one for each environment.
        figures: SVG files of each environment by their name.
    """
    parts = [f"<h1>Report</h1><p>{html.escape(LEGEND)}</p>"]
    for comparison in comparisons:
        parts.append(f"<h2>{html.escape(comparison.env_id)}</h2>{_web_table(table(comparison))}")
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in comparison.notes())
        parts.append(f"<ul>{notes}</ul>")
        for name, image in figures[comparison.env_id].items():
            # As an image, not as elements: ids of several drawings on one page would clash.
            source = base64.b64encode(image).decode()
            parts.append(f'<img alt="{html.escape(name)}" src="data:image/svg+xml;base64,{source}">')
    head = f'<meta charset="utf-8"><title>Report</title><style>{STYLE}</style>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def table_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """The tables as numbers, a row for each group; an empty cell is what does not exist."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            reached, improvement = summary.reached, summary.improvement
            yield {
                "environment": comparison.env_id,
                "group": summary.group.name,
                "seeds": len(summary.group.runs),
                "steps_min": min(run.last_step for run in summary.group.runs),
                "steps_max": max(run.last_step for run in summary.group.runs),
                "final_return_from": summary.source,
                **_numbers("iqm", summary.iqm),
                "mean": summary.mean,
                **_numbers("auc", summary.area),
                "steps_per_second": summary.speed,
                "threshold": comparison.threshold,
                "reached": None if reached is None else sum(map(math.isfinite, reached)),
                "steps_to_threshold": None if reached is None else _finite(summary.median_steps),
                "baseline": comparison.baseline,
                **_numbers("p_better", None if improvement is None else improvement.estimate),
            }


def curve_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """The learning curves, a row for each point."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            if (curve := summary.curve) is None:
                continue
            for point, step in enumerate(curve.steps):
                yield {
                    "environment": comparison.env_id,
                    "group": summary.group.name,
                    "step": float(step),
                    "iqm": float(curve.returns.value[point]),
                    "iqm_low": None if curve.returns.low is None else float(curve.returns.low[point]),
                    "iqm_high": None if curve.returns.high is None else float(curve.returns.high[point]),
                }


def run_rows(comparisons: Iterable[Comparison]) -> Iterator[dict[str, Cell]]:
    """What was read of each run."""
    for comparison in comparisons:
        for summary in comparison.summaries:
            for position, run in enumerate(summary.group.runs):
                reached = None if summary.reached is None else _finite(summary.reached[position])
                yield {
                    "environment": comparison.env_id,
                    "group": summary.group.name,
                    "seed": run.seed,
                    "folder": printable(str(run.folder)),
                    "steps": run.last_step,
                    "final_return": run.final_return,
                    "final_return_from": "training" if run.evaluated is None else "evaluation",
                    "steps_per_second": run.speed,
                    "cut_episodes": run.cut_episodes,
                    "steps_to_threshold": reached,
                }


def _row(comparison: Comparison, summary: Summary) -> list[str]:
    runs = summary.group.runs
    steps = sorted({run.last_step for run in runs})
    row = [
        summary.group.name,
        f"{len(runs)} ({_seeds([run.seed for run in runs])})",
        f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}",
        summary.source,
        _text(summary.iqm),
        _short(summary.mean, None),
        _text(summary.area),
        f"{summary.speed:,.0f}",
    ]
    if summary.reached is not None:
        count = f"{sum(map(math.isfinite, summary.reached))}/{len(runs)} runs"
        median = summary.median_steps
        row.append(f"{f'{median:,.0f}' if math.isfinite(median) else 'not reached'} ({count})")
    if summary.group.name == comparison.baseline:
        row.append("baseline")
    else:
        row.append(NOTHING if summary.improvement is None else _text(summary.improvement.estimate, 2))
    return row


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in order: ``0-4``, or ``0, 3, 7`` where there are gaps."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"{seeds[0]}-{seeds[-1]}"
    return ", ".join(map(str, seeds))


def _text(estimate: Estimate | None, decimals: int | None = None) -> str:
    if estimate is None:
        return NOTHING
    value = float(estimate.value)
    if estimate.low is None or estimate.high is None:
        return f"{_short(value, decimals)} [{estimate.why}]"
    low, high = float(estimate.low), float(estimate.high)
    return f"{_short(value, decimals)} [{_short(low, decimals)}, {_short(high, decimals)}]"


def _short(value: float, decimals: int | None) -> str:
    """A number, with as many decimals as its size asks for where their number is not given."""
    if decimals is None:
        decimals = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def _numbers(name: str, estimate: Estimate | None) -> dict[str, Cell]:
    """An estimate as three columns."""
    ends = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    keys = (name, f"{name}_low", f"{name}_high")
    return {key: None if end is None else float(end) for key, end in zip(keys, ends, strict=True)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _web_table(rows: Table) -> str:
    lines = []
    for position, row in enumerate(rows):
        tag = "td" if position else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"
