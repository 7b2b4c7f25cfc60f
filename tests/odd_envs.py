"""Environments with habits that a run has to follow or speak about, registered as ``odd_envs:Id``."""

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec

VECTOR = spaces.Box(-100, 100, (2,), np.float32)


class Ten(gym.Env):
    """Episodes of ten steps, paid by the action."""

    observation_space, action_space = VECTOR, spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def look(self):
        return np.array([self.t, self.np_random.random()], np.float32)

    def step(self, action):
        self.t += 1
        return self.look(), float(action), self.t >= 10, False, {}


class Middle(Ten):
    """Wants 400 of [300, 500]."""

    action_space = spaces.Box(300, 500, (1,), np.float32)

    def step(self, action):
        observation, _, end, cut, info = super().step(0)
        return observation, -abs(float(action[0]) - 400) / 100, end, cut, info


class Several(Ten):
    """Two actions at once."""

    action_space = spaces.MultiDiscrete([2, 3])

    def step(self, action):
        return super().step(action.sum())


class Masking(Ten):
    """Only action 1 of three is legal, and an illegal one raises.

    Args:
        where: ``method``, as sb3-contrib has it; ``info`` of steps; ``late``: the same, and only from then
            on it counts; ``key`` of the observation.
        actions: ``discrete``, or what masks are not for: ``box`` or ``dict``, where nothing is illegal.
    """

    def __init__(self, where="method", actions="discrete"):
        self.where = where
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "box": spaces.Box(-1, 1, (1,), np.float32),
            "dict": spaces.Dict({"a": spaces.Discrete(3)}),
        }[actions]
        if where == "method":
            self.action_masks = lambda: [False, True, False]
        if where == "key":
            self.observation_space = spaces.Dict({"seen": VECTOR, "action_mask": spaces.MultiBinary(3)})

    def look(self):
        seen = super().look()
        return {"seen": seen, "action_mask": np.array([0, 1, 0])} if self.where == "key" else seen

    def step(self, action):
        if (
            isinstance(self.action_space, spaces.Discrete)
            and action != 1
            and (self.t or self.where != "late")
        ):
            raise ValueError(f"{action} is illegal")
        observation, _, end, cut, info = super().step(0)
        if self.where in ("late", "info"):
            info["action_mask"] = np.array([0, 1, 0], np.int8)
        return observation, 1.0, end, cut, info


class Choosy(Ten):
    """Takes seeds below 1000 only, and needs a level, which it shows and pays."""

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed >= 1000:
            raise ValueError(f"seed {seed} is not below 1000")
        self.level = options.pop("level")
        return super().reset(seed=seed)

    def look(self):
        return np.array([self.level, self.np_random.random()], np.float32)

    def step(self, action):
        observation, _, end, cut, info = super().step(action)
        return observation, float(self.level), end, cut, info


class Tensors(Ten):
    """Speaks in PyTorch's tensors."""

    def look(self):
        return torch.from_numpy(super().look()).requires_grad_()


class Wraps(Ten):
    """Bytes, which become 300 in the fourth step."""

    observation_space = spaces.Box(0, 255, (2,), np.uint8)

    def look(self):
        return np.array([0, 300 if self.t == 4 else 7])


class Huge(Ten):
    """Numbers beyond float32 in the fourth step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def look(self):
        return np.array([0.0, 1e50 if self.t == 4 else 7.0])


class Telling(Ten):
    """Has an ``info["episode"]`` of its own."""

    def step(self, action):
        *result, info = super().step(action)
        return *result, {**info, "episode": {"r": "much", "number": 3}}


class Learning(Ten):
    """Keeps the mean of what it shows itself."""

    def __init__(self):
        self.obs_rms = 0.0


class Breaks(torch.nn.Module):
    """An encoder that raises in its 50th call."""

    def __init__(self, space):
        super().__init__()
        self.linear, self.calls = torch.nn.Linear(2, 4), 0

    def forward(self, obs):
        self.calls += 1
        if self.calls == 50:
            raise ArithmeticError("worn out")
        return self.linear(obs)


class Statistics:
    """What everybody's running mean has."""

    def __init__(self):
        self.mean, self.var, self.count = 0.0, 1.0, 0


class OwnLearner(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.seen = Statistics()


class Welford(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        self.mean, self.std, self.count = 0.0, 1.0, 0


class Inside(gym.Wrapper):
    """Brings Gymnasium's along."""

    def __init__(self, env):
        super().__init__(gym.wrappers.NormalizeReward(env))


class Frozen(gym.wrappers.NormalizeObservation):
    """Has its statistics from elsewhere, and leaves them."""

    def __init__(self, env):
        super().__init__(env)
        self.update_running_mean = False


for env in (Middle, Several, Masking, Choosy, Tensors, Wraps, Huge, Telling, Learning, Ten):
    gym.register(f"{env.__name__}-v0", env)
normalizing = WrapperSpec("NormalizeObservation", "gymnasium.wrappers:NormalizeObservation", {})
gym.register("Normalizing-v0", Ten, additional_wrappers=(normalizing,))
