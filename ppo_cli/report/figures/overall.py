"""Aggregates over environments: IQM and its kin, performance profiles, probability of improvement."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from ppo_cli.report.aggregates import Aggregate, Overall
from ppo_cli.report.figures.curves import NO_INTERVAL
from ppo_cli.report.figures.finals import draw_estimate, name_rows
from ppo_cli.report.figures.style import MOST_TOGETHER, TALLEST, Look, Style, legend
from ppo_cli.report.names import wrapped
from ppo_cli.report.statistics import TOO_FEW, Estimate

ESTIMATES: tuple[tuple[str, Callable[[Aggregate], Estimate | None]], ...] = (
    ("IQM", lambda group: group.iqm),
    ("median", lambda group: Estimate(np.asarray(group.median))),
    ("mean", lambda group: Estimate(np.asarray(group.mean))),
    ("optimality gap", lambda group: Estimate(np.asarray(group.gap))),
    ("P(better)", lambda group: group.improvement),
)


def aggregates(overall: Overall, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """IQM, median, mean and optimality gap of normalised scores, P(better) and the performance profiles."""
    if not overall.groups:
        return None
    several = len(overall.groups) > 1
    rows_high = (len(overall.groups) + 3.5) * max(0.22, 1.3 * style.line)
    wide = style.width >= 0.75 * style.font_size
    grid, figure = _wide_grid(style, rows_high, several) if wide else _narrow_grid(style, rows_high, several)
    *estimates, profile = [figure.add_subplot(place) for place in grid]
    for axes, (name, chosen) in zip(estimates, ESTIMATES, strict=False):
        _draw_estimates(axes, overall, chosen, entries, style)
        axes.set_title(name)
        if wide and axes is not estimates[0]:
            axes.tick_params(labelleft=False)
        if name == "P(better)":
            axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    _draw_profiles(profile, overall, entries)
    title = " · ".join([f"{len(overall.scales)} environments, normalised scores", *_said(overall)])
    figure.suptitle(wrapped(title, style.letters(style.width)))
    if several:
        legend(figure, style, {group.name: entries[group.name] for group in overall.groups})
    return figure


def _said(overall: Overall) -> list[str]:
    """What has intervals, and what has too few seeds for one."""
    drawn: dict[str, list[Estimate | None]] = {
        "IQM": [group.iqm for group in overall.groups],
        "profile": [group.profile for group in overall.groups],
        "P(better)": [group.improvement for group in overall.groups],
    }
    names = [name for name, found in drawn.items() if any(one and one.low is not None for one in found)]
    few = any(group.iqm.why == TOO_FEW for group in overall.groups)
    return [f"95 % intervals: {', '.join(names)}"] * bool(names) + [NO_INTERVAL] * few


def _wide_grid(style: Style, rows_high: float, several: bool) -> tuple[list[SubplotSpec], Figure]:
    """Four estimates beside each other; below them P(better), and before it the profiles."""
    below = max(0.65 * style.height, rows_high)
    figure = Figure(figsize=(style.width, min(rows_high + below, TALLEST)), layout="constrained")
    grid = figure.add_gridspec(2, 4, height_ratios=[rows_high, below])
    first = [grid[0, column] for column in range(4)]
    return ([*first, grid[1, 3], grid[1, :3]] if several else [*first, grid[1, :]]), figure


def _narrow_grid(style: Style, rows_high: float, several: bool) -> tuple[list[SubplotSpec], Figure]:
    """The estimates below each other, and the profiles."""
    count = len(ESTIMATES) if several else len(ESTIMATES) - 1
    height = count * rows_high + style.height
    figure = Figure(figsize=(style.width, min(height, TALLEST)), layout="constrained")
    grid = figure.add_gridspec(count + 1, 1, height_ratios=[*[rows_high] * count, style.height])
    return [grid[row, 0] for row in range(count + 1)], figure


def _draw_estimates(
    axes: Axes,
    overall: Overall,
    chosen: Callable[[Aggregate], Estimate | None],
    entries: Mapping[str, Look],
    style: Style,
) -> None:
    for row, group in enumerate(overall.groups):
        estimate = chosen(group)
        if estimate is not None:
            draw_estimate(axes, row, estimate, entries[group.name])
        else:
            axes.annotate(
                "baseline", (0.5, row), xycoords=axes.get_yaxis_transform(), ha="center", va="center",
                fontsize=style.font_size - 1, color="#444444",
            )  # fmt: skip
    name_rows(axes, [group.name for group in overall.groups], style)
    axes.locator_params(axis="x", nbins=3)
    axes.margins(x=0.1)


def _draw_profiles(axes: Axes, overall: Overall, entries: Mapping[str, Look]) -> None:
    for place, group in enumerate(overall.groups):
        look, profile = entries[group.name], group.profile
        axes.plot(
            overall.taus, profile.value, color=look.colour, linestyle=look.dashes, linewidth=1.5,
            marker=look.marker, markevery=(2 * place % 12, 12), markersize=3.5,
        )  # fmt: skip
        if profile.low is not None and profile.high is not None and len(overall.groups) <= MOST_TOGETHER:
            axes.fill_between(
                overall.taus, profile.low, profile.high, color=look.colour, alpha=0.14, linewidth=0
            )
    axes.set_xlabel("normalised score τ")
    axes.set_ylabel("share of runs\nwith a score > τ")
    axes.set_ylim(-0.03, 1.03)
