"""Vectors of environments: their interface, the one in this process, and seeds.

All have Gymnasium's `VectorEnv` interface and reset an environment in the step in which its episode ends
(`AutoresetMode.SAME_STEP`), with the true final observation in ``infos["final_obs"]``. Arrays that `step`
returns are overwritten by the next step. They leave out what PPO does not read: the rest of ``infos``.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ppo_cli.envs.make import EnvFn

Array = npt.NDArray[Any]
StepResult = tuple[Array, Array, Array, Array, dict[str, Any]]
Stream = Literal["env", "eval", "model", "action", "minibatch"]
_STREAMS: dict[Stream, int] = {"env": 0, "eval": 1, "model": 2, "action": 3, "minibatch": 4}


def spawn_seeds(seed: int, stream: Stream, n: int) -> list[int]:
    """``n`` seeds for one purpose, independent of those of any other purpose or run seed.

    Runs with the seeds 0 and 1 thus share no environment, as they would with seed + i.

    Returns:
        Integers in [0, 2³¹).
    """
    sequence = np.random.SeedSequence([seed, _STREAMS[stream]])
    return [int(value) >> 1 for value in sequence.generate_state(n)]


class Buffers(NamedTuple):
    """What one step of N environments writes."""

    observations: Array  # [N, *shape]
    rewards: Array  # float64 [N]
    terminated: Array  # bool [N]
    truncated: Array  # bool [N]
    final_obs: Array  # [N, *shape]; only rows whose episode ended are meaningful


def allocate(space: gym.Space[Any], n: int) -> Buffers:
    """Buffers in this process's own memory."""
    shape = (n, *(space.shape or ()))
    return Buffers(
        observations=np.zeros(shape, space.dtype),
        rewards=np.zeros(n),
        terminated=np.zeros(n, np.bool_),
        truncated=np.zeros(n, np.bool_),
        final_obs=np.zeros(shape, space.dtype),
    )


def reset_each(
    envs: Sequence["gym.Env[Any, Any]"],
    seeds: Sequence[int | None],
    options: dict[str, Any] | None,
    out: Buffers,
) -> None:
    """Starts a new episode in each environment with its seed."""
    for i, (env, seed) in enumerate(zip(envs, seeds, strict=True)):
        out.observations[i], _ = env.reset(seed=seed, options=options)


def step_each(envs: Sequence["gym.Env[Any, Any]"], actions: Array, out: Buffers) -> None:
    """Steps environments one after the other; one whose episode ends starts its next at once."""
    observations, rewards, terminations, truncations, final_obs = out
    for i, (env, action) in enumerate(zip(envs, actions, strict=True)):
        obs, reward, terminated, truncated, _ = env.step(action)
        rewards[i] = reward
        terminations[i] = terminated
        truncations[i] = truncated
        if terminated or truncated:
            final_obs[i] = obs
            obs, _ = env.reset()
        observations[i] = obs


class Vector(VectorEnv[Any, Any, Any]):
    """What the backends share: spaces, and results from `Buffers`."""

    def __init__(self, n: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.num_envs = n
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, n)
        self.action_space = batch_space(action_space, n)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        raise NotImplementedError

    def _result(self, out: Buffers) -> StepResult:
        ended = out.terminated | out.truncated
        infos = {"final_obs": out.final_obs, "_final_obs": ended} if ended.any() else {}
        return out.observations, out.rewards, out.terminated, out.truncated, infos


class SyncVector(Vector):
    """Steps the environments in this process.

    Gymnasium's `SyncVectorEnv` without its copies and without gathering infos, which cost as much as a small
    environment's own step.
    """

    def __init__(self, env_fns: Sequence[EnvFn]) -> None:
        self.envs = [make() for make in env_fns]
        super().__init__(len(self.envs), self.envs[0].observation_space, self.envs[0].action_space)
        self._out = allocate(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        reset_each(self.envs, seed_list(seed, self.num_envs), options, self._out)
        return self._out.observations, {}

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape]."""
        step_each(self.envs, actions, self._out)
        return self._result(self._out)

    def close_extras(self, **_: object) -> None:
        """Closes the environments."""
        for env in self.envs:
            env.close()


def seed_list(seed: int | Sequence[int | None] | None, n: int) -> list[int | None]:
    """Gymnasium's three forms of a vector's seed as one seed an environment."""
    if seed is None:
        return [None] * n
    if isinstance(seed, int):
        return [seed + i for i in range(n)]
    return list(seed)
