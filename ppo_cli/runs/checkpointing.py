"""A run's checkpoints: when they are written, what they hold, and the way back."""

import functools
import logging
import math
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch

from ppo_cli import __version__
from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.snapshot import Lost
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import EnvError, UserCodeError
from ppo_cli.hooks import Hook, RunState, UserHook
from ppo_cli.runs.checkpoint import (
    CheckpointError,
    keep_newest,
    link_checkpoint,
    load_run,
    plain_state,
    save_run,
)
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.folder import RunFolder, identity
from ppo_cli.runs.log import RunLog
from ppo_cli.runs.processes import state_of
from ppo_cli.seeding import spawn_seeds
from ppo_cli.text import flat

if TYPE_CHECKING:
    from ppo_cli.runs.init_from import Beginning

logger = logging.getLogger(__name__)


class CheckpointKeeper(Hook):
    """Writes a run's checkpoints."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        log: RunLog,
        hooks: Sequence[UserHook],
        own_hooks: Mapping[str, Hook],
    ) -> None:
        """Of a run in ``folder``, which is to stay the one that it is now.

        Args:
            config: The config of the run.
            folder: The folder of the run.
            log: The log; what a checkpoint says of its files is true.
            hooks: The user's hooks, whose states are kept.
            own_hooks: The run's own whose states are kept, by name.
        """
        self._config, self._folder, self._log, self._hooks = config, RunFolder(folder), log, hooks
        self._own_hooks = own_hooks
        self._every = config.checkpoint_interval
        self._identity = identity(folder)
        self._best = -math.inf  # the mean return of ``best.pt``

    def start(self, run: RunState) -> None:
        """Saves a run that begins, so that it can be resumed from its start."""
        if not run.iteration:
            self._write(run)
        else:
            self._best = self._kept_best()

    def after_iteration(self, run: RunState, scalars: dict[str, float]) -> None:
        """Saves every ``checkpoint.every`` iterations, when asked to, and at the end."""
        if run.is_over or run.save_asked or run.iteration % self._every == 0:
            self._write(run)

    def after_evaluation(self, run: RunState, evaluation: Evaluation) -> None:
        """Keeps the checkpoint as ``best.pt`` if no evaluation's mean return was as high."""
        if evaluation.mean > self._best:
            self.check_folder()
            self._best = evaluation.mean
            path = self._folder.checkpoint("best")
            save_run(path, self._checkpoint(run))
            run.hooks.after_checkpoint(run, path)

    def _kept_best(self) -> float:
        """The mean return of ``best.pt``, which may be of an evaluation after the checkpoint that goes on."""
        path = self._folder.checkpoint("best")
        try:
            return load_run(path).best if path.is_file() else -math.inf
        except CheckpointError:  # the next one takes its place
            return -math.inf

    def check_folder(self) -> None:
        """Raises OSError where the run's folder is not the one any more that this process holds."""
        path = self._folder.path
        if identity(path) != self._identity:
            raise OSError(f"{path} is another folder than the run began in: it was moved or replaced")

    def _write(self, run: RunState) -> None:
        self.check_folder()
        run.save_asked = False
        path = self._folder.checkpoint(run.steps)
        self._save(run, path)
        keep_newest(self._folder.checkpoints, self._config.checkpoint.keep)
        stopped = run.stopped
        run.hooks.after_checkpoint(run, path)
        if run.stopped != stopped:  # by a hook that was told of it: it is the run's last one
            self._save(run, path)

    def _save(self, run: RunState, path: Path) -> None:
        self._log.sync()  # what a checkpoint says of other files is true after a power cut too
        save_run(path, self._checkpoint(run))
        link_checkpoint(path, self._folder.checkpoint("last").name)

    def _checkpoint(self, run: RunState) -> Checkpoint:
        parts: dict[str, Any] = {**run.agent.state_dict(), **state_of(run)}
        return Checkpoint(
            **parts,
            iteration=run.iteration,
            steps=run.steps,
            best=run.best,
            stopped=run.stopped,
            snapshot_kind=run.collector.envs.snapshot_kind,
            hooks=[{"name": hook.name, "state": _state_of(hook)} for hook in self._hooks],
            own_hooks={name: plain_state(hook.state_dict()) for name, hook in self._own_hooks.items()},
            log=self._log.lengths(),
            config=to_dict(self._config),
            versions=_versions(),
        )


def begin(run: RunState, config: Config, beginning: "Beginning | None" = None) -> None:
    """Starts the environments' first episodes, with what is taken of an earlier run, if anything."""
    run.shards.reset(_seeds(config, 0))
    if beginning is not None:
        beginning.put(run.agent.model, run.shards)


def restore(
    run: RunState,
    config: Config,
    saved: Checkpoint,
    hooks: Sequence[UserHook],
    own_hooks: Mapping[str, Hook],
) -> list[Lost]:
    """Brings a run to a checkpoint.

    Returns:
        The environments that did not come back and begin new episodes.

    Raises:
        CheckpointError: The checkpoint is of another environment or network.
        UserCodeError: A hook of the user's does not take its state.
    """
    state = saved.payload()
    try:
        run.agent.load_state_dict(state)
        lost = run.shards.load_state_dict(state, _seeds(config, saved.iteration))
        for name, own in own_hooks.items():
            if name in saved.own_hooks:  # older checkpoints have none
                own.load_state_dict(saved.own_hooks[name])
    except (EnvError, EnvFaultError, OSError):
        raise
    except Exception as error:  # whatever contents lead to that no schema foresees
        raise CheckpointError(f"the checkpoint does not fit this run's config: {flat(error)}") from error
    run.iteration, run.steps, run.best, run.stopped = saved.iteration, saved.steps, saved.best, saved.stopped
    restore_hooks(hooks, saved.hooks)
    return lost


def restore_hooks(hooks: Sequence[UserHook], states: Sequence[Mapping[str, Any]]) -> None:
    """Gives each hook the state that one of its name had, the first one the first, and says what is left."""
    left = list(states)
    for hook in hooks:
        found = next((each for each in left if each["name"] == hook.name), None)
        if found is not None:
            left.remove(found)
            hook.load_state_dict(found["state"])
    names = ", ".join(each["name"] for each in left if each["state"])
    if names:
        logger.info("the checkpoint has a state of hooks that the run goes on without: %s", names)


def _state_of(hook: UserHook) -> dict[str, Any]:
    """A hook's state as a checkpoint holds it.

    Raises:
        UserCodeError: It can't.
    """
    try:
        return plain_state(hook.state_dict())
    except TypeError as error:
        raise UserCodeError(f"hook {hook.name}: state_dict: {error}") from error


def _seeds(config: Config, iteration: int) -> list[int]:
    """Of the environments' episodes that begin when a run does, or goes on."""
    return spawn_seeds(config.seed, "env", config.n_envs, iteration)


@functools.cache
def _versions() -> dict[str, str]:
    """Versions of what computes, and the commit of this package where it runs from a checkout."""
    checkout = Path(__file__).parents[2]
    commit = ""
    if (checkout / ".git").exists() and shutil.which("git"):
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False
        )
        commit = asked.stdout.strip()
    return {
        "ppo-cli": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }
