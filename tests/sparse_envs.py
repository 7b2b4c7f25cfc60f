"""Environments whose reward is found by exploring alone, which register as ``sparse_envs:Id``."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class DeepSea(gym.Env):
    """A grid of N x N cells, through which one dives from the top left to the treasure at the bottom right.

    Each step goes down one row, and left or right. Only going right every time, N times, finds the treasure,
    which pays 1; each step to the right costs 0.01 / N. Which action goes right is drawn for each cell
    (Osband et al. 2020, https://arxiv.org/abs/1908.03568, appendix A.7), so that no habit finds it either:
    an episode of random actions does with probability 2^-N.
    """

    def __init__(self, size=20, mapping_seed=0):
        """A sea of ``size`` rows, whose mapping of actions is that of a seed."""
        self.size = size
        self.right = np.random.default_rng(mapping_seed).integers(0, 2, (size, size))
        self.observation_space = spaces.Box(0.0, 1.0, (size * size,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.row = self.column = 0
        return self.look(), {}

    def step(self, action):
        is_right = action == self.right[self.row, self.column]
        reward = -0.01 / self.size if is_right else 0.0
        found = is_right and self.row == self.column == self.size - 1
        self.row += 1
        self.column = min(self.column + 1, self.size - 1) if is_right else max(self.column - 1, 0)
        return self.look(), reward + float(found), self.row == self.size, False, {}

    def look(self):
        observation = np.zeros((self.size, self.size), np.float32)
        if self.row < self.size:
            observation[self.row, self.column] = 1.0
        return observation.ravel()


gym.register("DeepSea-v0", "sparse_envs:DeepSea")
