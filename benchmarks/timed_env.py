"""CartPole that notes when it is stepped and closed, `env=timed_env:Timed-v0`, for `start.py`.

As the process ends, what was noted goes to the file that ``TIMED_ENV`` names: of each environment the seconds
of its first step and of its end, and how often it was stepped.
"""

import atexit
import json
import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

_made: list["Timed"] = []


class Timed(CartPoleEnv):
    """Notes its times."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.first, self.ended, self.steps = 0.0, 0.0, 0
        _made.append(self)

    def step(self, action: Any) -> Any:
        if not self.steps:
            self.first = time.perf_counter()
        self.steps += 1
        return super().step(action)

    def close(self) -> None:
        self.ended = time.perf_counter()
        super().close()


def _write() -> None:
    times = [(env.first, env.ended, env.steps) for env in _made]
    Path(os.environ["TIMED_ENV"]).write_text(json.dumps(times))


if "TIMED_ENV" in os.environ:
    atexit.register(_write)
gym.register("Timed-v0", entry_point=Timed, max_episode_steps=500)
