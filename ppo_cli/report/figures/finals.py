"""Final returns of every seed, against the groups and against their knobs, and the steps to a threshold."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.figures.curves import FEWEST_TRIMMED, NO_INTERVAL, threshold_name
from ppo_cli.report.figures.style import (
    GREY,
    MOST_TOGETHER,
    TALLEST,
    Look,
    Style,
    left_label,
    legend,
    looks,
    name_width,
    panels,
    plain_ticks,
)
from ppo_cli.report.groups import RunGroup
from ppo_cli.report.knobs import annealed, annealed_knob, number
from ppo_cli.report.names import in_lines, wrapped
from ppo_cli.report.statistics import TOO_FEW, Estimate

MOST_KNOBS = 24  # whose sensitivity is drawn
BESIDE = 0.012  # share of the axis from a bar to its seeds' dots
MOST_NAMED = 28  # settings that a legend names
NEAREST = 0.07  # share of an axis from number to number
MOST_LEVEL = 5  # values of a knob whose numbers fit beside each other


def final_returns(comparison: Comparison, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """A row for each group: a dot a seed, the IQM and its interval; None where there is one run alone."""
    summaries = [summary for summary in comparison.summaries if summary.group.runs]
    if sum(len(summary.group.runs) for summary in summaries) < 2:
        return None
    figure, axes = rows([summary.group.name for summary in summaries], style)
    for row, summary in enumerate(summaries):
        look = entries[summary.group.name]
        returns = [run.final_return for run in summary.group.runs]
        if len(returns) > 1:
            axes.plot(returns, [row + 0.22] * len(returns), "o", color=look.colour, alpha=0.5, markersize=3.5)
        draw_estimate(axes, row - 0.12, summary.iqm, look)
    several = any(summary.iqm.low is not None for summary in summaries)
    _title(axes, style, _said(comparison, "mark", "bars" if several else None))
    axes.set_xlabel("final return")
    return figure


def sample_efficiency(comparison: Comparison, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """Steps to the threshold: a dot a run, a bar at the median; None where no run got there."""
    summaries = [summary for summary in comparison.summaries if summary.group.runs]
    reached = [
        [value for value in summary.reached if math.isfinite(value)]
        for summary in summaries
        if summary.reached is not None
    ]
    if comparison.threshold is None or not any(reached):
        return None
    figure, axes = rows([summary.group.name for summary in summaries], style)
    for row, (summary, steps) in enumerate(zip(summaries, reached, strict=True)):
        look = entries[summary.group.name]
        axes.plot(steps, [row] * len(steps), look.marker, color=look.colour, alpha=0.6, markersize=4.5)
        if math.isfinite(summary.median_steps):
            axes.plot([summary.median_steps], [row], "|", color="black", markersize=12, markeredgewidth=2)
        text = f"{len(steps)}/{len(summary.group.runs)}"
        axes.text(
            1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=style.font_size - 1
        )
    axes.set_xlim(0, 1.02 * max(run.last_step for summary in summaries for run in summary.group.runs))
    plain_ticks(axes)
    axes.set_xlabel(
        wrapped(f"environment steps to the {threshold_name(comparison)}", style.letters(0.6 * style.width))
    )
    _title(axes, style, f"{comparison.env_id} · dots: seeds, bar: median, right: how many got there")
    return figure


def sensitivity(comparison: Comparison, style: Style) -> Figure | None:
    """Final return against each knob that has several numbers, a line for each setting of the others."""
    every = ((name, _points(comparison, name)) for name in _knobs(comparison))
    knobs = dict(itertools.islice(((name, points) for name, points in every if points), MOST_KNOBS))
    if not knobs:
        return None
    figure, grid = panels(style, len(knobs), sharey=True)
    few_lines = [lines for lines in knobs.values() if len(lines) <= MOST_TOGETHER]
    entries = looks([others for lines in few_lines for others in lines])
    if len(entries) > MOST_NAMED:
        entries = {}
    for axes, (knob, lines) in zip(grid, knobs.items(), strict=True):
        _draw_sensitivity(axes, knob, lines, entries if lines in few_lines else {}, style)
    barred = bool(entries) and any(summary.iqm.low is not None for summary in comparison.summaries)
    figure.suptitle(
        wrapped(_said(comparison, "line", "bars" if barred else None), style.letters(style.width))
    )
    left_label(figure, grid, "final return", style)
    if len(entries) > 1:
        legend(figure, style, {others: look for others, look in entries.items() if others})
    return figure


def rows(names: Sequence[str], style: Style) -> tuple[Figure, Axes]:
    """Axes with a row for each group, named at the left."""
    height = (len(names) + 4.5) * max(0.24, 1.3 * style.line)
    height = max(height, style.height) if style.size else height
    figure = Figure(figsize=(style.width, min(height, TALLEST)), layout="constrained")
    axes = figure.subplots()
    name_rows(axes, names, style)
    return figure, axes


def name_rows(axes: Axes, names: Sequence[str], style: Style) -> None:
    """Rows from above with their names."""
    room = name_width(style)
    axes.set_yticks(range(len(names)), in_lines(names, room))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def draw_estimate(axes: Axes, row: float, estimate: Estimate, look: Look) -> None:
    """A number as the group's marker, with its interval as a bar."""
    value, below, above = bar(estimate)
    axes.errorbar(
        [value], [row], xerr=[[below], [above]] if below or above else None, color=look.colour,
        marker=look.marker, markersize=5, capsize=2.5, linewidth=1.6,
    )  # fmt: skip


def bar(estimate: Estimate) -> tuple[float, float, float]:
    """A value and the lengths of its interval below and above; 0 where there is none."""
    value = float(estimate.value)
    if estimate.low is None or estimate.high is None:
        return value, 0.0, 0.0
    return value, max(0.0, value - float(estimate.low)), max(0.0, float(estimate.high) - value)


def _title(axes: Axes, style: Style, text: str) -> None:
    """Above all of the figure's width, not only the axes', which names make narrow."""
    axes.figure.suptitle(wrapped(text, style.letters(style.width)))


def _said(comparison: Comparison, drawn: str, intervals: str | None) -> str:
    """A title that says what is drawn of several seeds; the IQM of fewer than four is a mean."""
    seeds = max(len(summary.group.runs) for summary in comparison.summaries)
    parts = [f"{drawn}: {'IQM' if seeds >= FEWEST_TRIMMED else 'mean'}", "dots: seeds"] if seeds > 1 else []
    if intervals:
        parts.append(f"{intervals}: 95 % intervals")
    if seeds > 1 and any(summary.iqm.why == TOO_FEW for summary in comparison.summaries):
        parts.append(NO_INTERVAL)
    return comparison.env_id + (" · " if parts else "") + ", ".join(parts)


def _knobs(comparison: Comparison) -> Sequence[str]:
    return list(comparison.summaries[0].group.knobs) if comparison.summaries else []


def _points(comparison: Comparison, knob: str) -> dict[str, list[tuple[float, Summary]]]:
    """The groups by the setting of the other knobs, with this knob's value; empty without two values."""
    lines: dict[str, list[tuple[float, Summary]]] = {}
    for summary in comparison.summaries:
        value = number(summary.group.knobs[knob])
        if value is not None:
            lines.setdefault(_others(summary.group, knob), []).append((value, summary))
    several = {others: sorted(points, key=lambda point: point[0]) for others, points in lines.items()}
    return several if any(points[0][0] < points[-1][0] for points in several.values()) else {}


def _others(group: RunGroup, knob: str) -> str:
    """The setting of a group's other knobs, how they are annealed as in the table: ``clip_ratio→0.0``."""
    own = group.runs[0].knobs
    changing = annealed_knob(knob, own)  # where the axis is how a knob is annealed
    found = {}
    for key, typed in group.knobs.items():
        of = annealed_knob(key, own)
        if key == knob:
            continue
        if of is None or of == changing:
            found[key] = f"{key}={typed}{'' if key == changing else annealed(own, key)}"
        elif of == knob:
            found[of] = f"{of}{annealed(own, of) or ' constant'}"
        else:
            found[of] = f"{of}={own[of]}{annealed(own, of)}"
    return ",".join(found.values())


def _draw_sensitivity(
    axes: Axes,
    knob: str,
    lines: Mapping[str, list[tuple[float, Summary]]],
    entries: Mapping[str, Look],
    style: Style,
) -> None:
    values = sorted({value for points in lines.values() for value, _ in points})
    logarithmic = values[0] > 0 and values[-1] >= 10 * values[0]
    if logarithmic:
        axes.set_xscale("log")
    many = not entries
    for position, (others, points) in enumerate(lines.items()):
        look = entries.get(others, Look(GREY, "-", "o"))
        # Lines lie a little beside each other, so that their bars can be told apart.
        aside = 0.0 if many else 0.024 * (position - (len(lines) - 1) / 2)
        places = [_shifted(value, aside, values[0], values[-1], logarithmic) for value, _ in points]
        middles, below, above = zip(*(bar(summary.iqm) for _, summary in points), strict=True)
        axes.errorbar(
            places, middles, yerr=None if many or not any(below + above) else [below, above],
            color=look.colour, linestyle=look.dashes, marker=look.marker, markersize=4,
            capsize=2.5, linewidth=1.2, alpha=0.7 if many else 1.0,
        )  # fmt: skip
        if not many and any(len(summary.group.runs) > 1 for _, summary in points):
            for place, (_, summary) in zip(places, points, strict=True):
                returns = [run.final_return for run in summary.group.runs]
                beside = _shifted(place, BESIDE, values[0], values[-1], logarithmic)
                axes.plot([beside] * len(returns), returns, ".", color=look.colour, alpha=0.5, markersize=4)
    axes.set_xlabel(wrapped(knob, style.letters(style.width / 3)))
    ticks = _readable(values, logarithmic)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45 if len(ticks) > MOST_LEVEL else 0)
    axes.minorticks_off()
    if many:
        axes.set_title("each line a setting of the other knobs", fontsize=style.font_size - 1)


def _readable(values: Sequence[float], logarithmic: bool) -> list[float]:
    """Rising values without those whose numbers would lie over the one before."""
    places = np.log(values) if logarithmic else np.asarray(values)
    least, kept = NEAREST * (places[-1] - places[0]), [0]
    for position in range(1, len(values)):
        if places[position] - places[kept[-1]] >= least:
            kept.append(position)
    return [values[position] for position in kept]


def _shifted(value: float, aside: float, low: float, high: float, logarithmic: bool) -> float:
    """A value moved by a share of the axis."""
    return value * (high / low) ** aside if logarithmic else value + aside * (high - low)
