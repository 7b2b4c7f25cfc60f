"""A run's folder: the one room that knows the names of its files, reads them, holds it and repairs it.

Its files are opened by `ppo_cli.files`, inside the folder and never through a link. PyTorch is imported late,
where a checkpoint is read.
"""

import filecmp
import itertools
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ppo_cli.config.convert import from_stored, load_yaml
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError, UserCodeError
from ppo_cli.files import (
    NotPlainError,
    first_line,
    lock_file,
    make_folder,
    printable,
    read_json,
    write_whole,
)
from ppo_cli.text import flat

if TYPE_CHECKING:
    from ppo_cli.runs.checkpoint import Newest
    from ppo_cli.runs.checkpoint_schema import Checkpoint

ADVICE = "`ppo-train resume="  # what the advice that an error ends in begins with


@dataclass(frozen=True)
class Inside:
    """A place in any run's folder, by its name; asked of one folder, its path there."""

    name: str

    @overload
    def __get__(self, folder: None, owner: type) -> "Inside": ...
    @overload
    def __get__(self, folder: "RunFolder", owner: type) -> Path: ...
    def __get__(self, folder: "RunFolder | None", owner: type) -> "Path | Inside":
        """The path in a folder; the place itself where no folder is asked."""
        return self if folder is None else folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: where its files lie, and what they say. Making one reads nothing.

    Attributes:
        path: The path of the folder.
    """

    path: Path

    config_yaml = Inside("config.yaml")  # the resolved config
    overrides_yaml = Inside(".hydra/overrides.yaml")  # what was typed
    metrics_csv = Inside("metrics.csv")  # a row an iteration
    eval_json = Inside("eval.json")  # the final evaluation: that it is there says that the run is finished
    failed_txt = Inside("failed.txt")  # why the run failed, in its first line
    train_log = Inside("train.log")  # what was said
    checkpoints = Inside("checkpoints")
    hydra = Inside(".hydra")
    videos = Inside("videos")
    lock = Inside(".lock")

    @property
    def is_run(self) -> bool:
        """Whether a run has begun there."""
        return self.config_yaml.is_file()

    @property
    def is_taken(self) -> bool:
        """Whether there is anything that a run which begins would replace."""
        files = (self.checkpoints, self.config_yaml, self.metrics_csv, self.eval_json)
        return any(file.exists() for file in files)

    @property
    def has_trained(self) -> bool:
        """Whether a run that was there has left a row of metrics or an evaluation."""
        if self.eval_json.exists():
            return True
        if not self.metrics_csv.exists():
            return False
        with self.metrics_csv.open("rb") as file:
            return bool(file.readline() and file.readline())

    @property
    def config(self) -> Config:
        """The run's config.

        Raises:
            ConfigError: there is none, or it is not that of a run.
        """
        return from_stored(load_yaml(self.config_yaml))

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """What is kept of the final evaluation; None where there is none.

        Raises:
            ValueError: it is damaged.
            OSError: it can't be read.
        """
        try:
            found = read_json(self.eval_json)
        except FileNotFoundError:
            return None
        if not isinstance(found, dict):
            raise ValueError(f"{self.eval_json} holds no mapping")
        return found

    @property
    def evaluated_at(self) -> int | None:
        """The environment steps of the policy that the final evaluation is of; None where there is none."""
        try:
            return int((self.evaluation or {})["steps"])
        except (OSError, ArithmeticError, ValueError, TypeError, KeyError):
            return None

    @property
    def failure(self) -> str:
        """Why the run failed, in a line without how to go on; nothing where the folder does not say."""
        return first_line(self.failed_txt).partition(f"; {ADVICE}")[0]

    def check(self, typed: str = "") -> None:
        """Raises ConfigError where no run has begun there; ``typed`` is what the path was typed behind."""
        if not self.is_run:
            raise ConfigError(f"{typed}{self.path}: no run there (no config.yaml); runs lie below outputs/")

    def checkpoint(self, which: str | int = "last") -> Path:
        """The path of a checkpoint: ``last``, ``best`` or that of a number of steps."""
        return self.checkpoints / f"{which}.pt"

    def find_checkpoint(self, which: str | int = "last") -> Path:
        """`checkpoint` where there is one.

        Raises:
            ConfigError: there is none; with those that there are.
        """
        self.check()
        path = self.checkpoint(which)
        if not path.is_file():
            names = [file.stem for file in path.parent.glob("*.pt")]
            names.sort(key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
            why = " (best.pt needs an evaluation: eval.every, eval.episodes)" if which == "best" else ""
            raise ConfigError(
                f"{self.path} has no checkpoint {which}{why}; it has {', '.join(names) or 'none'}"
            )
        return path

    def newest(self) -> "Newest":
        """The newest intact checkpoint, and a line on each newer one that is damaged.

        Raises:
            CheckpointError: as `ppo_cli.runs.checkpoint.load_newest`.
        """
        from ppo_cli.runs.checkpoint import load_newest  # late: it brings PyTorch

        return load_newest(self.checkpoints)

    def has_reached(self, saved: "Checkpoint", config: Config) -> bool:
        """Whether a run has trained to its config's budget, or was stopped before, and it is evaluated."""
        evaluated = not config.eval.episodes or self.evaluated_at == saved.steps
        return evaluated and (saved.steps >= config.total_timesteps or bool(saved.stopped))

    @property
    def is_finished(self) -> bool:
        """Whether the run has trained to its end and is evaluated, by its newest intact checkpoint.

        Of a run whose checkpoints are gone the evaluation says so.
        """
        from ppo_cli.runs.checkpoint import CheckpointError  # late: it brings PyTorch

        try:
            saved, _ = self.newest()
            if saved is None:
                is_stopped = bool((self.evaluation or {}).get("stopped"))
                return is_stopped or (self.evaluated_at or 0) >= self.config.total_timesteps
            return self.has_reached(saved, self.config)
        except (CheckpointError, ConfigError, OSError, ValueError):  # going on with it says what is wrong
            return False

    def check_own(self) -> None:
        """Raises NotPlainError where something in the folder is neither a plain file nor a folder."""
        for folder in (self.path, self.checkpoints, self.hydra, self.videos):
            if folder == self.path or folder.is_symlink() or folder.exists():
                make_folder(folder)
        files = (self.lock, self.config_yaml, self.eval_json, self.metrics_csv, self.train_log)
        for file in (*files, self.checkpoint("last"), self.checkpoint("best")):
            if file.is_dir():
                raise NotPlainError(f"{file} is a folder, where a plain file is expected; remove it")


def run_of(checkpoint: Path) -> RunFolder | None:
    """The folder of the run that a checkpoint's file lies in; None where it lies elsewhere."""
    run = RunFolder(checkpoint.parent.parent)
    return run if checkpoint.parent == run.checkpoints and run.is_run else None


def find_checkpoint(run: Path, which: str | None) -> Path:
    """The checkpoint file of a run, by its folder, or the file itself.

    Args:
        run: The folder or file.
        which: ``last``, ``best`` or a number of steps; None is ``last``.

    Raises:
        ConfigError: there is none; with those that there are.
    """
    if run.is_file():
        if which is not None:
            raise ConfigError(f"--checkpoint {which} chooses among those of a run, and {run} is a file")
        return run
    if not run.exists():
        hint = "; arguments of the environment follow --env-kwargs" if "=" in run.name else ""
        raise ConfigError(f"{run}: no such folder or file{hint}")
    return RunFolder(run).find_checkpoint(which or "last")


def without_others(typed: Sequence[str]) -> list[str]:
    """The runs among several words: what a pattern such as ``SWEEP/*`` finds beside them is left out."""
    runs = [run for run in typed if not _is_beside_runs(Path(run))]
    return runs if len(typed) > 1 and runs else list(typed)


def _is_beside_runs(path: Path) -> bool:
    """Whether a path is what a sweep, a search or a report leaves in a folder of runs."""
    own = path.is_dir() if path.name == "report" else path.is_file() and path.suffix != ".pt"
    others = (RunFolder(beside) for beside in path.parent.iterdir()) if own else ()
    return own and not RunFolder(path).is_run and any(other.is_run for other in others)


@contextmanager
def own_run(folder: Path) -> Iterator[None]:
    """Holds a run's folder, in which there is no link, against other processes.

    Raises:
        OSError: another process holds it, or there is a link or a device in it.
    """
    RunFolder(folder).check_own()
    with lock_run(folder):
        yield


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Holds a folder of a run, or of a sweep, against other processes.

    Raises:
        OSError: another process holds it.
    """
    with lock_file(RunFolder(folder).lock, f"{folder} is in use by another process; wait for it, or end it"):
        yield


@contextmanager
def noted_failure(folder: Path) -> Iterator[None]:
    """Leaves a line on what failed in a run's folder, for `ppo-report`, and takes away that of before."""
    own = identity(folder)
    with suppress(OSError):
        RunFolder(folder).failed_txt.unlink(missing_ok=True)
    try:
        yield
    except Exception as error:  # a run's, PyTorch's, or of code of the user's
        kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        trace = ""
        if isinstance(error.__cause__, UserCodeError):  # of code of the user's, who wants to know where
            lines = "".join(traceback.format_exception(error.__cause__)).splitlines()
            trace = "\n" + "".join(f"{printable(line)}\n" for line in lines)
        note_failure(folder, own, f"{kind}{printable(flat(error))}\n{trace}")
        raise


def note_failure(folder: Path, own: tuple[int, int], text: str) -> None:
    """Writes why a run failed into its folder, if it is still the one of that `identity`."""
    with suppress(OSError):  # a full disk may be what failed, or that the folder is another by now
        if identity(folder) == own:
            write_whole(RunFolder(folder).failed_txt, text)


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
        folder: The folder of the run.
        steps: The steps of that checkpoint; None where there is none and the run begins anew.
        keep: The number of checkpoints that are kept.
    """
    from ppo_cli.runs.checkpoint import keep_newest, link_checkpoint, numbered  # late: they bring PyTorch

    run = RunFolder(folder)
    for place in (folder, run.checkpoints):
        for left in place.glob(".*.tmp"):  # of files that were being written
            if left.is_file():
                left.unlink()
    if steps is None:
        for left in (*folder.glob("events.out.tfevents.*"), run.metrics_csv, run.eval_json):
            left.unlink(missing_ok=True)
        return
    newest = run.checkpoint(steps)
    for path in numbered(run.checkpoints):
        if int(path.stem) > steps:
            path.replace(_unused(path.with_name(f"{path.name}.damaged")))
    last = run.checkpoint("last")
    if not (last.is_file() and filecmp.cmp(last, newest, shallow=False)):
        link_checkpoint(newest, last.name)
    keep_newest(run.checkpoints, keep)


def _unused(path: Path) -> Path:
    others = (path.with_name(f"{path.name}_{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], others) if not name.exists())


def advice_for(folder: Path) -> str:
    """What to do when a run has ended, where there is something to go on from; else nothing."""
    if not RunFolder(folder).checkpoint("last").exists():
        return ""
    return f"{ADVICE}{shell_quoted(folder)}` goes on from the last checkpoint"
