"""Learning curves: of one environment, of all of them, and of an environment's own scalars."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ppo_cli.names import middle_cut
from ppo_cli.report.comparison import Comparison, Curve, Summary
from ppo_cli.report.figures.style import (
    COLOURS,
    GREY,
    MOST_TOGETHER,
    Look,
    Style,
    left_label,
    legend,
    panels,
    plain_ticks,
)
from ppo_cli.report.names import in_lines, wrapped
from ppo_cli.report.statistics import FEWEST_FOR_IQM

FEWEST_TRIMMED = 4  # seeds of which an interquartile mean leaves any out
NO_INTERVAL = f"no interval below {FEWEST_FOR_IQM} seeds"
EVERY = 12  # points of a curve from marker to marker
ALONE = Look(COLOURS[0], "-", "")


def learning_curves(comparison: Comparison, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """The groups of an environment in one pair of axes, or many of them in small ones."""
    drawn = _drawn(comparison)
    if not drawn:
        return None
    if len(drawn) > MOST_TOGETHER:
        return _small_curves(comparison, drawn, style)
    figure, (axes,) = panels(style, 1)
    for summary, curve in drawn:
        draw_curve(axes, curve, entries[summary.group.name])
    draw_threshold(axes, comparison)
    axes.set_title(_title(comparison, drawn, style))
    axes.set_xlabel(steps_label(comparison, style))
    axes.set_ylabel(
        wrapped(what("training return", [curve for _, curve in drawn]), style.letters(0.8 * style.height))
    )
    plain_ticks(axes)
    named = {_counted(summary, drawn): entries[summary.group.name] for summary, _ in drawn}
    legend(figure, style, named if len(drawn) > 1 or drawn[0][0].group.knobs else {})
    return figure


def all_environments(
    comparisons: Sequence[Comparison], entries: Mapping[str, Look], style: Style
) -> Figure | None:
    """A pair of axes for each environment, with one legend; None for a single environment."""
    drawn = [(comparison, curves) for comparison in comparisons if (curves := _drawn(comparison))]
    if len(drawn) < 2:
        return None
    figure, grid = panels(style, len(drawn))
    named: dict[str, Look] = {}
    for axes, (comparison, curves) in zip(grid, drawn, strict=True):
        banded = len(curves) <= MOST_TOGETHER
        for summary, curve in curves:
            look = entries[summary.group.name] if summary.group.knobs else ALONE
            if summary.group.knobs:
                named[summary.group.name] = look
            draw_curve(axes, curve, look, banded)
        draw_threshold(axes, comparison, style.font_size - 2)
        axes.set_title(wrapped(comparison.env_id, style.letters(axes_width(figure, grid))))
        plain_ticks(axes, 4)
    every = [curve for _, curves in drawn for _, curve in curves]
    few = [pair for _, curves in drawn if len(curves) <= MOST_TOGETHER for pair in curves]
    figure.suptitle(wrapped(" · ".join(["all environments", *_spread(few)]), style.letters(style.width)))
    left_label(figure, grid, what("training return", every), style)
    legend(figure, style, named, below=steps_label(drawn[0][0], style))
    return figure


def axes_width(figure: Figure, grid: Sequence[Axes]) -> float:
    """Width in inches that one of a grid's axes has."""
    specification = grid[0].get_subplotspec()
    return figure.get_figwidth() / (specification.get_gridspec().ncols if specification else 1)


def draw_threshold(axes: Axes, comparison: Comparison, size: float | None = None) -> None:
    """The return to reach as a line with its name."""
    if comparison.threshold is None:
        return
    axes.axhline(comparison.threshold, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        threshold_name(comparison), (0, comparison.threshold), (2, 2), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", color="#444444", fontsize=size or axes.xaxis.label.get_fontsize(),
        bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.5},
    )  # fmt: skip


def threshold_name(comparison: Comparison) -> str:
    """The return to reach, in words."""
    return f"{'90 % of the gain' if comparison.derived else 'threshold'}: {comparison.threshold:,.12g}"


def _small_curves(comparison: Comparison, drawn: list[tuple[Summary, Curve]], style: Style) -> Figure:
    """Each group in axes of its own, over the baseline in grey."""
    figure, grid = panels(style, len(drawn), widest=4, sharex=True, sharey=True)
    base = next((curve for summary, curve in drawn if summary.group.name == comparison.baseline), None)
    room = style.letters(axes_width(figure, grid)) - 2
    titles = in_lines([_counted(summary, drawn) for summary, _ in drawn], room)
    for axes, (_, curve), title in zip(grid, drawn, titles, strict=True):
        if base is not None and base is not curve:
            axes.plot(base.steps, base.returns.value, color=GREY, linewidth=1, linestyle="--")
        draw_curve(axes, curve, ALONE)
        draw_threshold(axes, comparison, style.font_size - 2)
        axes.set_title(title, fontsize=style.font_size - 1)
        plain_ticks(axes, 3)
    figure.suptitle(_title(comparison, drawn, style))
    left_label(figure, grid, what("training return", [curve for _, curve in drawn]), style)
    name = middle_cut(f"baseline: {comparison.baseline}", style.letters(style.width) - 6)
    grey = Line2D([], [], color=GREY, linestyle="--", label=name)
    legend(figure, style, {}, [grey] if base is not None else [], below=steps_label(comparison, style))
    return figure


def _drawn(comparison: Comparison) -> list[tuple[Summary, Curve]]:
    return [(summary, summary.curve) for summary in comparison.summaries if summary.curve is not None]


def draw_curve(axes: Axes, curve: Curve, look: Look, banded: bool = True) -> None:
    """A curve with its band, or the seeds' own where there are too few for one."""
    start = sum(map(ord, look.marker)) % EVERY  # markers of several curves stand beside each other
    axes.plot(
        curve.steps, curve.returns.value, color=look.colour, linestyle=look.dashes, linewidth=1.5,
        marker=look.marker, markevery=(start, EVERY), markersize=3.5,
    )  # fmt: skip
    if banded and curve.returns.low is not None and curve.returns.high is not None:
        axes.fill_between(
            curve.steps, curve.returns.low, curve.returns.high, color=look.colour, alpha=0.16, linewidth=0
        )
    elif banded and curve.seeds > 1:
        axes.plot(curve.steps, curve.each, color=look.colour, linewidth=0.6, alpha=0.45)


def what(quantity: str, curves: Sequence[Curve]) -> str:
    """What a curve's height is: of one seed it is no statistic, and the IQM of fewer than four is a mean."""
    seeds = max(curve.seeds for curve in curves)
    if seeds == 1:
        return quantity
    return f"{quantity}, {'mean' if seeds < FEWEST_TRIMMED else 'IQM'} of seeds"


def _spread(curves: Sequence[tuple[Summary, Curve]]) -> list[str]:
    """What shows how the seeds differ: bands, or thin lines where there are too few seeds for one."""
    banded = [curve.returns.low is not None for _, curve in curves]
    thin = [not band and curve.seeds > 1 for band, (_, curve) in zip(banded, curves, strict=True)]
    return ["bands: 95 % intervals"] * any(banded) + ["thin lines: seeds", NO_INTERVAL] * any(thin)


def steps_label(comparison: Comparison, style: Style) -> str:
    """The axis, which says how the curves were smoothed."""
    width = comparison.smooth
    text = "environment steps" + (f" · mean of last {width} logged" if width > 1 else "")
    return wrapped(text, style.letters(0.8 * style.width))


def _counted(summary: Summary, drawn: Sequence[tuple[Summary, Curve]]) -> str:
    """A group's name, with its number of seeds where others have another."""
    seeds = {curve.seeds for _, curve in drawn}
    return (
        summary.group.name if len(seeds) == 1 else f"{summary.group.name} ({_seeds(len(summary.group.runs))})"
    )


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def _title(comparison: Comparison, drawn: Sequence[tuple[Summary, Curve]], style: Style) -> str:
    seeds = {curve.seeds for _, curve in drawn}
    parts = [comparison.env_id, *([_seeds(*seeds)] if len(seeds) == 1 else []), *_spread(drawn)]
    return wrapped(" · ".join(parts), style.letters(style.width))
