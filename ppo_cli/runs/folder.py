"""The one owner of a run's folder: holds it against other processes, and brings it to one state.

Its files are opened by `ppo_cli.files`, inside the folder and never through a link.
"""

import filecmp
import itertools
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ppo_cli.config.quoting import shell_quoted
from ppo_cli.errors import HookError
from ppo_cli.files import printable, read_json, write_whole
from ppo_cli.runs.run_dir import CHECKPOINTS, FAILED, check_own, lock_run
from ppo_cli.text import flat


@contextmanager
def own_run(folder: Path) -> Iterator[None]:
    """Holds a run's folder, in which there is no link, against other processes.

    Raises:
        OSError: another process holds it, or there is a link or a device in it.
    """
    check_own(folder)
    with lock_run(folder):
        yield


@contextmanager
def noted_failure(folder: Path) -> Iterator[None]:
    """Leaves a line on what failed in a run's folder, for `ppo-report`, and takes away that of before."""
    note, own = folder / FAILED, identity(folder)
    with suppress(OSError):
        note.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:  # a run's, PyTorch's, or of code of the user's
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        trace = ""
        if isinstance(error.__cause__, HookError):  # of code of the user's, who wants to know where
            lines = "".join(traceback.format_exception(error.__cause__)).splitlines()
            trace = "\n" + "".join(f"{printable(line)}\n" for line in lines)
        note_failure(folder, own, f"{kind}{printable(flat(error))}\n{trace}")
        raise


def note_failure(folder: Path, own: tuple[int, int], text: str) -> None:
    """Writes why a run failed into its folder, if it is still the one of that `identity`."""
    with suppress(OSError):  # a full disk may be what failed, or that the folder is another by now
        if identity(folder) == own:
            write_whole(folder / FAILED, text)


def identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from any other that may lie at its path later.

    Raises:
        FileNotFoundError: there is none.
    """
    status = folder.stat()
    return status.st_dev, status.st_ino


def repair(folder: Path, steps: int | None, keep: int) -> None:
    """Brings a run's folder to the state of its newest intact checkpoint, wherever the run was killed.

    Args:
        folder: of the run.
        steps: those of that checkpoint; None where there is none and the run begins anew.
        keep: number of checkpoints that are kept.
    """
    from ppo_cli.runs.checkpoint import keep_newest, link_checkpoint, numbered  # late: they bring PyTorch

    for place in (folder, folder / CHECKPOINTS):
        for left in place.glob(".*.tmp"):  # of files that were being written
            if left.is_file():
                left.unlink()
    if steps is None:
        for left in (*folder.glob("events.out.tfevents.*"), folder / "metrics.csv", folder / "eval.json"):
            left.unlink(missing_ok=True)
        return
    newest = folder / CHECKPOINTS / f"{steps}.pt"
    for path in numbered(newest.parent):
        if int(path.stem) > steps:
            path.replace(_unused(path.with_name(f"{path.name}.damaged")))
    last = newest.with_name("last.pt")
    if not (last.is_file() and filecmp.cmp(last, newest, shallow=False)):
        link_checkpoint(newest, last.name)
    keep_newest(newest.parent, keep)


def _unused(path: Path) -> Path:
    others = (path.with_name(f"{path.name}_{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], others) if not name.exists())


def advice_for(folder: Path) -> str:
    """What to do when a run has ended, where there is something to go on from; else nothing."""
    if not (folder / CHECKPOINTS / "last.pt").exists():
        return ""
    return f"`ppo-train resume={shell_quoted(folder)}` goes on from the last checkpoint"


def evaluated_at(folder: Path) -> int | None:
    """Environment steps of the policy that a run's `eval.json` is of; None where there is none."""
    try:
        return int(read_json(folder / "eval.json")["steps"])
    except (OSError, ArithmeticError, ValueError, TypeError, KeyError):
        return None
