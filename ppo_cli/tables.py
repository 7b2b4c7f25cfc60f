"""Tables of runs and jobs, a row each, that fit the width of where they are printed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ppo_cli.names import MARK, Parts, short_names
from ppo_cli.text import spelled

LEAST_NAME = 12  # characters of a row's name, whatever else there is to show
SOME_NAME = 24  # for which columns are left out that are not needed to tell rows apart
PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)  # `SIMPLE_HEAD` in ASCII
GAP = 2  # cells between two columns


@dataclass(frozen=True)
class Column:
    """A column beside the rows' names.

    Attributes:
        heading: The heading of the column.
        cells: A text for each row.
        rank: Which to leave out first where there is no room for whole names: that of the highest. One of 1
            stays while there is some room for names, and one of 0 always.
        right: Whether it is a number.
        least: The width to keep for it, so that a table that is drawn again and again does not jump.
    """

    heading: str
    cells: Sequence[str]
    rank: int = 0
    right: bool = True
    least: int = 0

    @property
    def width(self) -> int:
        """The width of the column on the terminal, in cells."""
        return GAP + max(self.least, len(self.heading), *map(len, self.cells), 0)


def draw(
    console: Console,
    heading: str,
    names: Sequence[Parts],
    columns: Sequence[Column],
    styles: Sequence[str] | None = None,
    title: str = "",
    caption: str = "",
    shared: Sequence[str] | None = None,
) -> Group:
    """A table as wide as the console at most, in letters that it has.

    Columns are left out where they leave no room for the names, and names are cut where none is left to
    leave out.

    Args:
        console: The console on which it will be printed.
        heading: The heading of the names.
        names: The names of the rows, in parts.
        columns: The columns beside the names.
        styles: The styles of the rows.
        title: The line above it.
        caption: The line below it.
        shared: The parts that the names go without, as in `short_names`.
    """

    def plain(text: str) -> str:
        return spelled(text, console.encoding)

    names = [[plain(part) for part in name] for name in names]
    columns = [replace(c, heading=plain(c.heading), cells=[plain(cell) for cell in c.cells]) for c in columns]
    shared = None if shared is None else [plain(part) for part in shared]
    columns = _that_fit(max(map(len, short_names(names, shared=shared)), default=0), columns, console.width)
    room = max(LEAST_NAME, _room(columns, console.width))
    table = Table(
        box=PLAIN if console.options.ascii_only else SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),  # and one of the box
    )
    table.add_column(Text(heading), no_wrap=True)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(Text(column.heading), justify=justify, no_wrap=True, min_width=column.least)
    rows = zip(
        short_names(names, room, plain(MARK), shared), *(column.cells for column in columns), strict=True
    )
    for row, cells in enumerate(rows):
        table.add_row(*map(Text, cells), style=styles[row] if styles else None)
    # beside the table, as rich would break its own title and caption at the table's width
    around = [Text(plain(line), style="italic") if line else None for line in (title, caption)]
    return Group(*(part for part in (around[0], table, around[1]) if part is not None))


def _that_fit(longest: int, columns: Sequence[Column], width: int) -> list[Column]:
    """The columns for which there is room beside names that are ``longest`` characters at most."""
    kept = list(columns)
    for column in sorted(columns, key=lambda column: -column.rank):
        wanted = longest if column.rank > 1 else min(longest, SOME_NAME)
        if column.rank and _room(kept, width) < wanted:
            kept.remove(column)
    return kept


def _room(columns: Sequence[Column], width: int) -> int:
    """Cells that columns leave for the names."""
    return width - sum(column.width for column in columns)
