"""Figures of a comparison, drawn without a display."""

import io
import itertools
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ppo_cli.report.comparison import Comparison, Curve, Summary
from ppo_cli.report.runs import number, shown
from ppo_cli.report.statistics import Estimate

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#888888"
MOST_KNOBS = 24  # whose sensitivity is drawn
TALLEST = 300.0  # inches; Matplotlib draws no picture of more than 65,536 pixels
MOST_TOGETHER = len(COLOURS)  # curves in one pair of axes; more of them get a small one each
SETTINGS: Any = {  # Matplotlib has a type for it that lists every key, in its newest releases only
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "savefig.dpi": 150,
    "svg.hashsalt": "ppo-report",  # the same file every time
    "text.parse_math": False,  # a value with two dollars is no formula
}


def draw(comparison: Comparison) -> dict[str, Figure]:
    """The figures that a comparison has data for, by their kind."""
    with _drawing():
        figures = {
            "learning_curves": _learning_curves(comparison),
            "sensitivity": _sensitivity(comparison),
            "sample_efficiency": _sample_efficiency(comparison),
        }
        drawn = {kind: figure for kind, figure in figures.items() if figure is not None}
        for figure in drawn.values():  # lays each out once, not for each file again
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
    return drawn


@contextmanager
def _drawing() -> Iterator[None]:
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks, and of names that leave no room
        yield


def render(figure: Figure, kind: str) -> bytes:
    """A figure as a ``png`` or ``svg`` file."""
    file = io.BytesIO()
    with _drawing():
        figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _learning_curves(comparison: Comparison) -> Figure | None:
    drawn = [(summary, summary.curve) for summary in comparison.summaries if summary.curve is not None]
    if not drawn:
        return None
    if len(drawn) > MOST_TOGETHER:
        return _small_curves(comparison, drawn)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for colour, (summary, curve) in zip(COLOURS, drawn, strict=False):
        _draw_curve(axes, curve, colour, _label(summary))
    _draw_threshold(axes, comparison)
    several = any(curve.returns.low is not None for _, curve in drawn)
    axes.set_title(_title(comparison, "bands" if several else None), fontsize=10)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return in training, IQM over seeds")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _small_curves(comparison: Comparison, drawn: list[tuple[Summary, Curve]]) -> Figure:
    """Each group in axes of its own, over the baseline in grey."""
    columns = 4
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(2.6 * columns, min(1.9 * rows + 0.6, TALLEST)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    base = next((curve for summary, curve in drawn if summary.group.name == comparison.baseline), None)
    for axes, (summary, curve) in zip(grid.flat, drawn, strict=False):
        if base is not None and base is not curve:
            axes.plot(base.steps, base.returns.value, color=GREY, linewidth=1)
        _draw_curve(axes, curve, COLOURS[0], None)
        _draw_threshold(axes, comparison)
        axes.set_title(textwrap.fill(_label(summary), 34), fontsize=8)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(3))
    for position, axes in enumerate(grid.flat):
        axes.set_visible(position < len(drawn))
        axes.tick_params(labelbottom=position + columns >= len(drawn))  # the lowest that shows of its column
    figure.suptitle(f"{comparison.env_id} · grey: {comparison.baseline}", fontsize=10)
    figure.supxlabel("environment steps")
    figure.supylabel("return in training, IQM")
    return figure


def _draw_curve(axes: Axes, curve: Curve, colour: str, label: str | None) -> None:
    axes.plot(curve.steps, curve.returns.value, color=colour, linewidth=1.6, label=label)
    if curve.returns.low is not None and curve.returns.high is not None:
        axes.fill_between(
            curve.steps, curve.returns.low, curve.returns.high, color=colour, alpha=0.18, linewidth=0
        )


def _draw_threshold(axes: Axes, comparison: Comparison) -> None:
    if comparison.threshold is not None:
        axes.axhline(comparison.threshold, color=GREY, linewidth=1, linestyle="--")


def _label(summary: Summary) -> str:
    """Name and number of seeds, broken where a legend would grow too wide."""
    seeds = len(summary.group.runs)
    text = f"{summary.group.name} ({seeds} seed{'s' if seeds > 1 else ''})"
    return "\n".join(textwrap.wrap(text.replace(",", ", "), 34))


def _sensitivity(comparison: Comparison) -> Figure | None:
    """Final return against each numeric knob, a line for each setting of the others."""
    every = ((name, _points(comparison, name)) for name in comparison.summaries[0].group.knobs)
    knobs = dict(itertools.islice(((name, points) for name, points in every if points), MOST_KNOBS))
    if not knobs:
        return None
    columns = min(3, len(knobs))
    rows = math.ceil(len(knobs) / columns)
    figure = Figure(figsize=(4.2 * columns + 0.8, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(knobs) :]:
        axes.set_visible(False)
    for axes, (knob, lines) in zip(grid.flat, knobs.items(), strict=False):
        _draw_sensitivity(axes, knob, lines)
    for row in grid:
        row[0].set_ylabel("final return, IQM")
    several = any(summary.iqm.low is not None for summary in comparison.summaries)
    barred = several and any(len(lines) <= MOST_TOGETHER for lines in knobs.values())
    figure.suptitle(_title(comparison, "bars" if barred else None), fontsize=10)
    return figure


def _title(comparison: Comparison, intervals: str | None) -> str:
    """The environment, and what the intervals look like where any are drawn."""
    return comparison.env_id + (f" · {intervals}: 95 % bootstrap intervals" if intervals else "")


def _points(comparison: Comparison, knob: str) -> dict[str, list[tuple[float, Summary]]]:
    """The groups by the setting of the other knobs, with this knob's value; empty without two values."""
    lines: dict[str, list[tuple[float, Summary]]] = {}
    for summary in comparison.summaries:
        value = number(summary.group.knobs[knob])
        others = ", ".join(f"{key}={typed}" for key, typed in summary.group.knobs.items() if key != knob)
        if value is not None:
            lines.setdefault(others, []).append((value, summary))
    several = {others: sorted(points, key=lambda point: point[0]) for others, points in lines.items()}
    values = {value for points in several.values() for value, _ in points}
    return several if len(values) > 1 else {}


def _draw_sensitivity(axes: Axes, knob: str, lines: Mapping[str, list[tuple[float, Summary]]]) -> None:
    values = sorted({value for points in lines.values() for value, _ in points})
    logarithmic = values[0] > 0 and values[-1] >= 10 * values[0]
    if logarithmic:
        axes.set_xscale("log")
    many = len(lines) > MOST_TOGETHER
    for position, (others, points) in enumerate(lines.items()):
        # Lines lie a little beside each other, so that their bars can be told apart.
        aside = 0.0 if many else 0.012 * (position - (len(lines) - 1) / 2)
        middles, below, above = zip(*(_bar(summary.iqm) for _, summary in points), strict=True)
        axes.errorbar(
            [_shifted(value, aside, values[0], values[-1], logarithmic) for value, _ in points],
            middles,
            yerr=None if many else [below, above],
            color=GREY if many else COLOURS[position],
            label=textwrap.fill(shown(others), 40) or None,
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.2,
        )
    axes.set_xlabel(knob)
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    if many:
        axes.set_title("a line for each setting of the other knobs, without intervals", fontsize=8)
    elif len(lines) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=7, frameon=False)


def _shifted(value: float, aside: float, low: float, high: float, logarithmic: bool) -> float:
    """A value moved by a share of the axis."""
    return value * (high / low) ** aside if logarithmic else value + aside * (high - low)


def _bar(estimate: Estimate) -> tuple[float, float, float]:
    """A value and the lengths of its interval below and above; 0 where there is none."""
    value = float(estimate.value)
    if estimate.low is None or estimate.high is None:
        return value, 0.0, 0.0
    return value, max(0.0, value - float(estimate.low)), max(0.0, float(estimate.high) - value)


def _sample_efficiency(comparison: Comparison) -> Figure | None:
    """Steps to the threshold: a dot a run, a bar at the median, and in words how many never got there."""
    if comparison.threshold is None:
        return None
    summaries = comparison.summaries
    figure = Figure(figsize=(8, min(0.32 * len(summaries) + 1.3, TALLEST)), layout="constrained")
    axes = figure.subplots()
    for row, summary in enumerate(summaries):
        assert summary.reached is not None
        steps = [value for value in summary.reached if math.isfinite(value)]
        axes.plot(steps, [row] * len(steps), "o", color=COLOURS[0], alpha=0.6, markersize=5)
        if math.isfinite(summary.median_steps):
            axes.plot([summary.median_steps], [row], "|", color="black", markersize=14, markeredgewidth=2)
        text = f"{len(steps)}/{len(summary.reached)} reached it"
        axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    names = [summary.group.name for summary in summaries]
    axes.set_yticks(
        range(len(summaries)), [name if len(name) < 80 else textwrap.fill(name, 60) for name in names]
    )
    axes.set_ylim(len(summaries) - 0.5, -0.5)
    axes.set_xlim(0, 1.02 * max(run.last_step for summary in summaries for run in summary.group.runs))
    axes.set_xlabel(f"environment steps to a return of {comparison.threshold:g}; bar: median")
    axes.set_title(comparison.env_id, fontsize=10)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure
