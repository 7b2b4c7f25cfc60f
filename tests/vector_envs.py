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


class Worlds(VectorEnv):
    """Worlds of three agents of which one dies after two steps and one after three, and one is cut.

    Each observes the time and its number, and is paid its number and one. Who has died goes on to end, to be
    paid NaN and to observe nines until the world begins anew.

    Args:
        mode: the autoreset mode.
        odd: something odd that it does.
    """

    LIVES = np.array([2, 3, 5])

    def __init__(self, num_envs, mode="NextStep", odd=None):
        if num_envs % 3:
            raise ValueError("three agents a world")
        self.num_envs, self.mode, self.odd = num_envs, AutoresetMode(mode), odd
        self.metadata = {"autoreset_mode": self.mode}
        self.single_observation_space = gym.spaces.Box(-10, 10, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.number, self.lives = np.arange(num_envs) % 3, np.tile(self.LIVES, num_envs // 3)

    def look(self):
        alive = self.time < self.lives
        observations = np.stack([np.full(self.num_envs, self.time), self.number], axis=1).astype(np.float32)
        observations[self.time > self.lives] = 9
        infos = {"active_mask": alive, "place": self.number * 1.0}
        if self.odd == "gone":
            infos["active_mask"] = alive & (self.number > 0)
        if self.odd == "shape":
            infos["active_mask"] = alive[:-1]
        return observations, infos

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return self.look() if self.odd is None else (self.look()[0], {})

    def step(self, actions):
        if self.time == 5:
            observations, infos = self.reset()
            return observations, np.ones(self.num_envs), *np.zeros((2, self.num_envs), bool), infos
        self.time += 1
        rewards = np.where(self.time > self.lives, np.nan, 1.0 + self.number)
        over = self.time >= self.lives
        observations, infos = self.look()
        if self.time == 5 and self.mode == AutoresetMode.SAME_STEP:
            final, final_info = observations, infos
            observations, infos = self.reset()
            infos |= {"final_obs": final, "final_info": final_info}
        return observations, rewards, over & (self.number < 2), over & (self.number == 2), infos


gym.register("Walks-v0", Walk, vector_entry_point=Walks)
gym.register("Vectors-v0", one, vector_entry_point=many)
gym.register("Constants-v0", Constant, vector_entry_point=Constants)
