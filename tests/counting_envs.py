"""Environments that write down in a file, across processes, when they are made and closed."""

import os

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counting(gym.Env):
    """Episodes of five steps; observations, masks and infos as asked."""

    action_space = spaces.Discrete(3)

    def __init__(self, nested=False, masked=False):
        self.masked = masked
        box = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = spaces.Dict({"a": box, "b": spaces.Discrete(4)}) if nested else box
        self.write("made")

    def write(self, what):
        with open(os.environ["COUNTED"], "a") as file:
            file.write(f"{what}\n")

    def observed(self):
        obs = np.zeros(2, np.float32)
        info = {"action_mask": np.array([1, 1, 0], np.int8)} if self.masked else {}
        return ({"a": obs, "b": 1} if isinstance(self.observation_space, spaces.Dict) else obs), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observed()

    def step(self, action):
        self.t += 1
        obs, info = self.observed()
        return obs, 1.0, self.t == 5, False, info

    def close(self):
        self.write("closed")


gym.register("Counting-v0", Counting)
