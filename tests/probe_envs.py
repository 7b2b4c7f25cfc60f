"""Probe environments: each isolates one thing that PPO must get right, and registers as ``probe_envs:Id``."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Probe(gym.Env):
    """One observation in [-1, 1], two actions, one step an episode unless a subclass says otherwise."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    random_observation = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign = float(self.np_random.choice([-1.0, 1.0])) if self.random_observation else 0.0
        return np.array([self.sign], np.float32), {}

    def step(self, action):
        return np.array([self.sign], np.float32), self.reward(action), True, False, {}


class ConstantReward(Probe):
    """Reward 1 whatever happens: V = 1."""

    def reward(self, action):
        return 1.0


class ObservationReward(Probe):
    """Reward is the observation: V(s) = s."""

    random_observation = True

    def reward(self, action):
        return self.sign


class ActionReward(Probe):
    """Action 1 pays 1, action 0 pays -1."""

    def reward(self, action):
        return 1.0 if action == 1 else -1.0


class BothReward(Probe):
    """Pays 1 where the action agrees with the observation, else -1."""

    random_observation = True

    def reward(self, action):
        return 1.0 if (action == 1) == (self.sign > 0) else -1.0


class DelayedReward(Probe):
    """Two steps; the second pays for the first action: V(s_0) = γ."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.first = None
        return np.array([-1.0], np.float32), {}

    def step(self, action):
        if self.first is None:
            self.first = action
            return np.array([1.0], np.float32), 0.0, False, False, {}
        return np.array([1.0], np.float32), 1.0 if self.first == 1 else -1.0, True, False, {}


class TruncatedReward(Probe):
    """Pays 1 at every step and is cut after 5: bootstrapped, V = 1 / (1 - γ); taken for an end, at most 5."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(1, np.float32), 1.0, False, self.t == 5, {}


class Times(gym.RewardWrapper):
    """Rewards times a factor."""

    def __init__(self, env, by):
        super().__init__(env)
        self.by = by

    def reward(self, reward):
        return self.by * reward


for probe in (ConstantReward, ObservationReward, ActionReward, BothReward, DelayedReward, TruncatedReward):
    gym.register(f"{probe.__name__}-v0", probe)
