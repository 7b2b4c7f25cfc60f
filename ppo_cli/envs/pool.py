"""EnvPool: environments rewritten in C++, stepped by a pool of threads (an optional extra)."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_cli.envs.calls import Call, calling
from ppo_cli.envs.pool_atari import Games, translate
from ppo_cli.envs.vector import Array, Recipe, StepResult, Vector, seed_list
from ppo_cli.errors import EnvError


def import_envpool(env_id: str) -> Any:  # noqa: ANN401 - it ships no types
    """The envpool module, if it can make this environment.

    Raises:
        EnvError: the package is missing, or does not have the id.
    """
    try:
        envpool = import_module("envpool")
    except ModuleNotFoundError as missing:
        raise EnvError("vectorization=envpool needs a package: pip install 'ppo-cli[envpool]'") from missing
    if env_id not in envpool.list_all_envs():
        raise EnvError(f"vectorization=envpool: EnvPool has no {env_id}; use vectorization=auto")
    return envpool


class EnvPoolVector(Vector):
    """EnvPool behind the interface of the other backends.

    It resets in the step after an episode's end (`AutoresetMode.NEXT_STEP`): the observation returned with
    an end is the true final one, and the next step ignores the action and returns the new episode's first
    observation. Such rows are marked in ``infos["filler"]``; they are no transitions. Atari's games come in
    its own preprocessing; see `ppo_cli.envs.pool_atari`.
    """

    backend = "envpool"

    def __init__(self, recipe: Recipe) -> None:
        """Notes what to make; `reset` makes it, because EnvPool takes its seeds when it is made.

        Args:
            recipe: The recipe, whose spaces are those of the same environment in Gymnasium.
        """
        n = len(recipe.makes)
        super().__init__(n, recipe.spaces, "none")
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        task, arguments = translate(recipe.env_id, recipe.kwargs, recipe.wrappers)
        self._make = import_envpool(task).make_gymnasium
        self._arguments = {"task_id": task, "num_envs": n, "num_threads": recipe.processes, **arguments}
        is_recorded = any(entry["name"] == "RecordEpisodeStatistics" for entry in recipe.wrappers)
        self._games = Games(n, is_recorded) if arguments else None

    @classmethod
    def check(cls, recipe: Recipe, env: "gym.Env[Any, Any]") -> None:
        """Raises EnvError where EnvPool is missing, or has no such environment."""
        task, _ = translate(recipe.env_id, recipe.kwargs, recipe.wrappers)
        import_envpool(task)

    @classmethod
    def of(cls, recipe: Recipe) -> "EnvPoolVector":
        """The vector that a recipe describes."""
        return cls(recipe)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Makes the environments with a seed each and starts their first episodes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the precision of its spaces, which are not used
            with calling(Call.MAKE):
                self._pool = self._make(**self._arguments, env_seed=seed_list(seed, self.num_envs))
            self._dtype = self._pool.action_space.dtype
            with calling(Call.RESET):
                self._last, _ = self._pool.reset()
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self._last, {}

    def snapshot(self) -> None:
        """None: an EnvPool can't be brought back."""

    @property
    def observations(self) -> Array:
        """What each environment returned last, [N, *shape]."""
        observations: Array = self._last
        return observations

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape]."""
        filler = self._ended
        with calling(Call.STEP):
            self._last, rewards, terminated, truncated, told = self._pool.step(actions.astype(self._dtype))
        self._ended = terminated | truncated
        infos = {"filler": filler, "idle": self._ended}
        if self._games is not None:
            infos |= self._games.step(told, truncated)
        return self._last, rewards.astype(np.float64), terminated, truncated, infos
