"""Spaces: adapted actions are members of the action space, observations fit their buffers."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from ppo_cli.distributions import make_distribution
from ppo_cli.normalize import stored_observation
from ppo_cli.spaces import PackedActions

ACTION_SPACES = [
    spaces.Discrete(4),
    spaces.Discrete(4, start=-7),
    spaces.Discrete(3, start=100),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([2, 3], start=[5, -5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[1, 2], [3, 4]])),
    spaces.MultiDiscrete([2, 3], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
    spaces.Box(-1, 1, (2,)),
    spaces.Box(-0.1, 0.3, (2,), np.float64),
    spaces.Box(-1, 1, (2, 3)),
    spaces.Box(-1, 1, ()),
    spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([-1.0, 7.0], np.float32)),
    spaces.Box(-np.inf, np.inf, (2,)),
    spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, 0.0], np.float32)),
    spaces.Box(-3, 3, (2,), np.int64),
    spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(-128, 127, (2, 2), np.int8),
]
N = 40


def stored_actions(space: spaces.Space, scale: float = 30.0) -> np.ndarray:
    """Actions as the policy samples them, Gaussian ones far beyond most bounds."""
    distribution = make_distribution(space)
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(N, distribution.logits_size)
    if isinstance(space, spaces.Box):
        logits[:, distribution.logits_size // 2 :] = np.log(scale)
    return distribution.sample(logits, distribution.noise((N,), generator)).numpy()


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_adapted_actions_belong_to_the_space(space: spaces.Space) -> None:
    stored = stored_actions(space)
    before = stored.copy()
    adapted = make_distribution(space).to_env(stored)
    assert len(adapted) == N
    assert adapted.shape[1:] == space.shape
    # as evaluation sends them, one by one; of an array scalar (0-d Box) contains() would warn
    assert all(
        space.contains(np.asarray(action) if isinstance(space, spaces.Box) else action) for action in adapted
    )
    assert batch_space(space, N).contains(adapted)  # as a vector environment gets them
    assert np.array_equal(stored, before)  # the stored ones stay as they were sampled


@pytest.mark.parametrize(
    ("space", "stored", "sent"),
    [
        (spaces.Discrete(3, start=-1), [0, 1, 2], [-1, 0, 1]),
        (spaces.Discrete(3, start=1, dtype=np.int32), [0, 1, 2], [1, 2, 3]),
        (spaces.MultiDiscrete([2, 3], start=[5, -5]), [[0, 0], [1, 2]], [[5, -5], [6, -3]]),
        (
            spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 10], [20, 30]])),
            [[0, 1, 2, 3]],
            [[[0, 11], [22, 33]]],
        ),
        (spaces.MultiBinary((2, 2)), [[1.0, 0.0, 0.0, 1.0]], [[[1, 0], [0, 1]]]),
        (spaces.Box(-1, 1, (2,)), [[-5.0, 0.25], [1.5, -1.0]], [[-1.0, 0.25], [1.0, -1.0]]),
        (spaces.Box(-1, 1, ()), [[-5.0], [0.25]], [-1.0, 0.25]),
        (spaces.Box(-1, 1, (2, 2)), [[1.0, 0.5, -0.5, 9.0]], [[[1.0, 0.5], [-0.5, 1.0]]]),
        (spaces.Box(-np.inf, np.inf, (1,)), [[-1e6], [3.5]], [[-1e6], [3.5]]),
        (spaces.Box(-3, 3, (4,), np.int32), [[-9.0, -0.6, 0.4, 2.7]], [[-3, -1, 0, 3]]),
        (spaces.Box(0, 255, (3,), np.uint8), [[-4.0, 300.0, 254.6]], [[0, 255, 255]]),
    ],
    ids=str,
)
def test_adapted_actions_by_hand(space: spaces.Space, stored: list, sent: list) -> None:
    dtype = make_distribution(space).action_dtype
    adapted = make_distribution(space).to_env(torch.tensor(stored, dtype=dtype).numpy())
    assert adapted.tolist() == sent
    assert adapted.dtype == space.dtype


@pytest.mark.parametrize(
    "space", [s for s in ACTION_SPACES if isinstance(s, spaces.Box) and s.is_bounded()], ids=str
)
def test_squashed_actions_reach_the_whole_space_and_no_further(space: spaces.Space) -> None:
    adapt = make_distribution(space, squash=True).to_env
    size = int(np.prod(space.shape))
    ends = adapt(np.repeat(np.array([[-50.0], [0.0], [50.0]], np.float32), size, axis=1))
    low, middle, high = (end.astype(np.float64) for end in ends)
    np.testing.assert_allclose(low, space.low, atol=1e-6)
    np.testing.assert_allclose(high, space.high, atol=1e-6)
    tolerance = 0.5 if np.issubdtype(space.dtype, np.integer) else 1e-6
    np.testing.assert_allclose(middle, (space.low.astype(np.float64) + space.high) / 2, atol=tolerance)


@pytest.mark.parametrize("space", [s for s in ACTION_SPACES if not isinstance(s, spaces.Box)], ids=str)
def test_different_actions_stay_different(space: spaces.Space) -> None:
    stored = stored_actions(space)
    adapted = make_distribution(space).to_env(stored)
    assert len(np.unique(stored, axis=0)) == len(np.unique(adapted, axis=0))


def test_every_discrete_action_can_be_sent() -> None:
    space = spaces.Discrete(4, start=3)
    assert make_distribution(space).to_env(np.arange(4)).tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("space", "normalized", "expected"),
    [
        (spaces.Box(-1, 1, (3,), np.float64), False, ((3,), torch.float32)),
        (spaces.Box(-1, 1, ()), False, ((), torch.float32)),
        (spaces.Box(0, 255, (4, 4), np.uint8), False, ((4, 4), torch.uint8)),
        (spaces.Box(0, 255, (4, 4), np.uint8), True, ((4, 4), torch.float32)),
        (spaces.Discrete(3), False, ((), torch.int64)),
        (spaces.MultiDiscrete(np.array([[2, 3]])), False, ((1, 2), torch.int64)),
        (spaces.MultiBinary((2, 3)), False, ((2, 3), torch.float32)),
    ],
    ids=str,
)
def test_stored_observation(space: spaces.Space, normalized: bool, expected: tuple) -> None:
    assert stored_observation(space, normalized) == expected


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (3,)),
        spaces.Box(0, 255, (4, 4), np.uint8),
        spaces.Discrete(3, start=-1),
        spaces.MultiDiscrete([3, 200], start=[-9, 2]),
        spaces.MultiBinary(5),
    ],
    ids=str,
)
def test_observations_survive_their_buffer(space: spaces.Space) -> None:
    shape, dtype = stored_observation(space, normalized=False)
    space.seed(0)
    for _ in range(20):
        observation = space.sample()
        buffer = torch.zeros(shape, dtype=dtype)
        buffer[...] = torch.as_tensor(observation)
        assert np.array_equal(buffer.numpy(), observation)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), PackedActions(spaces.Dict({}))], ids=str)
def test_an_empty_action_space_is_refused(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match="holds no values"):
        make_distribution(space)


def test_bounds_too_far_apart_to_squash_into() -> None:
    with pytest.raises(ValueError, match="squash_actions=true needs finite bounds"):
        make_distribution(spaces.Box(-3e38, 3e38, (2,)), squash=True)


LOW = np.arange(6, dtype=np.float32).reshape(2, 3)
MULTI_LINE = spaces.Box(LOW, LOW + 9)  # its repr takes several lines


@pytest.mark.parametrize(
    "space", [spaces.Dict({"image": MULTI_LINE}), spaces.Tuple([MULTI_LINE]), spaces.Text(3)]
)
def test_unsupported_action_spaces_are_named_in_one_line(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match=f"unsupported action space {type(space).__name__}") as caught:
        make_distribution(space)
    assert "\n" not in str(caught.value)
