"""Environments that tell numbers in ``info``, registered as ``info_envs:Id``."""

import random

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Parts(gym.Env):
    """Tells two parts of the reward at each step and, at the end, whether it was a success.

    Args:
        shortest: length of the shortest episode.
        draws: ``own`` random numbers, or those of ``python``, which no replay brings back.
    """

    observation_space = spaces.Box(-1000, 1000, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, shortest=5, draws="own"):
        self.shortest, self.draws = shortest, draws

    def draw(self):
        return random.random() if self.draws == "python" else self.np_random.random()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, self.shortest + int(50 * self.draw())
        return self.look(), {}

    def look(self):
        return np.array([self.t, self.draw()], np.float32)

    def step(self, action):
        self.t += 1
        info = {"reward_act": float(action), "reward_cost": np.float32(-self.draw())}
        end = self.t >= self.length
        if end:
            info["is_success"] = self.draw() < 0.5
        return self.look(), info["reward_act"] + float(info["reward_cost"]), end, False, info


class Told(gym.Env):
    """Episodes of four steps that tell what they are given.

    Args:
        infos: of the four steps; a fifth one would raise.
    """

    observation_space = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, infos):
        self.infos = infos

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        info = self.infos[self.t]
        if isinstance(info, Exception):
            raise info
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t == len(self.infos), False, info


class Lives(gym.Wrapper):
    """Ends an episode for the learner after every second step, as a lost life does."""

    def __init__(self, env):
        super().__init__(env)
        self.was_real_done = True
        self.observation = None

    def reset(self, **kwargs):
        if self.was_real_done:
            self.observation, _ = self.env.reset(**kwargs)
        return self.observation, {}

    def step(self, action):
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.was_real_done = terminated or truncated
        return self.observation, reward, terminated or self.unwrapped.t % 2 == 0, truncated, info


gym.register("Parts-v0", Parts)
