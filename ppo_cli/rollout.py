"""What a rollout holds, [T, N, ...], and how it is cut into minibatches."""

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from ppo_cli.arrays import Array

BUFFERS = (
    "observations", "actions", "rewards", "terminated", "truncated", "valid", "logprobs", "values",
    "intrinsic_values", "states",
)  # fmt: skip


class Rollout:
    """Transitions (state, action, reward, next state, done) of N environments over T steps.

    The buffers are allocated once and written in place. ``observations`` has T + 1 rows: the last is where
    the next rollout begins. An episode that ends at t leaves its true final observation in ``final_obs``;
    row t + 1 then holds the first observation of the next episode.

    It is written to with arrays of NumPy, on the CPU, or with tensors (`take_tensors`).

    Attributes:
        observations: The observations s_t, [T + 1, N, *shape].
        actions: The actions a_t as sampled, [T, N, *action_shape].
        rewards: The rewards r_t, float32 [T, N].
        terminated: Whether the episode ended in a terminal state, bool [T, N].
        truncated: Whether the episode was cut (a time limit), bool [T, N].
        valid: Whether a row is a transition; a backend that resets in a step of its own leaves rows that are
            none, bool [T, N].
        logprobs: The log-probabilities log π(a_t | s_t) of acting, [T, N]; meaningless unless the agent keeps
            its outputs.
        values: The values V(s_t), [T, N]; likewise.
        intrinsic_values: The values of the intrinsic returns, [T, N]; likewise, and where there are any.
        states: The memory's states before step t, zero at an episode's start, [T + 1, N, S]; S may be 0.
        intrinsic_rewards: The intrinsic rewards of the transitions, as they are learned from, [T, N]; None
            where there are none.
    """

    def __init__(
        self,
        n_steps: int,
        n_envs: int,
        obs_shape: tuple[int, ...],
        obs_dtype: torch.dtype,
        action_shape: tuple[int, ...],
        action_dtype: torch.dtype,
        state_size: int = 0,
    ) -> None:
        self.n_steps = n_steps
        self.n_envs = n_envs
        self.observations = torch.zeros((n_steps + 1, n_envs, *obs_shape), dtype=obs_dtype)
        self.actions = torch.zeros((n_steps, n_envs, *action_shape), dtype=action_dtype)
        self.rewards = torch.zeros((n_steps, n_envs))
        self.terminated = torch.zeros((n_steps, n_envs), dtype=torch.bool)
        self.truncated = torch.zeros((n_steps, n_envs), dtype=torch.bool)
        self.valid = torch.ones((n_steps, n_envs), dtype=torch.bool)
        self.logprobs = torch.zeros((n_steps, n_envs))
        self.values = torch.zeros((n_steps, n_envs))
        self.intrinsic_values = torch.zeros((n_steps, n_envs))
        self.states = torch.zeros((n_steps + 1, n_envs, state_size))
        self.intrinsic_rewards: Tensor | None = None
        # numpy views of the same memory: a row of them is cheaper to read and write than one of a tensor
        self._rows: dict[str, Any] = {name: getattr(self, name).numpy() for name in BUFFERS[:6]}
        self._final_at: list[tuple[int, Array]] = []
        self._final_obs: list[Array] = []
        self._final_states: list[Tensor] = []

    def take_tensors(self, device: torch.device) -> None:
        """Moves to a device, and is written to with tensors there from now on."""
        for name in BUFFERS:
            setattr(self, name, getattr(self, name).to(device))
        self._rows = {name: getattr(self, name) for name in BUFFERS[:6]}

    def on_cpu(self) -> "Rollout":
        """Its numbers as they are now, on the CPU: the rollout itself where it is there."""
        if self.observations.device.type == "cpu":
            return self
        moved = copy(self)
        moved.take_tensors(torch.device("cpu"))
        moved._final_at = [(t, envs.cpu()) for t, envs in self._final_at]
        moved._final_obs, moved._final_states = (
            [each.cpu() for each in those] for those in (self._final_obs, self._final_states)
        )
        return moved

    def begin_with(self, observations: Array, envs: Sequence[int] | slice) -> None:
        """Has the next rollout begin with those observations, [K, *shape], in K environments."""
        self._rows["observations"][-1, envs] = observations

    def begin(self) -> None:
        """Starts the next rollout where the last one stopped."""
        self.observations[0] = self.observations[-1]
        self.states[0] = self.states[-1]
        self._final_at.clear()
        self._final_obs.clear()
        self._final_states.clear()

    def add(
        self,
        t: int,
        actions: Array,
        rewards: Array,
        terminated: Array,
        truncated: Array,
        next_obs: Array,
        valid: Array,
    ) -> None:
        """Writes step t of all environments, and the observations that step t + 1 acts on, [N, ...]."""
        observations, *columns = self._rows.values()
        observations[t + 1] = next_obs
        for column, row in zip(columns, (actions, rewards, terminated, truncated, valid), strict=True):
            column[t] = row

    def acting_on(self, t: int) -> Array:
        """The observations that step t acts on, a view [N, *shape]."""
        return self._rows["observations"][t]

    def record(self, t: int, outputs: "ActorOutputs", restarts: Array) -> None:
        """Writes what the agent computed when it acted at step t.

        Args:
            t: The number of the step.
            outputs: The log-probabilities, values, and the memory's states after the step.
            restarts: The environments whose memory begins anew at step t + 1, bool [N].
        """
        self.logprobs[t] = outputs.logprobs
        self.values[t] = outputs.values
        if outputs.intrinsic_values.numel():
            self.intrinsic_values[t] = outputs.intrinsic_values
        self.states[t + 1] = outputs.states
        self.states[t + 1].masked_fill_(torch.as_tensor(restarts).unsqueeze(-1), 0.0)

    def add_final(
        self,
        t: int,
        envs: Array,
        final_obs: Array,
        outputs: "ActorOutputs | None" = None,
    ) -> None:
        """Keeps the observations in which episodes ended at step t, and the memory's states.

        Args:
            t: The number of the step.
            envs: The environments, [K].
            final_obs: Their observations, [K, *shape].
            outputs: The memory's states after the step.
        """
        self._final_at.append((t, envs))
        if isinstance(final_obs, Tensor):
            self._final_obs.append(final_obs.to(self.observations.dtype, copy=True))
        else:
            self._final_obs.append(np.array(final_obs, self._rows["observations"].dtype))
        if outputs is not None:
            self._final_states.append(outputs.states[torch.as_tensor(envs)])

    @property
    def dones(self) -> Tensor:
        """Whether the episode ended at t, in either way, bool [T, N]."""
        return self.terminated | self.truncated

    @property
    def rows(self) -> Tensor:
        """Indices of the transitions among the T*N rows, int64 [M]."""
        return self.valid.flatten().nonzero().squeeze(1)

    @property
    def final_index(self) -> tuple[Tensor, Tensor]:
        """Rows (t, env) of the final observations, two int64 [K]."""
        device = self.observations.device
        if not self._final_at:
            nothing = torch.zeros(0, dtype=torch.int64, device=device)
            return nothing, nothing
        envs = [torch.as_tensor(each) for _, each in self._final_at]
        steps = torch.tensor([t for t, _ in self._final_at]).repeat_interleave(
            torch.tensor([len(each) for each in envs])
        )
        return steps.to(device), torch.cat(envs)

    @property
    def final_obs(self) -> Tensor:
        """Final observations of the episodes that ended, [K, *shape]."""
        if not self._final_obs:
            return self.observations[:0, 0]
        return torch.cat([torch.as_tensor(each) for each in self._final_obs])

    @property
    def final_states(self) -> Tensor:
        """The memory's states there, [K, S]."""
        if self._final_states:
            return torch.cat(self._final_states)
        ended = sum(len(envs) for _, envs in self._final_at)
        return self.states.new_zeros((ended, self.states.shape[-1]))

    @property
    def episode_starts(self) -> Tensor:
        """1 where the memory begins anew at step t, behind an episode's end or a filler row, float [T, N, 1].

        At the first step, the state itself is zero then. Without a memory there is no column, [T, N, 0].
        """
        starts = self.states.new_zeros((self.n_steps, self.n_envs, min(1, self.states.shape[-1])))
        starts[1:] = (self.dones | ~self.valid)[:-1].unsqueeze(-1).float()
        return starts

    @property
    def next_observations(self) -> Tensor:
        """s_{t+1}, the true final one where an episode ended, a copy [T, N, *shape]."""
        next_observations = self.observations[1:].clone()
        next_observations[self.final_index] = self.final_obs
        return next_observations


class ActorOutputs(NamedTuple):
    """What an agent computes when it acts, kept where computing it again would cost more.

    Attributes:
        logprobs: The log-probabilities log π(a | s), [N].
        values: The values V(s), [N].
        states: The memory's states after the step, [N, S].
        intrinsic_values: The values of the intrinsic returns, [N]; [0] where there are none.
    """

    logprobs: Tensor
    values: Tensor
    states: Tensor
    intrinsic_values: Tensor = torch.zeros(0)


class Batch(NamedTuple):
    """A rollout flattened for the update, every axis [T*N, ...].

    What there is no need for is empty: the memory's columns without one, and intrinsic returns.

    Attributes:
        states: The memory's states before each step, [T*N, S].
        episode_starts: Whether the memory begins anew at a step, float [T*N, 1].
        intrinsic_returns: The targets of the intrinsic returns' values, [T*N].
    """

    observations: Tensor
    actions: Tensor
    logprobs: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor
    states: Tensor = torch.zeros(0, 0)
    episode_starts: Tensor = torch.zeros(0, 0)
    intrinsic_returns: Tensor = torch.zeros(0)

    @property
    def columns(self) -> list[Tensor]:
        """Those that hold numbers: what is gathered for a minibatch, and what a compiled step is given."""
        return [column for column in self if column.numel()]

    @staticmethod
    def blank(
        rows: int,
        observation: tuple[tuple[int, ...], torch.dtype],
        action: tuple[tuple[int, ...], torch.dtype],
        state_size: int,
        has_intrinsic: bool,
    ) -> "Batch":
        """A batch of zeros, of which only shapes and dtypes are of interest.

        Args:
            rows: The number of rows T*N.
            observation: The shape and the dtype of an observation.
            action: The shape and the dtype of an action.
            state_size: The size S of the memory's state.
            has_intrinsic: Whether there are intrinsic returns.
        """
        (obs_shape, obs_dtype), (action_shape, action_dtype) = observation, action
        return Batch(
            torch.zeros((rows, *obs_shape), dtype=obs_dtype),
            torch.zeros((rows, *action_shape), dtype=action_dtype),
            torch.zeros(rows), torch.zeros(rows), torch.zeros(rows), torch.zeros(rows),
            torch.zeros(rows, state_size),
            torch.zeros(rows, min(1, state_size)),
            torch.zeros(rows if has_intrinsic else 0),
        )  # fmt: skip

    def with_columns(self, columns: Iterable[Tensor]) -> "Batch":
        """A batch that has others in place of its `columns`."""
        others = iter(columns)
        return Batch(*(next(others) if column.numel() else column for column in self))


class Sequences(NamedTuple):
    """A rollout's steps as sequences, of which minibatches are made: single rows, or several for a memory.

    Attributes:
        rows: The indices of each sequence's rows, int64 [C, L]; behind the rollout's end they are others'.
        weights: 0 for rows that are no transitions or lie behind the rollout's end, else 1, float32 [C, L].
        used: The sequences with a transition, int64 [U].
        total: The number of rows in the rollout, T*N.
    """

    rows: Tensor
    weights: Tensor
    used: Tensor
    total: int


def sequences(valid: Tensor, length: int) -> Sequences:
    """Cuts each environment's steps into sequences.

    Args:
        valid: Whether a row is a transition, bool [T, N].
        length: The steps of a sequence L.
    """
    n_steps, n_envs = valid.shape
    firsts = torch.arange(0, n_steps, length)
    steps = firsts.view(-1, 1, 1) + torch.arange(length)  # [T / L, 1, L]
    envs = torch.arange(n_envs).view(1, -1, 1)
    inside = (steps < n_steps).expand(-1, n_envs, -1)
    rows = (steps.clamp(max=n_steps - 1) * n_envs + envs).reshape(-1, length)  # [T / L, N, L] -> [C, L]
    weights = (inside.reshape(-1, length) & valid.flatten()[rows]).float()
    return Sequences(rows, weights, weights.any(1).nonzero().squeeze(1), valid.numel())


def minibatches(cut: Sequences, size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's minibatches: a fresh shuffle of the sequences, cut into pieces of one shape.

    The last piece is padded with rows of weight 0, so that every transition is visited once an epoch.

    Args:
        cut: The sequences.
        size: The rows in a minibatch, about: there are max(1, size // L) sequences in one, or all of them
            where ``size`` is at least T*N.
        generator: Draws the permutation.

    Yields:
        Row indices, int64 [K*L], sequence by sequence, and weights, float32 [K*L].
    """
    length = cut.rows.shape[1]
    order = cut.used[torch.randperm(len(cut.used), generator=generator)]
    count = len(cut.rows) if size >= cut.total else max(1, size // length)
    padding = -len(order) % count
    if padding:
        order = torch.cat([order, order.new_zeros(padding)])
    rows, weights = cut.rows[order], cut.weights[order]
    if padding:
        weights[-padding:] = 0.0
    yield from zip(rows.view(-1, count * length), weights.view(-1, count * length), strict=True)
