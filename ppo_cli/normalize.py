"""Running statistics that normalise observations and rewards while an agent trains."""

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from ppo_cli.arrays import NUMPY, Array, Arrays
from ppo_cli.spaces import Leaf, PackedObservations, is_scaled_image

FloatArray = npt.NDArray[np.float64]
EPSILON = 1e-8


class RunningMeanStd:
    """Mean and (population) variance of a stream of batches, in float64.

    Batches are merged with the parallel algorithm of Chan et al. 1979. It starts as if it had seen 1e-4
    samples of mean 0 and variance 1, as OpenAI Baselines does.
    """

    def __init__(self, shape: tuple[int, ...], may_shrink: bool = False) -> None:
        """Starts, with arrays of NumPy.

        Args:
            shape: The shape of a sample.
            may_shrink: Whether statistics of fewer numbers, the first ones, may be loaded.
        """
        self._may_shrink, self._arrays = may_shrink, NUMPY
        self.mean: Array = np.zeros(shape)
        self.var: Array = np.ones(shape)
        self.count: Any = 1e-4

    def take_kind(self, arrays: Arrays) -> None:
        """Takes in batches of that kind from now on, and is of it."""
        self._arrays = arrays
        self.mean, self.var = (arrays.own(each, "float64") for each in (self.mean, self.var))

    def update(self, batch: Array, counts: Array | None = None) -> None:
        """Takes in a batch, float64 [N, *shape], which may be empty, or those rows of it that count."""
        moments = self._arrays.moments(batch, counts)
        if moments is not None:
            self._merge(*moments)

    def merge(self, other: "RunningMeanStd") -> None:
        """Takes in what others have seen, which may be nothing."""
        if other.count:
            self._merge(other.mean, other.var * other.count, other.count)

    def _merge(self, mean: Array, squares: Array, n: Any) -> None:  # noqa: ANN401 - a number, of a device perhaps
        """Takes in n samples of that mean, with the sum of their squared deviations from it."""
        total = self.count + n
        divisor = total + (total == 0)  # of nothing and nothing, on a device that is not asked
        delta = mean - self.mean
        sum_of_squares = self.var * self.count + squares
        self.var = (sum_of_squares + delta * delta * (self.count * n / divisor)) / divisor
        self.mean = self.mean + delta * (n / divisor)
        self.count = total

    def forget(self) -> None:
        """Has it seen nothing, not even what it starts with."""
        shape = tuple(self.mean.shape)
        self.mean, self.var, self.count = self._arrays.zeros(shape), self._arrays.zeros(shape), 0.0

    def scale(self, values: Array, clip: float, center: Array | float = 0.0) -> Array:
        """(values - center) / sqrt(var + 1e-8), clipped to ±clip."""
        return self._arrays.clip((values - center) / self._arrays.sqrt(self.var + EPSILON), clip)

    def state_dict(self) -> dict[str, Any]:
        """The statistics, as a checkpoint stores them."""
        return {"mean": self.mean, "var": self.var, "count": float(self.count)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from `state_dict`, whose arrays a checkpoint gives back as tensors.

        Raises:
            ValueError: they are of another shape, or a variance is below 0.
        """
        mean, var = (
            torch.as_tensor(state[name], dtype=torch.float64).cpu().numpy().copy() for name in ("mean", "var")
        )
        own = tuple(self.mean.shape)
        fits = mean.shape == own or (self._may_shrink and mean.ndim == 1 and mean.size < math.prod(own))
        if not fits or var.shape != mean.shape or (var < 0).any():
            raise ValueError(f"statistics of shape {mean.shape}, where {own} is normalised")
        self.mean, self.var, self.count = mean, var, float(state["count"])
        self.take_kind(self._arrays)


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
        self._arrays = NUMPY

    def take_kind(self, arrays: Arrays) -> None:
        """Takes in observations of that kind from now on, and is of it."""
        self._arrays = arrays
        for statistics in (self.statistics, self.seen):
            statistics.take_kind(arrays)

    def in_numpy(self) -> "ObservationNormalizer":
        """One that normalises arrays of NumPy by the statistics as they are now."""
        copied = copy(self)
        copied.statistics = copied.seen = copy(self.statistics)
        copied.take_kind(NUMPY)
        return copied

    @property
    def scaled_bytes(self) -> int:
        """How many bytes at the beginning of a packed row are scaled."""
        return 4 * int(math.prod(self.statistics.mean.shape))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from theirs; nothing waits to be merged then."""
        self.statistics.load_state_dict(state)
        if self.seen is not self.statistics:
            self.seen = _waiting(tuple(self.statistics.mean.shape))
            self.seen.take_kind(self._arrays)

    def update(self, observations: Array, counts: Array | None = None) -> None:
        """Takes in the observations of one step, [N, *shape], or those of them that count, bool [N]."""
        self.seen.update(self._arrays.cast(self._floats(observations), "float64"), counts)

    def __call__(self, observations: Array) -> Array:
        """Normalised observations, [..., *shape] float32 (or bytes); the statistics stay as they are."""
        arrays = self._arrays
        values = arrays.cast(self._floats(observations), "float64")
        scaled = arrays.cast(self.statistics.scale(values, self.clip, self.statistics.mean), "float32")
        if not self._is_packed:
            return scaled
        rows = arrays.copy(observations)
        rows[..., : self.scaled_bytes] = arrays.view(scaled, "uint8")
        return rows

    def of(self, leaf: Leaf) -> tuple[FloatArray, FloatArray] | None:
        """Mean and variance of a leaf, each of its shape; None where it is not scaled."""
        if self._is_packed and leaf.stop > self.scaled_bytes:
            return None
        first = leaf.start // 4
        places = slice(first, first + math.prod(leaf.shape))
        values = (self.statistics.mean, self.statistics.var)
        mean, var = (each.reshape(-1)[places].reshape(leaf.shape) for each in values)
        return mean, var

    def _floats(self, observations: Array) -> Array:
        if not self._is_packed:
            return observations
        return self._arrays.view(observations[..., : self.scaled_bytes], "float32")


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
        self.returns: Array = np.zeros(n_envs)
        self.gamma = gamma
        self.clip = clip
        self._arrays = NUMPY

    def take_kind(self, arrays: Arrays) -> None:
        """Takes in rewards of that kind from now on, and is of it."""
        self._arrays = arrays
        self.returns = arrays.own(self.returns, "float64")
        for statistics in (self.statistics, self.seen):
            statistics.take_kind(arrays)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the statistics from theirs; nothing waits to be merged then."""
        self.statistics.load_state_dict(state)
        if self.seen is not self.statistics:
            self.seen = _waiting(())
            self.seen.take_kind(self._arrays)

    def go_on(self, returns: Any) -> None:  # noqa: ANN401 - an array, or a tensor of a checkpoint
        """Sets the discounted returns of the running episodes, [N]."""
        self.returns = self._arrays.own(returns, "float64")

    def forget(self, environments: Sequence[int]) -> None:
        """Drops running episodes that are cut without having ended."""
        self.returns[list(environments)] = 0.0

    def __call__(self, rewards: Array, dones: Array, valid: Array) -> Array:
        """Scaled rewards, from rewards, whether each ended an episode and whether it is a step, all [N]."""
        self.returns = self.returns * self.gamma + rewards
        self.seen.update(self.returns, valid)
        self._arrays.clear(self.returns, dones)
        return self.statistics.scale(rewards, self.clip)
