"""The face: `train`, `resume`, `load`, `evaluate` and `read` from Python, as the commands do it.

`import ppo_cli` alone imports none of this; docs/python.md shows it at work.
"""

import csv
import io
import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ppo_cli.config.schema import Config, ConfigError
from ppo_cli.episodes import Evaluation
from ppo_cli.files import read_text
from ppo_cli.runs.build import env_maker, on_error_of, wanted_infos
from ppo_cli.runs.evaluation import evaluate as run_episodes
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.policy import Policy, load_policy

Folder = str | PathLike[str]
LONGEST = 256 * 2**20  # bytes of a metrics.csv: a million iterations


@dataclass(frozen=True, repr=False)
class Run:
    """What a run's folder holds.

    Attributes:
        folder: The folder.
        config: The run's config; every knob is an attribute, ``config.clip_ratio``, ``config.eval.episodes``.
        metrics: What was logged, a float64 array [I] for I iterations by tag (``charts/episodic_return``,
            ``losses/entropy``, …), with ``step`` and ``iteration`` beside them; NaN where an iteration has no
            value.
        evaluation: The final evaluation; None for a run that has none yet.
        checkpoints: The environment steps of the checkpoints that are kept, in rising order.
    """

    folder: Path
    config: Config
    metrics: dict[str, npt.NDArray[np.float64]]
    evaluation: Evaluation | None
    checkpoints: tuple[int, ...]

    def __repr__(self) -> str:
        """One line: the environment, how far it is, and the evaluation's mean return."""
        steps = self.metrics["step"]
        done = f"{int(steps[-1]) if len(steps) else 0:,} steps"
        found = "" if self.evaluation is None else f", return {self.evaluation.mean:.4g}"
        return f"Run({self.config.env.id}, {done}{found}, {str(self.folder)!r})"


def read(folder: Folder) -> Run:
    """Reads a run's folder, finished or not.

    Args:
        folder: The run's folder, as `train` returns it or ``ppo-train`` prints it.

    Raises:
        ConfigError: There is no run in it, or a file of it is damaged.
    """
    run = RunFolder(Path(folder))
    run.check()
    steps = (int(file.stem) for file in run.checkpoints.glob("*.pt") if file.stem.isdigit())
    return Run(
        run.path,
        run.config,
        _read_metrics(run.metrics_csv),
        _read_evaluation(run),
        tuple(sorted(steps)),
    )


def load(folder: Folder | Run, checkpoint: Literal["last", "best"] | int = "last") -> Policy:
    """Loads the policy of a run, to act with.

    Args:
        folder: The run, its folder, or a checkpoint file.
        checkpoint: Which of the run's checkpoints: ``"last"``, ``"best"`` (by evaluations on the way), or a
            number of environment steps.

    Raises:
        RunError: There is no such checkpoint, or it is damaged.
        ConfigError: The network does not fit its environment.
        EnvError: The environment can't be made.
    """
    path = folder.folder if isinstance(folder, Run) else Path(folder)
    if path.is_dir():
        path = RunFolder(path).checkpoint(checkpoint)
    return load_policy(path)


def evaluate(
    policy: Policy | Run | Folder,
    episodes: int | None = None,
    seed: int | None = None,
    deterministic: bool | None = None,
    checkpoint: Literal["last", "best"] | int = "last",
) -> Evaluation:
    """Evaluates a policy over whole episodes, as a run does at its end and ``ppo-eval`` does later.

    With the defaults the returns are those of the run's own evaluation, bit for bit.

    Args:
        policy: A policy, or the run or folder that holds it.
        episodes: How many, at least 1; None for the run's ``eval.episodes``.
        seed: The evaluation's seed; None for the run's ``eval.seed``.
        deterministic: Whether to take the most probable actions; None for the run's ``eval.deterministic``.
        checkpoint: Which of a run's checkpoints, see `load`.

    Raises:
        ConfigError: ``episodes`` is below 1.
        EnvFaultError: An environment raised.
    """
    if not isinstance(policy, Policy):
        policy = load(policy, checkpoint)
    config = policy.config
    wanted = config.eval.episodes if episodes is None else episodes
    if wanted < 1:
        raise ConfigError(f"episodes={wanted}: expected at least 1")
    return run_episodes(
        policy.batch,
        env_maker(config.env),
        wanted,
        config.eval.seed if seed is None else seed,
        config.eval.deterministic if deterministic is None else deterministic,
        config.eval.max_steps,
        on_error=on_error_of(config.env),
        infos=wanted_infos(config),
    )


def _read_metrics(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    if not path.is_file():
        return {"iteration": np.zeros(0), "step": np.zeros(0)}
    header, *rows = csv.reader(io.StringIO(read_text(path, LONGEST)))
    whole = [row for row in rows if len(row) == len(header)]  # the last may be on its way
    try:
        columns = [
            [float(cell) if cell else math.nan for cell in column] for column in zip(*whole, strict=True)
        ]
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    return {
        name: np.array(column) for name, column in zip(header, columns or [[]] * len(header), strict=True)
    }


def _read_evaluation(folder: RunFolder) -> Evaluation | None:
    try:
        found = folder.evaluation
        return (
            None if found is None else Evaluation(found["returns"], found["lengths"], found.get("info", {}))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder.eval_json} is damaged: {error}") from error
