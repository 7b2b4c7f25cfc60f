"""An environment that goes wrong in one process of a run."""

import os
import time

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class Lonely(CartPoleEnv):
    """CartPole, whose step ``at`` goes wrong where it is of process ``rank``."""

    def __init__(self, mode, rank=1, at=60):
        super().__init__()
        self.mode, self.rank, self.at, self.steps = mode, str(rank), at, 0

    def step(self, action):
        self.steps += 1
        if self.steps == self.at and os.environ.get("RANK") == self.rank:
            if self.mode == "memory":
                raise MemoryError("no more")
            if self.mode == "raise":
                raise ArithmeticError("cursed")
            if self.mode == "leave":
                os._exit(3)
            time.sleep(1000)
        return super().step(action)


gym.register("Lonely-v0", entry_point=Lonely, max_episode_steps=500)
