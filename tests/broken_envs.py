"""Environments that can't be trained on, or not for long, registered as ``broken_envs:Id``."""

import os
import signal
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class TextObservation(gym.Env):
    observation_space = spaces.Dict(
        {"position": spaces.Box(-1, 1, (2,)), "words": spaces.Tuple([spaces.Text(3)])}
    )
    action_space = spaces.Discrete(2)


class SequenceAction(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Tuple([spaces.Discrete(2), spaces.Sequence(spaces.Discrete(3))])


class Picky(gym.Env):
    def __init__(self, needed):
        pass


class Lacking(gym.Env):
    def __init__(self):
        import surely_not_installed  # noqa: F401


class Faulty(gym.Env):
    """Fails in a chosen way at every ``at``-th step since it was made; episodes last 20 steps."""

    observation_space = spaces.Box(-10, 10, (3,))
    action_space = spaces.Discrete(2)

    def __init__(self, mode, at=300):
        self.mode, self.at, self.steps = mode, at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        if self.mode == "reset" and self.steps >= self.at:
            raise RuntimeError("no way back")
        return self._observation(), {}

    def _observation(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):  # noqa: C901
        self.t += 1
        self.steps += 1
        observation, reward = self._observation(), float(action)
        if self.steps % self.at == 0:
            if self.mode == "raise":
                raise ArithmeticError("cursed")
            elif self.mode == "not_a_number":
                observation[1] = np.nan
            elif self.mode == "infinite":
                reward = float("inf")
            elif self.mode == "shape":
                observation = observation[:1]
            elif self.mode == "dtype":
                observation = observation.astype(complex)
            elif self.mode == "last":
                observation[1] = np.nan
                return observation, reward, True, False, {}
            elif self.mode == "reward":
                reward = "much"
            elif self.mode == "four":
                return observation, reward, False, {}
            elif self.mode == "hang":
                time.sleep(1000)
            elif self.mode == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return observation, reward, False, self.t == 20, {}


class OffByOne(gym.Env):
    """Counts to five in a space that holds five numbers from 0."""

    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        return self.t, 1.0, self.t == 6, False, {}


class OwnGenerator(gym.Env):
    """Draws from a generator that only a seed sets; episodes last 7 steps."""

    observation_space = spaces.Box(-10, 10, (3,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.t = 0
        return self.generator.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        observation = self.generator.uniform(-1, 1, 3).astype(np.float32)
        return observation, float(observation[0] * (action - 0.5)), self.t == 7, False, {}


class Drifting(OwnGenerator):
    """The same, but a seed reaches the generator only once: nothing brings it back."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=None if hasattr(self, "generator") else seed)


for env in (TextObservation, SequenceAction, Picky, Lacking, Faulty, OffByOne, OwnGenerator, Drifting):
    gym.register(env.__name__ + "-v0", env)
