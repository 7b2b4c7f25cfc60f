"""An environment that costs next to nothing, with any number of actions: `env=toy_env:Toy-v0`."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

Observation = npt.NDArray[np.float32]


class Toy(gym.Env[Observation, np.int64]):
    """Shows one random vector an episode and rewards action 0."""

    def __init__(self, n_actions: int = 2) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (8,), np.float32)
        self.action_space = gym.spaces.Discrete(n_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._observation = self.np_random.uniform(-1.0, 1.0, 8).astype(np.float32)
        return self._observation, {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        return self._observation, float(action == 0), False, False, {}


gym.register("Toy-v0", entry_point=Toy, max_episode_steps=100)
