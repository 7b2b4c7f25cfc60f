"""All figures of a report, drawn without a display."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from ppo_cli.report.aggregates import Overall
from ppo_cli.report.comparison import Comparison
from ppo_cli.report.figures.curves import all_environments, learning_curves
from ppo_cli.report.figures.finals import final_returns, sample_efficiency, sensitivity
from ppo_cli.report.figures.infos import infos
from ppo_cli.report.figures.overall import aggregates
from ppo_cli.report.figures.style import Style, drawing, looks

USUAL = Style()


def draw(comparison: Comparison, style: Style = USUAL, names: Sequence[str] = ()) -> dict[str, Figure]:
    """The figures that one environment has data for, by their kind.

    Args:
        comparison: The comparison that is drawn.
        style: The size and letters.
        names: The names of the groups of all environments, so that a group looks the same in all of them.
    """
    entries = looks([*names, *(summary.group.name for summary in comparison.summaries)])
    with drawing(style):
        return _laid_out(
            {
                "learning_curves": learning_curves(comparison, entries, style),
                "final_returns": final_returns(comparison, entries, style),
                "sensitivity": sensitivity(comparison, style),
                "sample_efficiency": sample_efficiency(comparison, entries, style),
                "info": infos(comparison, entries, style),
            }
        )


def draw_all(
    comparisons: Sequence[Comparison], overall: Overall | None, style: Style = USUAL
) -> dict[str, Figure]:
    """The figures of several environments, by their kind; none where there is one."""
    names = group_names(comparisons)
    entries = looks([*names, *(group.name for group in overall.groups)] if overall else names)
    with drawing(style):
        return _laid_out(
            {
                "learning_curves": all_environments(comparisons, entries, style),
                "aggregates": aggregates(overall, entries, style) if overall else None,
            }
        )


def group_names(comparisons: Sequence[Comparison]) -> list[str]:
    """The groups of all environments that have another beside them, each once."""
    return list(
        dict.fromkeys(
            summary.group.name
            for comparison in comparisons
            for summary in comparison.summaries
            if summary.group.knobs
        )
    )


def _laid_out(figures: dict[str, Figure | None]) -> dict[str, Figure]:
    """Those that there are, each laid out once, not for each file again."""
    drawn = {kind: figure for kind, figure in figures.items() if figure is not None}
    for figure in drawn.values():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return drawn
