"""How a sweep or a search ends: by a signal, with what to type then, or with a table of what failed."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ppo_cli.config.quoting import shell_quoted
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.signals import StopSignal
from ppo_cli.text import words_in


def stoppable(folder: Path, what: str) -> StopSignal:
    """What a stop signal does to a sweep or a search in a folder; while a run trains, its own takes over."""
    advice = f"`ppo-train sweep.resume={shell_quoted(folder)}` goes on with the {what}"
    return StopSignal(lambda: advice, at_once=True)


def failed_table(folder: Path, names: Sequence[str]) -> str:
    """What failed and why, a line each, to stand below a message; on a terminal broken between words.

    Args:
        folder: The folder of the sweep or the search.
        names: The names of the folders in it of what failed.
    """
    width = max(map(len, names), default=0)
    rows = [f"  {name:{width}}  {reason(folder / name)}" for name in names]
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        rows = [line for row in rows for line in words_in(row.strip(), columns, 2, 4)]
    return "".join(f"\n{row}" for row in rows)


def reason(folder: Path) -> str:
    """Why what ran in a folder did not finish, in a line, without how to go on with it alone."""
    run = RunFolder(folder)
    return run.failure or f"it did not finish; {run.train_log} may say why"
