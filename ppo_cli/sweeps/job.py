"""One job of a sweep or a search: a run that begins, or goes on where its folder says it stopped."""

import logging
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from ppo_cli.config.convert import from_stored, load_yaml, parse
from ppo_cli.config.presets import preset_words
from ppo_cli.config.schema import Config, ConfigError
from ppo_cli.envs.make import EnvError
from ppo_cli.envs.workers import end_with_parent
from ppo_cli.errors import RunError
from ppo_cli.files import printable, read_json
from ppo_cli.runs.endings import StopSignal
from ppo_cli.runs.folder import evaluated_at, identity, note_failure
from ppo_cli.runs.resume import resume_as
from ppo_cli.runs.run_dir import FAILED, is_hydra
from ppo_cli.schedules import trained_steps
from ppo_cli.terminal import replace_unprintable
from ppo_cli.text import flat

if TYPE_CHECKING:
    from ppo_cli.runs.run import Watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of a sweep, or of a trial.

    Attributes:
        folder: The name of its folder, in that of the sweep or the trial.
        overrides: Its overrides, as typed.
        config: The config that they make.
    """

    folder: str
    overrides: list[str]
    config: dict[str, Any]

    @property
    def knobs(self) -> list[str]:
        """Its overrides, but for settings of Hydra's."""
        return [override for override in self.overrides if not is_hydra(override)]

    @property
    def steps(self) -> int:
        """Environment steps of the whole job, in whole iterations."""
        asked, n_envs, n_steps = (int(self.config[key]) for key in ("total_timesteps", "n_envs", "n_steps"))
        return trained_steps(asked, n_envs, n_steps, filled=self.config["vectorization"] == "envpool")

    @property
    def evaluated(self) -> bool:
        """Whether it is evaluated at its end."""
        return bool(self.config["eval"]["episodes"])


def begin_or_go_on(
    config: Config, folder: Path, live: bool = False, watch: "Watch | None" = None, preset: str = ""
) -> None:
    """Runs what is missing of a job.

    Args:
        config: What to run; where the folder has a run already, with the same knobs.
        folder: The folder of the job, which exists.
        live: Whether the job has the terminal to itself.
        watch: Is called with every evaluation.
        preset: The config's preset, in words for the first line of a run that begins.

    Raises:
        Interrupted: a signal ended it; it can go on.
        RunError: it can't go on.
    """
    if (folder / "config.yaml").exists():
        resume_as(folder, config, live, watch)
    else:
        from ppo_cli.runs.run import run  # late: it brings PyTorch

        run(config, folder, live=live, watch=watch, preset=preset)


def run_job(composed: DictConfig) -> float:
    """One job, in whatever process a launcher has for it: what Hydra calls with the composed config.

    A failure is noted in the job's folder and not raised, so that the other jobs go on.

    Returns:
        The evaluation's mean return, which a search maximises; NaN where there is none.
    """
    return _run_noted(composed, live=True)


def run_watched(parent: int, composed: DictConfig) -> float:
    """`run_job` for a job that a table shows: what it says is in its train.log, and only warnings elsewhere.

    Args:
        parent: The process of the sweep; a worker of its own would go on alone after a `kill -9` of it.
        composed: The composed config.
    """
    if os.getppid() == parent:
        end_with_parent()
    logging.raiseExceptions = False  # as in the process of the sweep: what can't be logged ends no job
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.WARNING)
    return _run_noted(composed, live=False)


def _run_noted(composed: DictConfig, live: bool) -> float:
    replace_unprintable()  # in a launcher's process
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    own, stored = identity(folder), folder / "config.yaml"
    StopSignal.check()
    try:
        (folder / FAILED).unlink(missing_ok=True)
        config = from_stored(load_yaml(stored)) if stored.exists() else parse(composed)
        begin_or_go_on(config, folder, live, preset=preset_words())
        evaluation = folder / "eval.json"
        return float(read_json(evaluation)["mean"]) if evaluation.exists() else float("nan")
    except Exception as error:
        StopSignal.check()
        logger.log(logging.ERROR if live else logging.INFO, "%s failed: %s", folder, one_line(error))
        note_failure(folder, own, failure_note(error))
        return float("nan")


def failure_note(error: BaseException) -> str:
    """What a folder keeps of an error that is being handled: a line, and its traceback."""
    return f"{one_line(error)}\n\n{traceback.format_exc()}"


def one_line(error: BaseException) -> str:
    """An error in one line, with its type where the text is not made for a user."""
    text = printable(flat(error))
    ours = isinstance(error, (RunError, ConfigError, EnvError, HydraException))
    return text if ours else f"{type(error).__name__}: {text}"


def is_finished(folder: Path) -> bool:
    """Whether a run has trained to its budget and is evaluated."""
    from ppo_cli.runs.checkpoint import CheckpointError, load_newest  # late: they bring PyTorch

    try:
        saved, _ = load_newest(folder / "checkpoints")
        if saved is None:
            return False
        config = from_stored(load_yaml(folder / "config.yaml"))
    except (CheckpointError, ConfigError, OSError):  # the job itself says what is wrong
        return False
    evaluated = not config.eval.episodes or evaluated_at(folder) == saved["steps"]
    return bool(saved["steps"] >= config.total_timesteps and evaluated)
