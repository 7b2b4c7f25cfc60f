"""Running statistics that normalise observations and rewards while an agent trains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from ppo_cli.spaces import Leaf, PackedObservations, is_scaled_image

FloatArray = npt.NDArray[np.float64]
EPSILON = 1e-8


class RunningMeanStd:
    """Mean and (population) variance of a stream of batches, in float64.

    Batches are merged with the parallel algorithm of Chan et al. 1979. It starts as if it had seen 1e-4
    samples of mean 0 and variance 1, as OpenAI Baselines does.
    """

    def __init__(self, shape: tuple[int, ...], may_shrink: bool = False) -> None:
        """Starts.

        Args:
            shape: The shape of a sample.
            may_shrink: Whether statistics of fewer numbers, the first ones, may be loaded.
        """
        self._may_shrink = may_shrink
        self.mean: FloatArray = np.zeros(shape)
        self.var: FloatArray = np.ones(shape)
        self.count = 1e-4

    def update(self, batch: FloatArray) -> None:
        """Takes in a batch, [N, *shape], which may be empty."""
        n = len(batch)
        if n == 0:
            return
        batch_mean = (
            np.add.reduce(batch, axis=0) / n
        )  # np.mean and np.var cost ten times as much on a few rows
        deviations = batch - batch_mean
        self._merge(batch_mean, np.add.reduce(deviations * deviations, axis=0), n)

    def merge(self, other: "RunningMeanStd") -> None:
        """Takes in what others have seen, which may be nothing."""
        if other.count:
            self._merge(other.mean, other.var * other.count, other.count)

    def _merge(self, mean: FloatArray, squares: FloatArray, n: float) -> None:
        """Takes in n > 0 samples of that mean, with the sum of their squared deviations from it."""
        total = self.count + n
        delta = mean - self.mean
        sum_of_squares = self.var * self.count + squares
        self.var = (sum_of_squares + delta * delta * (self.count * n / total)) / total
        self.mean = self.mean + delta * (n / total)
        self.count = total

    def forget(self) -> None:
        """Has it seen nothing, not even what it starts with."""
        self.mean, self.var, self.count = np.zeros_like(self.mean), np.zeros_like(self.var), 0.0

    def scale(self, values: FloatArray, clip: float, center: FloatArray | float = 0.0) -> FloatArray:
        """(values - center) / sqrt(var + 1e-8), clipped to ±clip."""
        scaled = (values - center) / np.sqrt(self.var + EPSILON)
        clipped: FloatArray = np.minimum(np.maximum(scaled, -clip), clip)
        return clipped

    def state_dict(self) -> dict[str, FloatArray | float]:
        """The statistics, as a checkpoint stores them."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from `state_dict`, whose arrays a checkpoint gives back as tensors.

        Raises:
            ValueError: they are of another shape, or a variance is below 0.
        """
        mean, var = (
            torch.as_tensor(state[name], dtype=torch.float64).numpy().copy() for name in ("mean", "var")
        )
        fits = mean.shape == self.mean.shape or (
            self._may_shrink and mean.ndim == 1 and mean.size < self.mean.size
        )
        if not fits or var.shape != mean.shape or (var < 0).any():
            raise ValueError(f"statistics of shape {mean.shape}, where {self.mean.shape} is normalised")
        self.mean, self.var, self.count = mean, var, float(state["count"])


def _waiting(shape: tuple[int, ...]) -> RunningMeanStd:
    """Statistics that have seen nothing."""
    statistics = RunningMeanStd(shape)
    statistics.forget()
    return statistics


def stored_observation(space: spaces.Space[Any], normalized: bool) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of an observation in the rollout: bytes and integers as they are, floats as float32."""
    if normalized and not isinstance(space, PackedObservations):
        return tuple(space.shape or ()), torch.float32
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return tuple(space.shape or ()), torch.int64
    dtype = torch.uint8 if space.dtype == np.uint8 else torch.float32
    return tuple(space.shape or ()), dtype


def as_float32(observations: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Observations without normalisation as the network takes them: float64 as float32, others as they are.

    Raises:
        FloatingPointError: a number is not finite in float32; one line.
    """
    if observations.dtype != np.float64:
        return observations
    with np.errstate(over="ignore"):
        small = observations.astype(np.float32)
    finite = np.isfinite(small)
    if not finite.all():
        beyond = observations[~finite][0]
        raise FloatingPointError(
            f"an observation holds {beyond:g}, which is not finite in float32; normalize.observations=true "
            "scales numbers before they become float32, and so can a wrapper"
        )
    return small


class ObservationNormalizer:
    """(obs - mean) / sqrt(var + 1e-8), clipped to ±clip (37 details, continuous no. 6 and 7).

    Of a packed observation that is its floats, which stand first in a row of bytes; the rest stays as it is.
    As many are scaled as there are statistics: images of floats, which come last, had none in older runs.
    """

    def __init__(
        self, shape: tuple[int, ...], clip: float, packed: bool = False, waits: bool = False
    ) -> None:
        """Starts without having seen anything.

        Args:
            shape: The shape of one observation; of a packed one the number of its floats.
            clip: The largest normalised value.
            packed: Whether observations are rows of bytes.
            waits: Whether what it sees waits in ``seen`` until it is merged, rather than counts at once.
        """
        self.statistics = RunningMeanStd(shape, may_shrink=packed)
        self.seen = _waiting(shape) if waits else self.statistics
        self.clip = clip
        self._is_packed = packed

    @property
    def scaled_bytes(self) -> int:
        """How many bytes at the beginning of a packed row are scaled."""
        return 4 * self.statistics.mean.size

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from theirs; nothing waits to be merged then."""
        self.statistics.load_state_dict(state)
        if self.seen is not self.statistics:
            self.seen = _waiting(self.statistics.mean.shape)

    def update(self, observations: npt.NDArray[np.generic]) -> None:
        """Takes in the observations of one step, [N, *shape]."""
        self.seen.update(self._floats(observations).astype(np.float64))

    def __call__(self, observations: npt.NDArray[np.generic]) -> npt.NDArray[Any]:
        """Normalised observations, [..., *shape] float32 (or bytes); the statistics stay as they are."""
        values = self._floats(observations).astype(np.float64)
        scaled = self.statistics.scale(values, self.clip, self.statistics.mean).astype(np.float32)
        if not self._is_packed:
            return scaled
        rows = observations.copy()
        rows[..., : self.scaled_bytes] = scaled.view(np.uint8)
        packed: npt.NDArray[np.uint8] = rows
        return packed

    def of(self, leaf: Leaf) -> tuple[FloatArray, FloatArray] | None:
        """Mean and variance of a leaf, each of its shape; None where it is not scaled."""
        if self._is_packed and leaf.stop > self.scaled_bytes:
            return None
        first = leaf.start // 4
        places = slice(first, first + math.prod(leaf.shape))
        values = (self.statistics.mean, self.statistics.var)
        mean, var = (each.reshape(-1)[places].reshape(leaf.shape) for each in values)
        return mean, var

    def _floats(self, observations: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return observations[..., : self.scaled_bytes].view(np.float32) if self._is_packed else observations


def make_observation_normalizer(
    space: spaces.Space[Any], clip: float, waits: bool = False
) -> ObservationNormalizer | None:
    """The normaliser of a space; None where nothing is scaled, as of images and of what is no number."""
    if isinstance(space, PackedObservations):
        return ObservationNormalizer((space.floats,), clip, True, waits) if space.floats else None
    if isinstance(space, spaces.Box) and not is_scaled_image(space):
        return ObservationNormalizer(space.shape, clip, waits=waits)
    return None


class RewardNormalizer:
    """Reward divided by the running deviation of the discounted return, clipped to ±clip.

    R_t = γ R_{t-1} + r_t per environment, restarted with each episode (37 details, continuous no. 8 and 9).
    """

    def __init__(self, n_envs: int, gamma: float, clip: float, waits: bool = False) -> None:
        self.statistics = RunningMeanStd(())
        self.seen = _waiting(()) if waits else self.statistics
        self.returns: FloatArray = np.zeros(n_envs)
        self.gamma = gamma
        self.clip = clip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from theirs; nothing waits to be merged then."""
        self.statistics.load_state_dict(state)
        if self.seen is not self.statistics:
            self.seen = _waiting(())

    def forget(self, environments: Sequence[int]) -> None:
        """Drops running episodes that are cut without having ended."""
        self.returns[list(environments)] = 0.0

    def __call__(
        self, rewards: FloatArray, dones: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]
    ) -> FloatArray:
        """Scaled rewards, from rewards, whether each ended an episode and whether it is a step, all [N]."""
        self.returns = self.returns * self.gamma + rewards
        self.seen.update(self.returns[valid])
        self.returns[dones] = 0.0
        return self.statistics.scale(rewards, self.clip)
