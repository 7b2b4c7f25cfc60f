"""How all figures look: their size and letters, and what tells groups apart in colour and in grey."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from ppo_cli.report.names import in_lines, wrapped

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2, 2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
GREY = "#777777"
TALLEST = 300.0  # inches; Matplotlib draws no picture of more than 65,536 pixels
MOST_TOGETHER = len(COLOURS)  # curves with bands in one pair of axes
WIDTH, HEIGHT = 8.0, 4.2  # inches
FILES = ("png", "svg", "pdf")
METADATA: dict[str, dict[str, None]] = {  # no dates: the same file every time
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


class Look(NamedTuple):
    """What a group is drawn with, in every figure."""

    colour: str
    dashes: Any
    marker: str


@dataclass(frozen=True)
class Style:
    """What a user may choose.

    Attributes:
        size: The inches, wide and high, of a figure with one pair of axes; one with several keeps the width.
        font_size: The size of letters in points.
    """

    size: tuple[float, float] | None = None
    font_size: float = 9.0

    @property
    def width(self) -> float:
        """The width of every figure, in inches."""
        return self.size[0] if self.size else WIDTH

    @property
    def height(self) -> float:
        """The height of a figure with one pair of axes, in inches."""
        return self.size[1] if self.size else HEIGHT

    @property
    def has_room(self) -> bool:
        """Whether axes and their labels fit."""
        return self.width * 72 >= 20 * self.font_size and self.height * 72 >= 14 * self.font_size

    @property
    def line(self) -> float:
        """Height of a line of text in inches."""
        return 1.35 * self.font_size / 72

    def letters(self, inches: float) -> int:
        """How many letters of the usual size fit."""
        return max(8, int(inches * 72 / (0.56 * self.font_size)))


@contextmanager
def drawing(style: Style) -> Iterator[None]:
    """Matplotlib's settings while figures are drawn and saved."""
    settings: Any = {  # Matplotlib has a type for it that lists every key, in its newest releases only
        "font.size": style.font_size,
        "axes.titlesize": style.font_size + 1,
        "figure.titlesize": style.font_size + 1,
        "axes.labelsize": style.font_size,
        "legend.fontsize": style.font_size,
        "xtick.labelsize": style.font_size - 1,
        "ytick.labelsize": style.font_size - 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.axisbelow": True,
        "savefig.dpi": 150,
        "svg.hashsalt": "ppo-report",  # the same file every time
        "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
        "text.parse_math": False,  # a value with two dollars is no formula
        "figure.constrained_layout.h_pad": 0.06,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks, and of names that leave no room
        yield


def render(figure: Figure, kind: str, style: Style) -> bytes:
    """A figure as a file, one of `FILES`."""
    file = io.BytesIO()
    with drawing(style):
        figure.savefig(file, format=kind, metadata=METADATA[kind])
    return file.getvalue()


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each group by its name; the first 35 differ in colour or dashes, and 280 with markers."""
    return {
        name: Look(COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(dict.fromkeys(names))
    }


def panels(
    style: Style,
    count: int,
    widest: int = 3,
    shape: float = 0.75,
    **shared: Any,  # noqa: ANN401
) -> tuple[Figure, list[Axes]]:
    """A figure with small axes in rows, as many beside each other as its width has room for.

    Args:
        style: The style: its width, and its height where there is one pair of axes.
        count: The number of axes.
        widest: How many are beside each other at most.
        shape: The height of small axes over their width.
        shared: ``sharex`` and ``sharey`` of `Figure.subplots`.
    """
    columns = max(1, min(widest, count, int(style.width / (0.24 * style.font_size))))
    rows = math.ceil(count / columns)
    one = style.height if columns == 1 else shape * style.width / columns + 2 * style.line
    figure = Figure(figsize=(style.width, min(rows * one + style.line, TALLEST)), layout="constrained")
    if count == 1:
        figure.set_size_inches(style.width, style.height)
    grid = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for position, axes in enumerate(grid):
        axes.set_visible(position < count)
        if shared.get("sharex"):
            axes.tick_params(labelbottom=position + columns >= count)  # the lowest that shows of its column
    return figure, grid[:count]


def plain_ticks(axes: Axes, most: int = 5) -> None:
    """Environment steps as ``200k``, and no more of them than there is room for."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(most))


def left_label(figure: Figure, grid: Sequence[Axes], text: str, style: Style) -> None:
    """What the axes of all panels are, beside the first of each row."""
    specification = grid[0].get_subplotspec()
    rows, columns = specification.get_gridspec().get_geometry() if specification else (1, 1)
    for axes in grid[::columns]:
        axes.set_ylabel(wrapped(text, style.letters(0.75 * figure.get_figheight() / rows)))


def name_width(style: Style) -> int:
    """Letters that a group's name has beside rows: two fifths of the figure."""
    return style.letters(0.4 * style.width)


def legend(
    figure: Figure,
    style: Style,
    entries: Mapping[str, Look],
    lines: Sequence[Line2D] = (),
    below: str | None = None,
) -> None:
    """A legend below the axes, in as many columns as there is room for.

    Args:
        figure: The figure to write it into.
        style: The style: its width and letters.
        entries: The groups' looks by their names.
        lines: Further ones, which have a label.
        below: Words for the axes of all panels, between the axes and the legend.
    """
    room = style.letters(style.width)
    handles = [
        Line2D(
            [], [], color=look.colour, linestyle=look.dashes, marker=look.marker, markersize=4,
            label=name,
        )
        for name, look in zip(in_lines(list(entries), room - 6), entries.values(), strict=True)
    ] + list(lines)  # fmt: skip
    if not handles:
        if below is not None:
            figure.supxlabel(below, fontsize=style.font_size)
        return
    longest = max(len(line) for handle in handles for line in str(handle.get_label()).splitlines())
    settings: Any = {
        "handles": handles, "loc": "outside lower center", "frameon": False, "handlelength": 3,
        "columnspacing": 1.2, "title": below, "title_fontsize": style.font_size,
    }  # fmt: skip
    columns = max(1, min(len(handles), room // (longest + 6)))
    while columns > 1 and _is_too_wide(figure, ncols=columns, **settings):  # of names with wide letters
        columns -= 1
    if style.size is None or len(figure.axes) > 1:
        lines_high = sum(1 + str(handle.get_label()).count("\n") for handle in handles) / columns
        figure.set_figheight(min(figure.get_figheight() + math.ceil(lines_high) * style.line, TALLEST))
    figure.legend(ncols=columns, **settings)


def _is_too_wide(figure: Figure, **settings: Any) -> bool:  # noqa: ANN401
    """Whether a legend would be wider than its figure."""
    trial = figure.legend(**settings)
    width = trial.get_window_extent().width
    trial.remove()
    return bool(width > figure.bbox.width)
