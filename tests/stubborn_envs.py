"""Environments that no snapshot brings back, or not always, registered as ``stubborn_envs:Id``."""

import os
import random

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Ten(gym.Env):
    """Episodes of ten steps; all that is random comes from np_random."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)
    action_space = spaces.Discrete(2)
    length = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        return np.array([self.t / self.length, self.np_random.random()], np.float32)

    def step(self, action):
        self.t += 1
        return self.look(), float(action), self.t >= self.length, False, {}


class Late(Ten):
    """Paid at the end of long episodes alone; noise from Python's global generator."""

    length = 150

    def look(self):
        return np.array([self.t / self.length, random.random()], np.float32)

    def step(self, action):
        observation, _, end, cut, info = super().step(action)
        return observation, 100.0 * end, end, cut, info


class Levels(Ten):
    """The level, which is seen, rises every 40 episodes."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def look(self):
        return np.array([self.episodes // 40, self.np_random.random()], np.float32)


class OtherMachine(Ten):
    """Its second number depends on the machine in the last bit (here: on a variable)."""

    def look(self):
        value = np.float32(self.np_random.random())
        if os.environ.get("OTHER_MACHINE"):
            value = np.nextafter(value, np.float32(2))
        return np.array([self.t, value], np.float32)


class Unseeded(Ten):
    """Draws from the system."""

    def look(self):
        return np.array([self.t, int.from_bytes(os.urandom(2), "big") / 65536], np.float32)


class Endless(Ten):
    length = 10**9

    def look(self):
        return np.array([self.t % 7, self.np_random.random()], np.float32)


class Fails(Ten):
    """Fails with every 30th step since it was made, mostly; noise from NumPy's global generator."""

    steps = 0

    def look(self):
        return np.array([self.t, np.random.random()], np.float32)

    def step(self, action):
        self.steps += 1
        if self.steps % 30 == 0 and self.np_random.random() < 0.7:
            raise RuntimeError("diverged")
        return super().step(action)


for env in (Late, Levels, OtherMachine, Unseeded, Endless, Fails):
    gym.register(f"{env.__name__}-v0", env)
