"""A learning rate that the update itself steers, by how far each of its steps has led the policy away."""

from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 1.5  # what the rate is multiplied with, or divided by
# Below it a divergence is rounding: the first minibatch of a rollout has none, and says nothing of the rate.
# What rsl_rl computes beside 1 in 32 bits is exactly 0 there, and it asks for more than 0.
ROUNDING = 2.0**-24


@dataclass(frozen=True)
class KLAdaptive:
    """The rule of rsl_rl (Rudin et al. 2021, https://arxiv.org/abs/2109.11978, table 3).

        η ← max(η_min, η / 1.5)   where KL(π_old ‖ π_θ) > 2 KL_desired
        η ← min(η_max, 1.5 η)     where 0 < KL(π_old ‖ π_θ) < KL_desired / 2

    Attributes:
        desired_kl: KL_desired > 0.
        learning_rate_min: The least rate η_min.
        learning_rate_max: The largest rate η_max.
    """

    desired_kl: float
    learning_rate_min: float
    learning_rate_max: float

    def __call__(self, learning_rate: Tensor, kl: Tensor) -> Tensor:
        """The rate η of the step on a minibatch, a scalar.

        Args:
            learning_rate: The rate of the step before.
            kl: The divergence over the minibatch's rows before the step, without a gradient.
        """
        is_small = (kl < self.desired_kl / 2) & (kl > ROUNDING)
        changed = torch.where(is_small, learning_rate * STEP, learning_rate)
        changed = torch.where(kl > 2 * self.desired_kl, learning_rate / STEP, changed)
        return changed.clamp(self.learning_rate_min, self.learning_rate_max)
