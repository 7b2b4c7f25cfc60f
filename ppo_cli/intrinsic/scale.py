"""How intrinsic rewards are scaled, whatever gives them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppo_cli.normalize import FloatArray, RunningMeanStd


class IntrinsicScale:
    r"""Bonuses divided by the running deviation of their discounted sum (Burda et al. 2018, section 2.4).

        R_t = γ R_{t-1} + r_t,  r_t / sqrt(Var(R))

    R runs on across the ends of episodes, as intrinsic returns do. A whole rollout is taken in before it is
    scaled. Rows that are no transitions have no bonus, and leave R as it is.
    """

    def __init__(self, n_envs: int, gamma: float) -> None:
        """Starts without having seen anything.

        Args:
            n_envs: The number of environments N.
            gamma: The discount factor γ of the intrinsic returns.
        """
        self.statistics = RunningMeanStd(())
        self.returns: FloatArray = np.zeros(n_envs)
        self.gamma = gamma

    @property
    def deviation(self) -> float:
        """What bonuses are divided by."""
        return float(np.sqrt(self.statistics.var))

    def __call__(self, rewards: Tensor, valid: Tensor) -> Tensor:
        """Scaled bonuses, of bonuses and whether a row is a transition, all [T, N]."""
        bonuses, counts = rewards.double().numpy(), valid.numpy()
        sums = np.empty_like(bonuses)
        for t, row in enumerate(bonuses):
            self.returns = np.where(counts[t], self.gamma * self.returns + row, self.returns)
            sums[t] = self.returns
        self.statistics.update(sums[counts])
        scaled = self.statistics.scale(bonuses, np.inf)
        return torch.from_numpy(np.where(counts, scaled, 0.0)).float()

    def state_dict(self) -> dict[str, Any]:
        """The statistics and the running sums, as a checkpoint stores them."""
        return {"statistics": self.statistics.state_dict(), "returns": self.returns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets all that `state_dict` stores."""
        self.statistics.load_state_dict(state["statistics"])
        self.returns = np.asarray(state["returns"]).copy()
