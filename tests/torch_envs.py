"""Vectors of environments that compute with PyTorch, as ``torch_envs:Name``."""

import math

import gymnasium as gym
import numpy as np
import torch
import vector_envs
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space


class Walks(VectorEnv):
    """Each counts its steps and its ones: an episode ends with the third one, and is cut after four steps.

    Args:
        mode: the autoreset mode.
        device: where its tensors lie.
        wrong: what is wrong with it.
    """

    def __init__(self, num_envs, mode="NextStep", device="cpu", wrong=None):
        self.num_envs, self.mode, self.device, self.wrong = num_envs, AutoresetMode(mode), device, wrong
        self.metadata = {"autoreset_mode": self.mode}
        self.single_observation_space = Dict(
            at=Box(-10, 10, (2,), np.float32), last=Discrete(2), action_mask=MultiBinary(2)
        )
        self.single_action_space = Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def look(self):
        return {"at": self.at, "last": self.last, "action_mask": torch.ones_like(self.at, dtype=torch.bool)}

    def reset(self, *, seed=None, options=None):
        if options is None:
            self.at = torch.zeros((self.num_envs, 2), device=self.device)
            self.last = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
            self.over = self.last > 0
            return self.look(), {}
        self.begin(options["reset_mask"])
        return self.look(), {}

    def begin(self, rows):
        """Writes into the tensors that were returned, as some do."""
        self.at.masked_fill_(rows.unsqueeze(1), 0.0)
        self.last.masked_fill_(rows, 0)

    def step(self, actions):
        resets = self.over & (self.mode == AutoresetMode.NEXT_STEP)
        self.at = self.at + torch.stack([torch.ones_like(actions), actions], dim=1)
        self.last = actions.clone()
        self.begin(resets)
        rewards = torch.where(resets, math.nan, actions + 0.5)
        terminated, truncated = self.at[:, 1] >= 3, self.at[:, 0] >= 4
        self.over = terminated | truncated
        infos = {"ones": self.at[:, 1].clone(), "far": truncated.clone()}
        if self.mode == AutoresetMode.SAME_STEP:
            looked = {key: value.clone() for key, value in self.look().items()}
            if self.wrong != "final":
                infos = {"final_obs": looked, "final_info": infos}
            self.begin(self.over)
        shown = self.look()
        if self.wrong in shown:
            shown[self.wrong] = shown[self.wrong] * 1  # a tensor of its own
            shown[self.wrong][2] = {"at": math.nan, "last": 7, "action_mask": 0}[self.wrong]
        if self.wrong == "rewards":
            rewards = rewards + torch.tensor([0, math.inf, 0])
        return shown, rewards, terminated, truncated, infos


class InTensors(VectorWrapper):
    """A vector that gives arrays, as one that gives tensors, and takes nothing else."""

    def reset(self, *, seed=None, options=None):
        if options is not None:
            assert isinstance(options["reset_mask"], torch.Tensor)
            options = {"reset_mask": options["reset_mask"].numpy()}
        return in_tensors(self.env.reset(seed=seed, options=options))

    def step(self, actions):
        return in_tensors(self.env.step(out_of_tensors(actions)))


def in_tensors(value):
    if isinstance(value, dict):
        return {key: in_tensors(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(in_tensors(part) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(value.copy())
    return value


def out_of_tensors(actions):
    if isinstance(actions, dict):
        return {key: out_of_tensors(part) for key, part in actions.items()}
    if isinstance(actions, tuple):
        return tuple(out_of_tensors(part) for part in actions)
    assert isinstance(actions, torch.Tensor)
    return actions.numpy().copy()


gym.register(
    "InTensors-v0", vector_envs.one,
    vector_entry_point=lambda num_envs, **kwargs: InTensors(vector_envs.many(num_envs, **kwargs)),
)  # fmt: skip
