"""Intrinsic rewards that are none, each in a way of its own, by their import path."""

import torch

from ppo_cli.intrinsic import IntrinsicReward


class Constant(IntrinsicReward):
    """Everything is as new as everything else."""

    def rewards(self, rollout):
        return torch.ones(rollout.n_steps, rollout.n_envs)


class Wide(Constant):
    def rewards(self, rollout):
        return torch.ones(3)


class Broken(Constant):
    def rewards(self, rollout):
        raise RuntimeError("nothing is new")


class Infinite(Constant):
    def rewards(self, rollout):
        return super().rewards(rollout) / 0


class Talker(Constant):
    def learn(self, rollout):
        return "much"


class Keeper(Constant):
    def state_dict(self):
        return {"self": self}
