"""A run's metrics.csv, as far as a report needs it."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ppo_cli.files import read_text
from ppo_cli.report.broken import LARGEST, LONGEST, MOST_INFOS, MOST_STEPS, BrokenRunError, NothingYetError
from ppo_cli.report.knobs import shown
from ppo_cli.statistics import Floats

COLUMNS = ("step", "charts/episodic_return", "charts/SPS")
CUT = "charts/cut_episodes"
INFO = "info/"  # what the columns of an environment's own scalars begin with


class Log(NamedTuple):
    """What is read of a metrics.csv, a value for each iteration, where an empty cell is NaN."""

    steps: Floats
    returns: Floats
    speeds: Floats
    cut_episodes: int
    infos: dict[str, Floats]


def read_metrics(path: Path) -> Log:
    """Reads a metrics.csv.

    Raises:
        NothingYetError: it has no row.
        BrokenRunError: it is damaged.
        OSError: it can't be read.
    """
    try:
        text = read_text(path, LONGEST)
    except UnicodeDecodeError as error:
        raise BrokenRunError("metrics.csv is no text") from error
    whole = text[: text.rfind("\n") + 1]  # what follows is a row that is being written
    rows = csv.reader(io.StringIO(whole))
    try:
        header = _checked(next(rows, []))
        keys = [name for name in header if name.startswith(INFO) and header.count(name) == 1][:MOST_INFOS]
        values = list(_cells(rows, header, keys))
    except (ValueError, IndexError, csv.Error) as error:
        if isinstance(error, BrokenRunError):
            raise
        raise BrokenRunError(f"metrics.csv is damaged in line {rows.line_num}") from error
    if not values:
        raise NothingYetError("no iteration has ended yet")
    steps, returns, speeds, cuts, *infos = np.array(values).T
    if np.isinf(returns).any():
        raise BrokenRunError("metrics.csv has an infinite charts/episodic_return")
    if not (np.diff(steps, prepend=0) > 0).all():
        raise BrokenRunError("the steps of metrics.csv do not rise")
    for column, numbers, most in zip(
        COLUMNS, (steps, returns, speeds), (MOST_STEPS, LARGEST, LARGEST), strict=True
    ):
        if (np.abs(numbers) > most).any():
            raise BrokenRunError(f"metrics.csv has a {column} beyond {most:.0e}")
    return Log(
        steps=steps,
        returns=returns,
        speeds=speeds,
        cut_episodes=int(np.nan_to_num(cuts[-1], posinf=0.0, neginf=0.0)),
        infos={
            shown(key.removeprefix(INFO)): np.where(np.abs(column) <= LARGEST, column, np.nan)
            for key, column in zip(keys, infos, strict=True)
        },
    )


def _checked(header: list[str]) -> list[str]:
    """The header of a metrics.csv; raises BrokenRunError where it lacks one of `COLUMNS`, or has it twice."""
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise BrokenRunError(f"metrics.csv has no column {missing[0]}" if header else "metrics.csv is empty")
    twice = [column for column in COLUMNS if header.count(column) > 1]
    if twice:
        raise BrokenRunError(f"metrics.csv has the column {twice[0]} twice")
    return header


def _cells(rows: Iterator[list[str]], header: list[str], infos: Sequence[str]) -> Iterator[list[float]]:
    """The numbers of `COLUMNS`, `CUT` and the environment's own scalars, row by row."""
    places = [header.index(column) for column in COLUMNS]
    cut = header.index(CUT) if CUT in header else None  # an older version's runs have none
    others = [header.index(key) for key in infos]
    for row in rows:
        yield [
            *(float(row[place] or "nan") for place in places),
            0.0 if cut is None else float(row[cut]),
            *(float(row[place] or "nan") for place in others),
        ]
