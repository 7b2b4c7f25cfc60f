"""One job of a sweep or a search: a run that begins, or goes on where its folder says it stopped."""

import logging
import os
import traceback
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from ppo_cli.config.convert import parse
from ppo_cli.config.presets import preset_words
from ppo_cli.config.schema import Config
from ppo_cli.envs.backends import backend
from ppo_cli.envs.workers import end_with_parent
from ppo_cli.errors import ConfigError, EnvError, RunError
from ppo_cli.files import make_folder, printable
from ppo_cli.runs.beside import run_beside, runs_beside
from ppo_cli.runs.caller import Caller
from ppo_cli.runs.folder import RunFolder, identity, note_failure
from ppo_cli.runs.resume import resume_as
from ppo_cli.runs.signals import StopSignal
from ppo_cli.runs.streams import logging_to
from ppo_cli.schedules import trained_steps
from ppo_cli.terminal import replace_unprintable
from ppo_cli.text import flat

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of a sweep, or of a trial: the same one where it was typed so, whatever presets said then.

    Attributes:
        folder: The name of its folder, in that of the sweep or the trial.
        overrides: The overrides as typed, but for settings of Hydra's.
        config: The config that they make.
    """

    folder: str
    overrides: list[str]
    config: dict[str, Any] = field(compare=False)

    @property
    def steps(self) -> int:
        """Environment steps of the whole job, in whole iterations."""
        asked, n_envs, n_steps = (int(self.config[key]) for key in ("total_timesteps", "n_envs", "n_steps"))
        return trained_steps(asked, n_envs, n_steps, filled=backend(self.config["vectorization"]).fills)

    @property
    def evaluated(self) -> bool:
        """Whether it is evaluated at its end."""
        return bool(self.config["eval"]["episodes"])


def begin_or_go_on(config: Config, folder: Path, caller: Caller, logged: bool = False) -> None:
    """Runs what is missing of a job.

    Args:
        config: The config to run; where the folder has a run already, with the same knobs.
        folder: The folder of the job, which exists.
        caller: The caller that runs it.
        logged: Whether Hydra has set up the log of a run that begins.

    Raises:
        Interrupted: a signal ended it; it can go on.
        RunError: it can't go on.
    """
    run_folder = RunFolder(folder)
    if runs_beside(config, caller):
        run_beside(config, folder, caller)
        return
    if run_folder.is_run:
        resume_as(folder, config, caller)
        return
    from ppo_cli.runs.run import run  # late: it brings PyTorch

    with nullcontext() if logged else logging_to(run_folder.train_log, verbose=caller.live):
        run(config, folder, caller=caller)


def run_job(composed: DictConfig, watching: int | None = None) -> float:
    """One job, in whatever process a launcher has for it: what Hydra calls with the composed config.

    A failure is noted in the job's folder and not raised, so that the other jobs go on.

    Args:
        composed: The composed config.
        watching: The process of a sweep whose table shows the job, which then says only warnings itself.

    Returns:
        The evaluation's mean return, which another sweeper maximises; NaN where there is none.
    """
    if watching is not None:
        _be_watched(watching)
    replace_unprintable()  # in a launcher's process
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    own, run, live = identity(folder), RunFolder(folder), watching is None
    StopSignal.check()
    try:
        run.failed_txt.unlink(missing_ok=True)
        config = run.config if run.is_run else parse(composed)
        begin_or_go_on(config, folder, Caller(live, preset_words()), logged=True)
        return float((run.evaluation or {}).get("mean", "nan"))
    except Exception as error:
        StopSignal.check()
        logger.log(logging.ERROR if live else logging.INFO, "%s failed: %s", folder, one_line(error))
        note_failure(folder, own, failure_note(error))
        return float("nan")


def _be_watched(sweep: int) -> None:
    if os.getppid() == sweep:  # a worker of joblib's, which would go on alone after a `kill -9` of the sweep
        end_with_parent()
    logging.raiseExceptions = False  # as in the process of the sweep: what can't be logged ends no job
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.WARNING)


def own_folder(path: Path) -> None:
    """`make_folder`, for a command line: raises ConfigError where what lies there leads elsewhere."""
    try:
        make_folder(path)
    except OSError as error:
        raise ConfigError(str(error)) from error


def say_imports(lines: Iterable[str]) -> None:
    """Says, each once, what stored configs have imported, before it is."""
    for line in dict.fromkeys(lines):
        print(line, flush=True)


def failure_note(error: BaseException) -> str:
    """What a folder keeps of an error that is being handled: a line, and its traceback."""
    return f"{one_line(error)}\n\n{traceback.format_exc()}"


def one_line(error: BaseException) -> str:
    """An error in one line, with its type where the text is not made for a user."""
    text = printable(flat(error))
    ours = isinstance(error, (RunError, ConfigError, EnvError, HydraException))
    return text if ours else f"{type(error).__name__}: {text}"
