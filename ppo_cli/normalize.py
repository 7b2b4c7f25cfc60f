"""Running statistics that normalise observations and rewards while an agent trains."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float64]
EPSILON = 1e-8


class RunningMeanStd:
    """Mean and (population) variance of a stream of batches, in float64.

    Batches are merged with the parallel algorithm of Chan et al. 1979. It starts as if it had seen 1e-4
    samples of mean 0 and variance 1, as OpenAI Baselines does.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean: FloatArray = np.zeros(shape)
        self.var: FloatArray = np.ones(shape)
        self.count = 1e-4

    def update(self, batch: npt.NDArray[np.generic]) -> None:
        """Takes in a batch, [N, *shape]."""
        batch = np.asarray(batch, np.float64)
        n = len(batch)
        total = self.count + n
        batch_mean = batch.mean(axis=0)
        delta = batch_mean - self.mean
        sum_of_squares = self.var * self.count + batch.var(axis=0) * n + delta**2 * (self.count * n / total)
        self.mean = self.mean + delta * (n / total)
        self.var = sum_of_squares / total
        self.count = total

    def state_dict(self) -> dict[str, FloatArray | float]:
        """The statistics, as a checkpoint stores them."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Sets the statistics from `state_dict`, whose arrays a checkpoint gives back as tensors."""
        self.mean = torch.as_tensor(state["mean"]).numpy().copy()
        self.var = torch.as_tensor(state["var"]).numpy().copy()
        self.count = float(state["count"])


class ObservationNormalizer:
    """(obs - mean) / sqrt(var + 1e-8), clipped to ±clip (37 details, continuous no. 5 and 6)."""

    def __init__(self, shape: tuple[int, ...], clip: float) -> None:
        self.statistics = RunningMeanStd(shape)
        self.clip = clip

    def update(self, observations: npt.NDArray[np.generic]) -> None:
        """Takes in the observations of one step, [N, *shape]."""
        self.statistics.update(observations)

    def __call__(self, observations: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Normalised observations, [..., *shape] float32; the statistics stay as they are."""
        scaled = (np.asarray(observations, np.float64) - self.statistics.mean) / np.sqrt(
            self.statistics.var + EPSILON
        )
        normalized: npt.NDArray[np.float32] = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return normalized


class RewardNormalizer:
    """Reward divided by the running deviation of the discounted return, clipped to ±clip.

    R_t = γ R_{t-1} + r_t per environment, restarted with each episode (37 details, continuous no. 7 and 8).
    """

    def __init__(self, n_envs: int, gamma: float, clip: float) -> None:
        self.statistics = RunningMeanStd(())
        self.returns: FloatArray = np.zeros(n_envs)
        self.gamma = gamma
        self.clip = clip

    def __call__(self, rewards: FloatArray, dones: npt.NDArray[np.bool_]) -> FloatArray:
        """Takes in one step's rewards [N] and whether each ended an episode [N]; returns them scaled."""
        self.returns = self.returns * self.gamma + rewards
        self.statistics.update(self.returns)
        self.returns[dones] = 0.0
        scaled = rewards / np.sqrt(self.statistics.var + EPSILON)
        return np.clip(scaled, -self.clip, self.clip)
