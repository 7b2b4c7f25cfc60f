"""Tables of runs and jobs, a row each, that fit the width of where they are printed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ppo_cli.names import Parts, short_names
from ppo_cli.text import spelled

LEAST_NAME = 12  # characters of a row's name, whatever else there is to show
GAP = 2  # cells between two columns


@dataclass(frozen=True)
class Column:
    """A column beside the rows' names.

    Attributes:
        heading: its heading.
        cells: a text for each row.
        rank: which to leave out first where there is no room for names: that of the highest; 0 stays.
        right: whether it is a number.
        least: width to keep for it, so that a table that is drawn again and again does not jump.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = True
    least: int = 0

    @property
    def width(self) -> int:
        """Of the column on the terminal, in cells."""
        return GAP + max(self.least, len(self.heading), *map(len, self.cells), 0)


@dataclass(frozen=True)
class Fit:
    """What fits into a width: the columns, and the names of the rows."""

    columns: Sequence[Column]
    names: list[str]


def fit(names: Sequence[Parts], columns: Sequence[Column], width: int) -> Fit:
    """Chooses the columns for which there is room beside the names, and shortens the names to what is left.

    A name is cut only where no column is left to leave out.

    Args:
        names: of the rows, in parts.
        columns: in their order.
        width: of the terminal.
    """
    wanted = max(map(len, short_names(names)), default=0)
    kept = list(columns)
    for column in sorted(columns, key=lambda column: -column.rank):
        if column.rank and _room(kept, width) < wanted:
            kept.remove(column)
    return Fit(kept, short_names(names, max(LEAST_NAME, _room(kept, width))))


def _room(columns: Sequence[Column], width: int) -> int:
    return width - sum(column.width for column in columns)


def draw(
    console: Console,
    heading: str,
    fitted: Fit,
    styles: Sequence[str] | None = None,
    title: str | None = None,
    caption: str | None = None,
) -> Table:
    """The table, in letters that the console has.

    Args:
        console: where it will be printed.
        heading: of the names.
        fitted: names and columns; those are the rows.
        styles: of the rows.
        title: above it.
        caption: below it.
    """

    def text(plain: str | None) -> Text:
        return Text(spelled(plain or "", console.encoding))

    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # and one of the box
        title=text(title) if title else None,
        caption=text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column(heading, no_wrap=True)
    for column in fitted.columns:
        table.add_column(
            text(column.heading),
            justify="right" if column.right else "left",
            no_wrap=True,
            min_width=column.least,
        )
    for row, cells in enumerate(_rows(fitted)):
        table.add_row(*map(text, cells), style=styles[row] if styles else None)
    return table


def _rows(fitted: Fit) -> Iterator[tuple[str, ...]]:
    return zip(fitted.names, *(column.cells for column in fitted.columns), strict=True)
