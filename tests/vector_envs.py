"""Vectors of environments of others', registered as ``vector_envs:Id`` with vector entry points."""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space


def one(inner, mode="NextStep", **kwargs):
    """The environment of an id."""
    return gym.make(inner, disable_env_checker=True, **kwargs)


def many(num_envs, inner, mode="NextStep", **kwargs):
    """Gymnasium's vector of that environment, which resets as one of its modes says."""
    return SyncVectorEnv([lambda: one(inner, **kwargs)] * num_envs, autoreset_mode=AutoresetMode(mode))


class Constant(gym.Env):
    """Always the same, without an end.

    Args:
        width: the numbers of an observation.
        wrong: see `Constants`.
    """

    action_space = gym.spaces.Discrete(2)

    def __init__(self, width=2, wrong=None):
        self.observation_space = gym.spaces.Box(-1, 1, (width,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        return np.zeros(self.observation_space.shape, np.float32), 1.0, False, False, {}


class Constants(VectorEnv):
    """Many of them.

    Args:
        width: the numbers of an observation.
        wrong: what is wrong with it.
    """

    def __init__(self, num_envs, width=2, wrong=None):
        self.num_envs, self.width, self.wrong = num_envs, width, wrong
        self.metadata = {} if wrong == "metadata" else {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = Constant(width).observation_space
        self.single_action_space = Constant.action_space
        if wrong == "spaces":
            self.single_action_space = gym.spaces.Discrete(3)
        if wrong == "argument":
            raise ValueError("no such\nargument")
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return self.look(), {}

    def look(self):
        return np.zeros((self.num_envs, self.width + (self.wrong == "shape")), np.float32)

    def step(self, actions):
        if self.wrong == "raises":
            raise ArithmeticError("the first step is cursed")
        rewards, over = np.ones(self.num_envs), np.zeros(self.num_envs, bool)
        if self.wrong == "rewards":
            rewards = rewards[:, None]
        rewards[1] = np.nan if self.wrong == "nan" else 1.0
        observations = self.look()
        observations[2, 0] = np.inf if self.wrong == "infinity" else 0.0
        if self.wrong == "final":
            over[:] = True
        return observations, rewards, over, ~over & over, {}


gym.register("Vectors-v0", one, vector_entry_point=many)
gym.register("Constants-v0", Constant, vector_entry_point=Constants)
