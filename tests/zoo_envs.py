"""Environments of every kind of space, registered as ``zoo_envs:Id``; they refuse what no agent may send."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
OBSERVATIONS = {
    "vector": spaces.Box(-2, 2, (3,), np.float32),
    "float64": spaces.Box(-2, 2, (2, 2), np.float64),
    "discrete": spaces.Discrete(5, start=2),
    "multi_binary": spaces.MultiBinary(4),
    "hwc": IMAGE,
    "chw": spaces.Box(0, 255, (2, 36, 40), np.uint8),
    "dict": spaces.Dict({"camera": IMAGE, "speed": spaces.Box(-2, 2, (2,)), "gear": spaces.Discrete(3)}),
    "tuple": spaces.Tuple(
        [
            spaces.Discrete(3),
            spaces.Dict({"a": spaces.Box(-1, 1, (), np.float64), "b": spaces.MultiDiscrete([2, 3])}),
            spaces.Box(0, 255, (5,), np.uint8),
        ]
    ),
}
BOX = spaces.Box(np.array([-1, 0], np.float32), np.array([0.5, 3], np.float32))
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "start": spaces.Discrete(4, start=3),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(3),
    "box": BOX,
    "product": spaces.Dict(
        {
            "steer": BOX,
            "gear": spaces.Discrete(3, start=-1),
            "more": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 2])]),
        }
    ),
}


class Zoo(gym.Env):
    """Random observations, episodes of 1 to 6 steps of which every second is cut, rewards from the action.

    Args:
        observation: a key of `OBSERVATIONS`.
        action: a key of `ACTIONS`.
        mask: ``info`` or ``key``: which actions are legal is said there, and an illegal one raises.
    """

    def __init__(self, observation="vector", action="discrete", mask="none"):
        self.inner = OBSERVATIONS[observation]
        self.action_space = ACTIONS[action]
        self.where = mask
        self.sizes = []
        if mask != "none":
            space = self.action_space
            self.sizes = [int(space.n)] if action in ("discrete", "start") else space.nvec.tolist()
        self.observation_space = self.inner
        if mask == "key":
            parts = dict(self.inner.items()) if isinstance(self.inner, spaces.Dict) else {"seen": self.inner}
            self.observation_space = spaces.Dict(
                {**parts, "action_mask": spaces.MultiBinary(sum(self.sizes))}
            )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(1, 7))
        self.cut = bool(self.np_random.integers(2))
        return self.look()

    def step(self, action):
        # no NumPy array scalars in Box.contains, which warns of them
        assert self.action_space.contains(action), f"{action!r} is no member of {self.action_space}"
        start = self.action_space.start if isinstance(self.action_space, spaces.Discrete) else 0
        for component, mask in zip(np.ravel(action) - start if self.masks else (), self.masks, strict=True):
            assert mask[int(component)], f"{action!r} is illegal: {self.masks}"
        self.left -= 1
        leaves = [action]
        if isinstance(action, dict):
            leaves = [action["steer"], action["gear"], *action["more"]]
        reward = float(sum(np.sum(leaf) for leaf in leaves))
        observation, info = self.look()
        return observation, reward, self.left == 0 and not self.cut, self.left == 0 and self.cut, info

    def look(self):
        """A random observation, the same for the same generator of the environment's own."""
        observation = self.draw(self.inner)
        self.masks = [self.draw_mask(size) for size in self.sizes]
        info = {}
        if self.where == "info":
            info["action_mask"] = tuple(self.masks) if len(self.masks) > 1 else self.masks[0]
        if self.where == "key":
            parts = observation if isinstance(observation, dict) else {"seen": observation}
            observation = {**parts, "action_mask": np.concatenate(self.masks)}
        return observation, info

    def draw(self, space):
        """A member of a space, from the environment's own generator."""
        if isinstance(space, spaces.Dict):
            return {key: self.draw(part) for key, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self.draw(part) for part in space)
        if isinstance(space, spaces.Discrete):
            return np.int64(space.start + self.np_random.integers(space.n))
        if isinstance(space, spaces.MultiDiscrete):
            return self.np_random.integers(space.nvec)
        if isinstance(space, spaces.MultiBinary):
            return self.np_random.integers(0, 2, space.shape).astype(np.int8)
        if space.dtype == np.uint8:
            return self.np_random.integers(0, 256, space.shape, np.uint8)
        return np.asarray(self.np_random.uniform(space.low, space.high)).astype(space.dtype)

    def draw_mask(self, size):
        """One or more legal actions of ``size``."""
        mask = self.np_random.integers(0, 2, size).astype(np.int8)
        mask[self.np_random.integers(size)] = 1
        return mask


class Recall(gym.Env):
    """A cue of -1 or 1 at the first step, nothing for ten steps, then the action has to be the cue."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.t = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 0], np.float32), {}

    def step(self, action):
        self.t += 1
        if self.t <= 10:
            return np.array([0, self.t == 10], np.float32), 0.0, False, False, {}
        return np.zeros(2, np.float32), float(action == self.cue), True, False, {}


class Raising(gym.Env):
    """Never begins."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        raise RuntimeError("no luck")


class OwnEncoder(torch.nn.Module):
    """An encoder as a user would write it, for any simple space."""

    def __init__(self, space, size=6):
        super().__init__()
        self.linear = torch.nn.Linear(int(np.prod(space.shape or ())), size)

    def forward(self, obs):
        return torch.relu(self.linear(obs.reshape(obs.shape[0], -1).float() / 10))


for env in (Zoo, Recall, Raising):
    gym.register(f"{env.__name__}-v0", env)
