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


class Clash(Constant):
    def learn(self, rollout):
        return {"reward": 1.0}


class Loud(Constant):
    def learn(self, rollout):
        return {"two words,\nand lines": 1.0}


class OfChoices(Constant):
    def rewards(self, rollout):
        if rollout.actions.dtype.is_floating_point:
            raise TypeError("expected the numbers of choices")
        return super().rewards(rollout)
