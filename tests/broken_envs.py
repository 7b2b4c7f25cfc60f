"""Environments that can't be trained on, registered as ``broken_envs:Id``."""

import gymnasium as gym
from gymnasium import spaces


class DictObservation(gym.Env):
    observation_space = spaces.Dict({"position": spaces.Box(-1, 1, (2,))})
    action_space = spaces.Discrete(2)


class TupleAction(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])


class Picky(gym.Env):
    def __init__(self, needed):
        pass


class Lacking(gym.Env):
    def __init__(self):
        import surely_not_installed  # noqa: F401


for env in (DictObservation, TupleAction, Picky, Lacking):
    gym.register(env.__name__ + "-v0", env)
