"""What a rollout holds, [T, N, ...], and how it is cut into minibatches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor


class Rollout:
    """Transitions (state, action, reward, next state, done) of N environments over T steps.

    The buffers are allocated once and written in place. ``observations`` has T + 1 rows: the last is where
    the next rollout begins. An episode that ends at t leaves its true final observation in ``final_obs``;
    row t + 1 then holds the first observation of the next episode.

    Attributes:
        observations: s_t, [T + 1, N, *shape].
        actions: a_t as sampled, [T, N, *action_shape].
        rewards: r_t, float32 [T, N].
        terminated: the episode ended in a terminal state, bool [T, N].
        truncated: the episode was cut (a time limit), bool [T, N].
    """

    def __init__(
        self,
        n_steps: int,
        n_envs: int,
        obs_shape: tuple[int, ...],
        obs_dtype: torch.dtype,
        action_shape: tuple[int, ...],
        action_dtype: torch.dtype,
    ) -> None:
        self.n_steps = n_steps
        self.n_envs = n_envs
        self.observations = torch.zeros((n_steps + 1, n_envs, *obs_shape), dtype=obs_dtype)
        self.actions = torch.zeros((n_steps, n_envs, *action_shape), dtype=action_dtype)
        self.rewards = torch.zeros((n_steps, n_envs))
        self.terminated = torch.zeros((n_steps, n_envs), dtype=torch.bool)
        self.truncated = torch.zeros((n_steps, n_envs), dtype=torch.bool)
        # numpy views of the same memory: writing a row through them costs a tenth of a tensor assignment
        self._views = [
            buffer.numpy()
            for buffer in (self.actions, self.rewards, self.terminated, self.truncated, self.observations)
        ]
        self._final_at: list[tuple[int, int]] = []
        self._final_obs: list[Tensor] = []

    def begin(self) -> None:
        """Starts the next rollout where the last one stopped."""
        self.observations[0] = self.observations[-1]
        self._final_at.clear()
        self._final_obs.clear()

    def add(
        self,
        t: int,
        actions: npt.NDArray[np.generic],
        rewards: npt.NDArray[np.floating],
        terminated: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
        next_obs: npt.NDArray[np.generic],
    ) -> None:
        """Writes step t of all environments, and the observations that step t + 1 acts on, [N, ...]."""
        rows = (actions, rewards, terminated, truncated)
        for view, row in zip(self._views, rows, strict=False):
            view[t] = row
        self._views[-1][t + 1] = next_obs

    def add_final(self, t: int, env: int, final_obs: npt.NDArray[np.generic]) -> None:
        """Keeps the observation [*shape] in which an environment's episode ended at step t."""
        self._final_at.append((t, env))
        self._final_obs.append(torch.as_tensor(final_obs).to(self.observations.dtype, copy=True))

    @property
    def dones(self) -> Tensor:
        """Whether the episode ended at t, in either way, bool [T, N]."""
        return self.terminated | self.truncated

    @property
    def final_index(self) -> tuple[Tensor, Tensor]:
        """Rows (t, env) of the final observations, two int64 [K]."""
        t, env = torch.tensor(self._final_at, dtype=torch.int64).reshape(-1, 2).unbind(1)
        return t, env

    @property
    def final_obs(self) -> Tensor:
        """Final observations of the episodes that ended, [K, *shape]."""
        return torch.stack(self._final_obs) if self._final_obs else self.observations[:0, 0]

    @property
    def next_observations(self) -> Tensor:
        """s_{t+1}, the true final one where an episode ended, a copy [T, N, *shape]."""
        next_observations = self.observations[1:].clone()
        next_observations[self.final_index] = self.final_obs
        return next_observations


class Batch(NamedTuple):
    """A rollout flattened for the update, every axis [T*N, ...]."""

    observations: Tensor
    actions: Tensor
    logprobs: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor


def minibatches(n_rows: int, batch_size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's minibatches: a fresh shuffle of all rows, cut into pieces.

    The last piece is padded to the common size with rows of weight 0, so that every row is visited once an
    epoch and all pieces have one shape.

    Args:
        n_rows: number of rows T*N.
        batch_size: rows in a minibatch; above ``n_rows`` there is one full batch.
        generator: draws the permutation.

    Yields:
        Row indices, int64 [B], and weights, float32 [B].
    """
    size = min(batch_size, n_rows)
    order = torch.randperm(n_rows, generator=generator)
    padding = -n_rows % size
    indices = torch.cat([order, order[:padding]]).reshape(-1, size)  # [ceil(T*N / B), B]
    weights = torch.ones(n_rows + padding)
    weights[n_rows:] = 0.0
    yield from zip(indices, weights.reshape(-1, size), strict=True)
