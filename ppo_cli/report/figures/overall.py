"""Aggregates over environments: IQM and its kin, performance profiles, probability of improvement."""

from collections.abc import Callable, Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_cli.report.aggregates import Aggregate, Overall
from ppo_cli.report.figures.finals import draw_estimate, name_rows
from ppo_cli.report.figures.style import MOST_TOGETHER, TALLEST, Look, Style, legend, wrapped
from ppo_cli.report.statistics import Estimate

ESTIMATES: tuple[tuple[str, Callable[[Aggregate], Estimate | None]], ...] = (
    ("IQM", lambda group: group.iqm),
    ("median", lambda group: group.median),
    ("mean", lambda group: group.mean),
    ("optimality gap", lambda group: group.gap),
    ("P(better)", lambda group: group.improvement),
)


def aggregates(overall: Overall, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """IQM, median, mean and optimality gap of normalised scores, P(better) and the performance profiles."""
    if not overall.groups:
        return None
    beside = len(ESTIMATES) if len(overall.groups) > 1 else len(ESTIMATES) - 1
    columns = max(1, min(beside, int(style.width / (0.15 * style.font_size)) - 1))
    bands = -(-beside // columns)
    row_height = (len(overall.groups) + 3.5) * max(0.22, 1.3 * style.line)
    profile_height = 0.75 * style.height
    figure = Figure(
        figsize=(style.width, min(bands * row_height + profile_height, TALLEST)), layout="constrained"
    )
    grid = figure.add_gridspec(bands + 1, columns, height_ratios=[row_height] * bands + [profile_height])
    for position, (name, chosen) in enumerate(ESTIMATES[:beside]):
        axes = figure.add_subplot(grid[position // columns, position % columns])
        _draw_estimates(axes, overall, chosen, entries, style, named=position % columns == 0)
        axes.set_title(name)
        if name == "P(better)":
            axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    _draw_profiles(figure.add_subplot(grid[bands, :]), overall, entries)
    several = any(group.iqm.low is not None for group in overall.groups)
    title = f"{len(overall.scales)} environments, normalised scores" + (
        " · 95 % intervals" if several else ""
    )
    figure.suptitle(wrapped(title, style.letters(style.width)))
    if len(overall.groups) > 1:
        legend(figure, style, {group.name: entries[group.name] for group in overall.groups})
    return figure


def _draw_estimates(
    axes: Axes,
    overall: Overall,
    chosen: Callable[[Aggregate], Estimate | None],
    entries: Mapping[str, Look],
    style: Style,
    named: bool,
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
    if not named:
        axes.tick_params(labelleft=False)


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
