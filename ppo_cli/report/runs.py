"""Finding runs below folders, and reading them."""

import math
import os
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ppo_cli.files import NotPlainError
from ppo_cli.report.broken import LARGEST, BrokenRunError, NothingYetError
from ppo_cli.report.knobs import learned, needed, read_config, shown, whole
from ppo_cli.report.metrics import read_metrics
from ppo_cli.runs.folder import RunFolder
from ppo_cli.statistics import Floats

# running: short of its budget, whether it goes on or stands; what stopped itself there is finished
Status = Literal["finished", "running", "failed"]

# What a run's folder holds when it has logged something, and what else says that one with a config ran.
METRICS, CONFIG = RunFolder.metrics_csv.name, RunFolder.config_yaml.name
TOLD = {RunFolder.train_log.name, RunFolder.failed_txt.name}
LAST_SHARE = 0.1  # of the logged returns: what stands for the final return where there is no evaluation
DEEPEST = 60  # folders below the one that is asked for


@dataclass(frozen=True)
class Run:
    """One run as far as it has come.

    Attributes:
        folder: The folder of the run.
        env_id: The id of its environment.
        seed: The run's seed.
        knobs: Every other knob that matters, by dotted name, as it is typed.
        budget: ``total_timesteps``.
        last_step: The environment steps so far.
        steps: The environment steps at each iteration in which an episode ended.
        returns: The mean return of the episodes that ended there.
        speed: The median of the iterations' steps per second.
        cut_episodes: The number of episodes that resuming cut; 0 where the run is as if it had never stopped.
        evaluated: The mean return of the final evaluation, or None.
        evaluation: How its evaluations are made, in words.
        status: "finished" when it trained to its budget or was stopped before, and was evaluated then,
            "failed" when its folder says so, else "running".
        reason: One line on why it failed, or nothing.
        held: Whether a process is known to run it now.
        logged_steps: The environment steps at each iteration.
        infos: The environment's own scalars by their key, at each of ``logged_steps``, or NaN.
        stopped: What ended it before its budget was used up; nothing where nothing did.
    """

    folder: Path
    env_id: str
    seed: int
    knobs: Mapping[str, str]
    budget: int
    last_step: int
    steps: Floats
    returns: Floats
    speed: float
    cut_episodes: int
    evaluated: float | None
    evaluation: str
    status: Status
    reason: str
    held: bool
    logged_steps: Floats
    infos: Mapping[str, Floats]
    stopped: str = ""

    @property
    def final_return(self) -> float:
        """The evaluation's mean, or else the mean of the last tenth of the logged returns."""
        return _last_tenth(self.returns) if self.evaluated is None else self.evaluated

    @property
    def kind(self) -> str:
        """What the final return is of, in words: returns of two kinds are not alike."""
        return "training" if self.evaluated is None else self.evaluation.partition(" ")[2]

    def final_info(self, key: str) -> float:
        """The mean of the last tenth of what was logged of an environment's own scalar; NaN for nothing."""
        values = self.infos.get(key, np.empty(0))
        return _last_tenth(values[np.isfinite(values)])


@dataclass(frozen=True)
class FailedRun:
    """A run that failed before it had anything to compare.

    Attributes:
        folder: The folder of the run.
        env_id: The id of its environment.
        seed: The run's seed.
        knobs: The knobs, as those of a `Run`.
        last_step: The environment steps as far as they are logged.
        reason: One line on why it failed.
    """

    folder: Path
    env_id: str
    seed: int
    knobs: Mapping[str, str]
    last_step: int
    reason: str


def find_runs(roots: Iterable[Path], passed_over: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """Folders at or below ``roots``, links followed, that are runs or look as if they had become one.

    Each comes once, and a link to a folder that it lies in leads nowhere.

    Args:
        roots: The folders to look into.
        passed_over: A function that is told of each folder that can't be read.
    """
    seen = set()
    for root in roots:
        for name, folders, files in os.walk(root, followlinks=True, onerror=passed_over):
            here = Path(name).resolve()
            if here.parts[1:2] in (("proc",), ("sys",)):  # a link to other processes' folders
                folders.clear()
                continue
            if here in seen or (Path(name).is_symlink() and here in Path(name).parent.resolve().parents):
                folders.clear()
                continue
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            # A run that ended before its first row has no metrics.csv; a config alone is no run.
            if METRICS in files or (CONFIG in files and TOLD & set(files)):
                folders.clear()
                yield Path(name)
            if len(Path(name).parts) - len(root.parts) >= DEEPEST:
                folders.clear()
            seen.add(here)


def read_run(folder: Path) -> Run | FailedRun:
    """Reads a run, finished, still going, or failed.

    Raises:
        BrokenRunError: it has no readable config, or nothing to report and no note that it failed.
    """
    reason, own = _failure(folder), RunFolder(folder)
    try:
        knobs = read_config(own.config_yaml)
        env_id, seed = needed(knobs, "env.id"), whole(knobs, "seed")
        budget, trained = whole(knobs, "total_timesteps"), learned(knobs)
        try:
            log = read_metrics(own.metrics_csv)
        except (FileNotFoundError, NothingYetError):
            if not reason:
                raise
            return FailedRun(folder, env_id, seed, trained, 0, reason)
        evaluated, stopped = _read_evaluation(own, log.steps[-1])
    except FileNotFoundError as error:
        raise BrokenRunError(f"it has no {Path(error.filename).name}") from error
    except NotPlainError as error:
        raise BrokenRunError(str(error).removeprefix(f"{folder}{os.sep}")) from error
    except OSError as error:
        raise BrokenRunError(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    last_step = int(log.steps[-1])
    ended = np.isfinite(log.returns)
    if evaluated is None and not ended.any():
        if reason:
            return FailedRun(folder, env_id, seed, trained, last_step, reason)
        raise BrokenRunError("no episode has ended yet")
    sampled = knobs.get("eval.deterministic") == "false"
    return Run(
        folder=folder,
        env_id=env_id,
        seed=seed,
        knobs=trained,
        budget=budget,
        last_step=last_step,
        steps=log.steps[ended],
        returns=log.returns[ended],
        speed=float(np.median(log.speeds)),
        cut_episodes=log.cut_episodes,
        evaluated=evaluated,
        evaluation=f"{knobs.get('eval.episodes')} {'sampled' if sampled else 'deterministic'} episodes",
        status="failed" if reason else "finished" if last_step >= budget or stopped else "running",
        reason=reason,
        held=_is_held(folder),
        logged_steps=log.steps,
        infos=log.infos,
        stopped=stopped if last_step < budget else "",
    )


def _failure(folder: Path) -> str:
    """Why a run failed, in a line; nothing where its folder does not say that it did.

    ``ppo-train`` writes ``failed.txt`` when a run fails, and takes it away when the run goes on.
    """
    own = RunFolder(folder)
    if own.failed_txt.is_file():
        return shown(own.failure or f"{own.failed_txt.name} does not say why")
    # a search notes beside a trial's seeds which of them failed
    seed, _, why = RunFolder(folder.parent).failure.partition(": ")
    return shown(why if seed == folder.name else "")


def _is_held(folder: Path) -> bool:
    """Whether a process runs in a run's folder now; False where that can't be told."""
    if sys.platform != "linux":  # where the lock's layout is known
        return False
    import fcntl  # late: Windows has none

    try:
        descriptor = os.open(RunFolder(folder).lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # asks, and takes nothing
        kind: int = struct.unpack_from("h", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _read_evaluation(folder: RunFolder, last_step: float) -> tuple[float | None, str]:
    """Mean return of the final evaluation, and what stopped the run before its budget was used up.

    None and nothing where there is no evaluation, or the run has gone on since.
    """
    try:  # a ValueError is also what no text raises
        summary = folder.evaluation
        if summary is None:
            return None, ""
        mean, steps = float(summary["mean"]), int(summary["steps"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise BrokenRunError("eval.json is damaged") from error
    if not math.isfinite(mean):
        raise BrokenRunError("the mean of eval.json is not finite")
    if abs(mean) > LARGEST:
        raise BrokenRunError(f"the mean of eval.json is beyond {LARGEST:.0e}")
    return (mean, shown(str(summary.get("stopped", "")))) if steps >= last_step else (None, "")


def _last_tenth(values: Floats) -> float:
    return float(np.mean(values[-math.ceil(LAST_SHARE * len(values)) :])) if len(values) else math.nan
