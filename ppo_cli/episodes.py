"""Returns and lengths of episodes: while they run in many environments, and those of an evaluation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ppo_cli.arrays import NUMPY, Array, Arrays
from ppo_cli.statistics import iqm


class Ended(NamedTuple):
    """Raw returns and lengths of episodes that ended."""

    returns: Sequence[float] = ()
    lengths: Sequence[int] = ()

    def means(self) -> tuple[float, float]:
        """Mean return and length; NaN where there is none."""
        if not self.returns:
            return math.nan, math.nan
        return float(np.mean(self.returns)), float(np.mean(self.lengths))


@dataclass
class EpisodeStatistics:
    """Raw returns and lengths of the episodes that end in an iteration, for N environments at once.

    Attributes:
        n_envs: The number of environments N.
        cut: The number of episodes that resuming cut, since the run began; 0 in one that is exact.
    """

    n_envs: int

    def __post_init__(self) -> None:
        self.cut = 0
        self.take_kind(NUMPY)

    def take_kind(self, arrays: Arrays) -> None:
        """Takes in steps of that kind from now on; there are none before."""
        self._arrays = arrays
        self._returns = arrays.zeros(self.n_envs)
        self._lengths = arrays.zeros(self.n_envs, "int64")
        self._waiting: list[Array] = []

    def step(self, rewards: Array, dones: Array, valid: Array, info: Mapping[str, Any] | None = None) -> None:
        """Takes in a step of all environments.

        An episode that only the learner's life ended goes on here; a return that `RecordEpisodeStatistics`
        reported, from below wrappers that change rewards, counts instead of the sum of the rewards.

        Args:
            rewards: The raw rewards, float64 [N].
            dones: Whether each ended an episode, bool [N].
            valid: Whether each is a step at all, bool [N].
            info: The vector's info, with ``env_over`` and ``returns``, [N] each, where a backend knows them.
        """
        self._returns += rewards
        self._lengths += valid
        arrays = self._arrays
        if not arrays.is_any(dones):
            return
        reported = self._returns
        if info is not None and "env_over" in info:
            dones = dones & info["env_over"]
            reported = arrays.where(arrays.isnan(info["returns"]), self._returns, info["returns"])
        rows = arrays.rows(dones)
        self._waiting.append(arrays.waiting([reported[rows], self._lengths[rows]], dones))
        for column in (self._returns, self._lengths):
            arrays.clear(column, dones)

    def take(self) -> Ended:
        """The episodes that ended since the last call."""
        waiting, self._waiting = self._waiting, []
        pairs = self._arrays.lists(waiting) if waiting else []
        return Ended([total for total, _ in pairs], [int(length) for _, length in pairs])

    def forget(self, environments: Sequence[int]) -> None:
        """Drops running episodes that are cut without having ended."""
        self._returns[list(environments)] = 0.0
        self._lengths[list(environments)] = 0
        self.cut += len(environments)

    def state_dict(self) -> dict[str, Any]:
        """Return and length of the running episodes so far, and `cut`, as a checkpoint stores them."""
        return {"returns": self._returns, "lengths": self._lengths, "cut": self.cut}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the running episodes from `state_dict`."""
        returns, lengths = np.asarray(state["returns"]), np.asarray(state["lengths"])
        forms = [(array.shape, array.dtype.name) for array in (returns, lengths)]
        if forms != [((self.n_envs,), "float64"), ((self.n_envs,), "int64")]:
            raise ValueError(f"episodes of {len(returns)} environments, where there are {self.n_envs}")
        self._returns = self._arrays.own(returns, "float64")
        self._lengths = self._arrays.own(lengths, "int64")
        self.cut = int(state.get("cut", 0))  # older checkpoints have none


@dataclass(frozen=True)
class Evaluation:
    """Undiscounted returns and lengths of the episodes, in the order of their seeds.

    Attributes:
        infos: The means over the episodes of what the environment tells in ``info``, by key.
    """

    returns: list[float]
    lengths: list[int]
    infos: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Population standard deviation of the returns."""
        return float(np.std(self.returns))

    @property
    def iqm(self) -> float:
        """Interquartile mean: the mean without the lowest and highest quarter (Agarwal et al. 2021)."""
        return float(iqm(self.returns))
