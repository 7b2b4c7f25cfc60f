"""A run's checkpoints: when they are written, what they hold, and the way back."""

import functools
import math
import platform
import random
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from ppo_cli import __version__
from ppo_cli.agent import PPOAgent
from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.make import EnvError
from ppo_cli.envs.snapshot import Lost
from ppo_cli.envs.vector import spawn_seeds
from ppo_cli.runs.checkpoint import CheckpointError, keep_newest, link_checkpoint, save_run
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.folder import RunFolder, identity
from ppo_cli.runs.log import RunLog
from ppo_cli.seeding import check_twister
from ppo_cli.text import flat
from ppo_cli.trainer import Collector, Position


class CheckpointKeeper:
    """Writes a run's checkpoints and brings the run back to one.

    Attributes:
        folder: The run's folder.
    """

    def __init__(
        self, folder: Path, config: Config, agent: PPOAgent, collector: Collector, log: RunLog
    ) -> None:
        """Of a run in ``folder``."""
        self.folder = RunFolder(folder)
        self._config, self._agent, self._collector, self._log = config, agent, collector, log
        self._every = config.checkpoint_interval
        self._best = -math.inf
        self._identity = identity(folder)

    def begin(self) -> Position:
        """Starts the environments' first episodes and saves, so that a run can be resumed from its start."""
        self._collector.reset(self._seeds(Position()))
        self._write(Position())
        return Position()

    def save(self, position: Position, now: bool) -> None:
        """Saves every ``checkpoint.every`` iterations, and ``now``; what is trained is only read."""
        if now or position.iteration % self._every == 0:
            self._write(position)

    def restore(self, saved: Checkpoint) -> tuple[Position, list[Lost]]:
        """Brings the run to a checkpoint.

        Returns:
            Where the run is, and the environments that did not come back and begin new episodes.

        Raises:
            CheckpointError: the checkpoint is of another environment or network.
        """
        position = Position(saved.iteration, saved.steps)
        state = saved.payload()
        try:
            self._agent.load_state_dict(state)
            lost = self._collector.load_state_dict(state, self._seeds(position))
            set_global_generators(saved.generators)
        except (EnvError, EnvFaultError, OSError):
            raise
        except Exception as error:  # whatever contents lead to that no schema foresees
            raise CheckpointError(f"the checkpoint does not fit this run's config: {flat(error)}") from error
        self._best = saved.best
        return position, lost

    def consider(self, position: Position, mean: float) -> bool:
        """Keeps the checkpoint of this position as ``best.pt`` if no evaluation's mean return was as high.

        Returns:
            Whether it is.
        """
        if mean <= self._best:
            return False
        self._best = mean
        self.check_folder()
        save_run(self.folder.checkpoint("best"), self._checkpoint(position))
        return True

    def check_folder(self) -> None:
        """Raises OSError where the run's folder is not the one any more that this process holds."""
        if identity(self.folder.path) != self._identity:
            raise OSError(
                f"{self.folder.path} is another folder than the run began in: it was moved or replaced"
            )

    def _seeds(self, position: Position) -> list[int]:
        return spawn_seeds(self._config.seed, "env", self._config.n_envs, position.iteration)

    def _write(self, position: Position) -> None:
        self.check_folder()
        path = self.folder.checkpoint(position.steps)
        self._log.sync()  # what a checkpoint says of other files is true after a power cut too
        save_run(path, self._checkpoint(position))
        link_checkpoint(path, self.folder.checkpoint("last").name)
        keep_newest(self.folder.checkpoints, self._config.checkpoint.keep)

    def _checkpoint(self, position: Position) -> Checkpoint:
        parts: dict[str, Any] = {**self._agent.state_dict(), **self._collector.state_dict()}
        return Checkpoint(
            **parts,
            **position._asdict(),
            best=self._best,
            snapshot_kind=self._collector.envs.kind,
            generators=global_generators(),
            log=self._log.lengths(),
            config=to_dict(self._config),
            versions=_versions(),
        )


def global_generators() -> dict[str, Any]:
    """States of the generators that environments may share: Python's, NumPy's and PyTorch's."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_global_generators(states: Mapping[str, Any]) -> None:
    """Sets what `global_generators` gave."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = states["numpy"]
    check_twister(keys, rest[0])
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


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
