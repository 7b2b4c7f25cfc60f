"""Rollout buffers and minibatches."""

import math

import numpy as np
import pytest
import torch

from ppo_cli.rollout import Rollout, minibatches, sequences


def epoch(n_rows: int, batch_size: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(minibatches(sequences(every(n_rows), 1), batch_size, torch.Generator().manual_seed(seed)))


def every(n_rows: int) -> torch.Tensor:
    """Rows of one environment, all of them transitions."""
    return torch.ones(n_rows, 1, dtype=torch.bool)


@pytest.mark.parametrize(
    ("n_rows", "batch_size"),
    [(12, 4), (13, 4), (15, 4), (1, 1), (1, 64), (7, 6), (7, 7), (7, 8), (5, 1), (64, 48)],
)
def test_every_row_is_visited_once_an_epoch(n_rows: int, batch_size: int) -> None:
    pieces = epoch(n_rows, batch_size)
    assert len(pieces) == math.ceil(n_rows / batch_size)
    visits = torch.zeros(n_rows)
    for indices, weights in pieces:
        assert indices.shape == weights.shape == (min(batch_size, n_rows),)
        assert indices.dtype == torch.int64
        visits.index_add_(0, indices, weights)
    assert visits.tolist() == [1.0] * n_rows


def test_only_the_last_piece_is_padded() -> None:
    *full, (_, last) = epoch(22, 8)
    assert all((weights == 1).all() for _, weights in full)
    assert last.tolist() == [1.0] * 6 + [0.0] * 2


def test_padding_rows_are_real_rows() -> None:
    indices, _ = epoch(22, 8)[-1]
    assert ((indices >= 0) & (indices < 22)).all()


def test_rows_left_out_are_never_visited() -> None:
    rows = torch.tensor([0, 1, 3, 4, 8, 9, 11])
    valid = torch.zeros(12, dtype=torch.bool)
    valid[rows] = True
    pieces = list(minibatches(sequences(valid.view(4, 3), 1), 4, torch.Generator().manual_seed(0)))
    visited = torch.cat([indices[weights > 0] for indices, weights in pieces])
    assert sorted(visited.tolist()) == rows.tolist()
    assert all(indices.shape == (4,) for indices, _ in pieces)


def test_a_size_above_the_rows_is_one_minibatch_of_them() -> None:
    ((indices, weights),) = minibatches(sequences(every(10), 1), 16, torch.Generator().manual_seed(0))
    assert sorted(indices[weights > 0].tolist()) == list(range(10))
    assert indices.shape == weights.shape == (10,)


@pytest.mark.parametrize("left_out", [[], [0], [3, 4, 11]])
@pytest.mark.parametrize("size", [1, 5, 6, 12])
def test_single_rows_are_shuffled_and_padded_as_a_plain_list_of_them(left_out: list[int], size: int) -> None:
    valid = torch.ones(12, dtype=torch.bool)
    valid[left_out] = False
    rows = valid.nonzero().squeeze(1)
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(7))]
    padding = -len(rows) % size
    expected = torch.cat([order, torch.zeros(padding, dtype=torch.int64)])
    pieces = list(minibatches(sequences(valid.view(4, 3), 1), size, torch.Generator().manual_seed(7)))
    assert torch.equal(torch.cat([indices for indices, _ in pieces]), expected)
    weights = torch.cat([weights for _, weights in pieces])
    assert weights.tolist() == [1.0] * len(rows) + [0.0] * padding


def test_filler_rows_are_no_transitions() -> None:
    rollout = make_rollout()
    rollout.begin()
    fill(rollout)
    assert rollout.rows.tolist() == list(range(8))
    never = np.zeros(2, bool)
    rollout.add(1, np.array([0, 0]), np.zeros(2), never, never, np.zeros((2, 3)), np.array([True, False]))
    assert rollout.rows.tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_epochs_are_shuffled_anew_and_repeat_with_the_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.cat([indices for indices, _ in minibatches(sequences(every(100), 1), 10, generator)])
    second = torch.cat([indices for indices, _ in minibatches(sequences(every(100), 1), 10, generator)])
    again = torch.cat([indices for indices, _ in epoch(100, 10)])
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.arange(100))
    assert torch.equal(first, again)


def make_rollout(n_steps: int = 4, n_envs: int = 2, dtype: torch.dtype = torch.float32) -> Rollout:
    return Rollout(n_steps, n_envs, (3,), dtype, (), torch.int64)


def fill(rollout: Rollout, offset: float = 0.0) -> None:
    """Steps whose observation after step t of environment n is offset + 10 (t + 1) + n; nothing ends."""
    for t in range(rollout.n_steps):
        n = np.arange(rollout.n_envs)
        never = np.zeros(rollout.n_envs, bool)
        obs = np.repeat(offset + 10.0 * (t + 1) + n[:, None], 3, axis=1)
        rollout.add(t, n + t, n * 1.0, never, never, obs, ~never)


def test_steps_land_in_their_rows() -> None:
    rollout = make_rollout()
    rollout.begin()
    fill(rollout)
    rollout.add(
        2,
        np.array([5, 6]),
        np.array([0.5, -0.5]),
        np.array([True, False]),
        np.array([False, True]),
        7.0,
        np.ones(2, bool),
    )
    assert rollout.actions.tolist() == [[0, 1], [1, 2], [5, 6], [3, 4]]
    assert rollout.rewards[2].tolist() == [0.5, -0.5]
    assert rollout.terminated.nonzero().tolist() == [[2, 0]]
    assert rollout.truncated.nonzero().tolist() == [[2, 1]]
    assert rollout.dones.nonzero().tolist() == [[2, 0], [2, 1]]
    assert rollout.observations[:, :, 0].tolist() == [[0, 0], [10, 11], [20, 21], [7, 7], [40, 41]]


def test_next_observations_hold_the_true_final_one() -> None:
    rollout = make_rollout()
    rollout.begin()
    fill(rollout)
    rollout.add_final(1, np.array([0]), np.full((1, 3), 101.0))
    rollout.add_final(3, np.array([1]), np.full((1, 3), 102.0))
    rollout.add_final(1, np.array([1]), np.full((1, 3), 103.0))
    assert rollout.next_observations[:, :, 0].tolist() == [[10, 11], [101, 103], [30, 31], [40, 102]]
    # the step after it still acts on the first observation of the next episode
    assert rollout.observations[1:, :, 0].tolist() == [[10, 11], [20, 21], [30, 31], [40, 41]]
    t, env = rollout.final_index
    assert list(zip(t.tolist(), env.tolist(), strict=True)) == [(1, 0), (3, 1), (1, 1)]


def test_next_observations_without_an_end_are_the_following_rows() -> None:
    rollout = make_rollout()
    rollout.begin()
    fill(rollout)
    assert torch.equal(rollout.next_observations, rollout.observations[1:])
    assert rollout.final_obs.shape == (0, 3)
    rollout.next_observations.fill_(-1)
    assert (rollout.observations[1:] > 0).all()


def test_the_next_rollout_goes_on_where_the_last_one_stopped() -> None:
    rollout = make_rollout()
    rollout.begin()
    fill(rollout)
    rollout.add_final(1, np.array([0]), np.full((1, 3), 101.0))
    addresses = [buffer.data_ptr() for buffer in (rollout.observations, rollout.actions, rollout.rewards)]
    rollout.begin()
    assert rollout.observations[0, :, 0].tolist() == [40, 41]
    assert len(rollout.final_obs) == 0
    fill(rollout, offset=100)
    assert rollout.next_observations[1, 0, 0] == 120
    assert addresses == [b.data_ptr() for b in (rollout.observations, rollout.actions, rollout.rewards)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_an_environment_may_reuse_its_arrays(dtype: torch.dtype) -> None:
    rollout = make_rollout(dtype=dtype)
    reused = torch.full((2, 3), 5, dtype=dtype).numpy()
    never, rewards = np.zeros(2, bool), np.ones(2)
    rollout.begin()
    rollout.add(0, np.array([1, 1]), rewards, never, never, reused, ~never)
    rollout.add_final(0, np.array([1]), reused[1:])
    reused[:] = 9
    rewards[:] = 9
    assert (rollout.observations[1] == 5).all()
    assert (rollout.rewards[0] == 1).all()
    assert (rollout.final_obs == 5).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integers_keep_their_dtype(dtype: torch.dtype) -> None:
    rollout = make_rollout(dtype=dtype)
    rollout.begin()
    fill(rollout)
    rollout.add_final(0, np.array([0]), np.array([[255, 0, 7]], dtype=np.uint8))
    assert rollout.final_obs.dtype == rollout.next_observations.dtype == dtype
    assert rollout.next_observations[0, 0].tolist() == [255, 0, 7]
