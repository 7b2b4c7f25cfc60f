"""What steps of environments write, and the record of where they were when a snapshot was taken."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Buffers(NamedTuple):
    """What one step of N environments writes."""

    observations: Array  # [N, *shape]
    rewards: Array  # float64 [N]
    terminated: Array  # bool [N]
    truncated: Array  # bool [N]
    final_obs: Array  # [N, *shape]; only rows whose episode ended are meaningful
    faults: Array  # int64 [N], since the run began
    # where an episode ended:
    env_over: Array  # bool [N], by the environment's own end, and not only the learner's, as with a lost life
    snapshot_starts: Array  # bool [N], whether a snapshot's start came with the next one
    returns: Array  # float64 [N], as `RecordEpisodeStatistics` reported them, else NaN
    has_infos: Array  # bool [N], whether an episode's infos wait to be taken

    def rows(self, group: slice) -> "Buffers":
        """Views of some environments' rows."""
        return Buffers(*(array[group] for array in self))


def allocate(space: gym.Space[Any], n: int, zeros: Callable[..., Array] = np.zeros) -> Buffers:
    """Buffers for N environments.

    Args:
        space: A single environment's observation space.
        n: The number of environments N.
        zeros: The function that allocates an array of a shape and a dtype, by default in plain memory.
    """
    shape = (n, *(space.shape or ()))
    return Buffers(
        observations=zeros(shape, space.dtype),
        rewards=zeros((n,), np.float64),
        terminated=zeros((n,), np.bool_),
        truncated=zeros((n,), np.bool_),
        final_obs=zeros(shape, space.dtype),
        faults=zeros((n,), np.int64),
        env_over=zeros((n,), np.bool_),
        snapshot_starts=zeros((n,), np.bool_),
        returns=zeros((n,), np.float64),
        has_infos=zeros((n,), np.bool_),
    )


class Record(NamedTuple):
    """Where environments were when snapshots of them were taken, an item each.

    Attributes:
        starts: The start of each one's snapshot; None where it has none.
        actions: The actions of each since then, [K, *shape].
        observations: The observation that each returned last, [N, *shape].
        seeds: The seed that each was last given.
        infos: The infos of each one's running episode; None where they are not known.
    """

    starts: Sequence[dict[str, Any] | None]
    actions: Sequence[Array]
    observations: Array
    seeds: Sequence[int | None]
    infos: Sequence[Mapping[str, Any] | None]

    def rows(self, group: slice) -> "Record":
        """The record of some environments."""
        starts, actions, observations, seeds, infos = self
        return Record(starts[group], actions[group], observations[group], seeds[group], infos[group])
