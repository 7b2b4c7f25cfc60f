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


class Walk(gym.Env):
    """Counts steps and ones: an episode ends with the third one, and is cut after four steps."""

    observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, **_):
        pass

    def reset(self, *, seed=None, options=None):
        self.at = np.zeros(2, np.float32)
        return self.at.copy(), {}

    def step(self, action):
        self.at += (1, action)
        return self.at.copy(), action + 0.5, self.at[1] >= 3, self.at[0] >= 4, {"ones": float(self.at[1])}


class Walks(VectorEnv):
    """Many of them, which write into the same memory at every step, and at a reset by mask, the mask too.

    Args:
        mode: the autoreset mode.
        odd: something odd that it does.
    """

    def __init__(self, num_envs, mode="NextStep", odd=None):
        self.num_envs, self.mode, self.odd = num_envs, AutoresetMode(mode), odd
        self.metadata = {"autoreset_mode": self.mode}
        self.single_observation_space, self.single_action_space = Walk.observation_space, Walk.action_space
        self.at, self.rewards = np.zeros((num_envs, 2), np.float32), np.zeros(num_envs)
        self.terminated, self.truncated = np.zeros((2, num_envs), bool)

    def look(self):
        shown = self.at.view()
        shown.flags.writeable = self.odd != "read-only"
        return shown

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        for column in (self.at, self.rewards, self.terminated, self.truncated, mask):
            column[mask] = 0
        return self.look(), {}

    def step(self, actions):
        only_reset = (self.terminated | self.truncated) & (self.mode == AutoresetMode.NEXT_STEP)
        self.at += np.stack([np.ones_like(actions), actions], axis=1)
        self.at[only_reset] = 0
        self.rewards[:] = np.where(only_reset, np.nan, actions + 0.5)
        if self.odd != "stale":
            self.terminated[:], self.truncated[:] = self.at[:, 1] >= 3, self.at[:, 0] >= 4
        elif not only_reset.any():
            self.terminated[:] = self.at[:, 1] >= 3
        infos = {"told": np.ones(self.num_envs), "_told": "?", "ones": self.at[:, 1].copy()}
        if self.odd != "recorded":  # by a wrapper, which wants the place for itself
            infos["episode"] = "one"
        ended = self.terminated | self.truncated
        if self.mode == AutoresetMode.SAME_STEP and ended.any():
            infos |= {"final_obs": self.at.copy(), "final_info": {"ones": self.at[:, 1].copy()}}
            self.at[ended] = 0
        actions[:] = 0
        return self.look(), self.rewards, self.terminated, self.truncated, infos


gym.register("Walks-v0", Walk, vector_entry_point=Walks)
gym.register("Vectors-v0", one, vector_entry_point=many)
gym.register("Constants-v0", Constant, vector_entry_point=Constants)
