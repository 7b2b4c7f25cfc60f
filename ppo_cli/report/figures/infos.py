"""What an environment says of itself in `info`, over the course of training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ppo_cli.report.comparison import Comparison, Curve
from ppo_cli.report.figures.curves import axes_width, draw_curve, steps_label, what
from ppo_cli.report.figures.style import Look, Style, legend, panels, plain_ticks
from ppo_cli.report.names import wrapped
from ppo_cli.report.rows import info_keys
from ppo_cli.report.runs import Run
from ppo_cli.report.statistics import Estimate, common_span, interpolate, smoothed
from ppo_cli.statistics import Floats, iqm

MOST_KEYS = 24  # of info that are drawn


def infos(comparison: Comparison, entries: Mapping[str, Look], style: Style) -> Figure | None:
    """A pair of small axes for each key of `info`, a curve a group; None where runs have none."""
    drawn = [
        (key, [(summary.group.name, curve) for summary in comparison.summaries
               if (curve := info_curve(summary.group.runs, key, comparison.smooth)) is not None])
        for key in info_keys([run for summary in comparison.summaries for run in summary.group.runs])
    ]  # fmt: skip
    drawn = [(key, curves) for key, curves in drawn if curves][:MOST_KEYS]
    if not drawn:
        return None
    figure, grid = panels(style, len(drawn))
    for axes, (key, curves) in zip(grid, drawn, strict=True):
        for name, curve in curves:
            draw_curve(axes, curve, entries[name])
        axes.set_title(wrapped(key, style.letters(axes_width(figure, grid))))
        plain_ticks(axes, 4)
    every = [curve for _, curves in drawn for _, curve in curves]
    figure.suptitle(wrapped(f"{comparison.env_id} · {what('info', every)}", style.letters(style.width)))
    names = list(dict.fromkeys(name for _, curves in drawn for name, _ in curves))
    shown = {name: entries[name] for name in names} if len(names) > 1 else {}
    legend(figure, style, shown, below=steps_label(comparison, style))
    return figure


def info_curve(runs: Sequence[Run], key: str, smooth: int) -> Curve | None:
    """A learning curve of what runs logged under a key, without an interval; None without common steps."""
    curves = [_smoothed(run, key, smooth) for run in runs if key in run.infos]
    span = common_span(curves)
    if span is None:
        return None
    steps, values = interpolate(curves, span)
    return Curve(steps, Estimate(iqm(values)), values)


def _smoothed(run: Run, key: str, smooth: int) -> tuple[Floats, Floats]:
    logged = np.isfinite(run.infos[key])
    values = smoothed(run.infos[key][logged], smooth)
    steps = run.logged_steps[logged]
    return steps[len(steps) - len(values) :], values
