"""Nested spaces as rows: what goes in comes out, and normalisation touches the floats alone."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import FlattenEncoder, OneHotEncoder, make_encoder
from ppo_cli.envs.pack import ObservationCheck, pack
from ppo_cli.normalize import ObservationNormalizer
from ppo_cli.spaces import PackedActions, PackedObservations, walk

EVERYTHING = spaces.Dict(
    {
        "bytes": spaces.Box(0, 255, (3,), np.uint8),  # odd sizes, so that alignment shows
        "bits": spaces.MultiBinary(5),
        "a.b": spaces.Box(-1, 1, (2, 3), np.float64),
        "scalar": spaces.Box(-5, 5, (), np.float32),
        "deep": spaces.Tuple(
            [
                spaces.Discrete(4, start=-2),
                spaces.Dict({"many": spaces.MultiDiscrete([[3, 4], [5, 6]]), "nothing": spaces.Dict({})}),
                spaces.Box(-100, 100, (3,), np.int32),
            ]
        ),
        "half": spaces.Box(0, 1, (1,), np.float16),
        "switch": spaces.Box(0, 1, (2,), np.bool_),
        "signed": spaces.Box(-128, 127, (2,), np.int8),
    }
)


class Given(gym.Env):
    """Gives what it is told to give."""

    def __init__(self, space, actions=None):
        self.observation_space, self.action_space = space, actions or spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.value, {}

    def step(self, action):
        self.taken = action
        return self.value, 0.0, False, False, {}


def packed_samples(space, n):
    """The packed space, and n samples nested and packed."""
    env = Given(space)
    wrapped = pack(env, False)
    space.seed(0)
    nested, rows = [], []
    for _ in range(n):
        env.value = space.sample()
        nested.append(env.value)
        rows.append(wrapped.reset()[0])
    return wrapped.observation_space, nested, np.stack(rows)


def test_a_round_trip_keeps_every_bit():
    packed, nested, rows = packed_samples(EVERYTHING, 20)
    assert rows.dtype == np.uint8
    assert all(packed.contains(row) for row in rows)
    assert {leaf.path for leaf in packed.leaves} == {path for path, _ in walk(EVERYTHING)}
    for leaf, view in zip(packed.leaves, packed.views(rows), strict=True):
        expected = np.stack([leaf.of(observation) for observation in nested])
        assert view.shape == expected.shape
        assert np.array_equal(view, expected.astype(leaf.dtype))
        if expected.dtype != np.float64:  # which becomes float32, as it does in a plain observation
            assert np.array_equal(view.astype(expected.dtype), expected)


def test_leaves_are_aligned_apart_and_floats_first():
    packed = PackedObservations(EVERYTHING)
    taken = np.zeros(packed.shape, int)
    for leaf in packed.leaves:
        assert leaf.start % np.dtype(leaf.dtype).itemsize == 0
        taken[leaf.start : leaf.stop] += 1
    assert taken.max() == 1
    assert packed.shape[0] % 8 == 0
    floats = [leaf for leaf in packed.leaves if leaf.dtype == "float32"]
    assert list(packed.leaves[: len(floats)]) == floats
    assert packed.floats == 6 + 1 + 3 + 1 + 2 + 2


def test_the_network_sees_each_leaf_as_its_own_encoder_would():
    packed, nested, rows = packed_samples(EVERYTHING, 6)
    encoder = make_encoder(packed)
    found = encoder(torch.from_numpy(rows)).split([part.size for part in encoder.encoders], dim=1)
    leaves = [packed.leaves[i] for i in encoder.leaves]
    for leaf, part, features in zip(leaves, encoder.encoders, found, strict=True):
        values = np.stack([leaf.of(observation) for observation in nested])
        if isinstance(part, OneHotEncoder):
            assert torch.equal(features, part(torch.from_numpy(values.astype(np.int64))))
            assert (features.sum(1) == values[0].size).all()
        else:
            assert isinstance(part, FlattenEncoder)
            scale = 255 if leaf.key == "bytes" else 1
            expected = values.reshape(6, -1).astype(np.float32) / np.float32(scale)
            np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_rows_of_any_leading_shape():
    packed, _, rows = packed_samples(EVERYTHING, 6)
    for view, flat in zip(packed.views(rows.reshape(2, 3, -1)), packed.views(rows), strict=True):
        assert np.array_equal(view.reshape(flat.shape), flat)


def test_only_floats_are_normalised():
    packed, _, rows = packed_samples(EVERYTHING, 30)
    normalizer = ObservationNormalizer((packed.floats,), 10.0, packed=True)
    normalizer.update(rows[:15])
    normalizer.update(rows[15:])
    before = rows.copy()
    scaled = normalizer(rows)
    assert np.array_equal(rows, before)
    assert scaled.dtype == np.uint8
    for leaf, view, raw in zip(packed.leaves, packed.views(scaled), packed.views(rows), strict=True):
        if leaf.dtype != "float32":
            assert np.array_equal(view, raw)
            continue
        flat = raw.reshape(30, -1).astype(np.float64)
        expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-8)
        np.testing.assert_allclose(view.reshape(30, -1), expected, atol=1e-3)
    assert np.array_equal(normalizer(rows[0]), scaled[0])  # one alone, as a final observation is


def test_images_of_floats_are_not_normalised_but_have_to_be_finite():
    space = spaces.Dict(
        {"image": spaces.Box(0, 1, (36, 36, 2), np.float32), "speed": spaces.Box(-1, 1, (2,))}
    )
    packed, _, rows = packed_samples(space, 5)
    assert packed.floats == 2
    normalizer = ObservationNormalizer((2,), 10.0, packed=True)
    normalizer.update(rows)
    for leaf, view, raw in zip(
        packed.leaves, packed.views(normalizer(rows)), packed.views(rows), strict=True
    ):
        assert np.array_equal(view, raw) == (leaf.key == "image")
    env = Given(space)
    wrapped = pack(env, False)
    env.value = {"image": np.full((36, 36, 2), np.nan, np.float32), "speed": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match="NaN"):
        wrapped.reset()


@pytest.mark.parametrize("space", [spaces.Dict({}), spaces.Tuple([]), spaces.Dict({"a": spaces.Dict({})})])
def test_an_empty_space_is_refused(space):
    packed = pack(Given(space), False)
    with pytest.raises(ValueError, match="holds no values"):
        make_actor_critic(packed.observation_space, packed.action_space)


def test_an_empty_part_is_no_trouble():
    packed, _, rows = packed_samples(spaces.Dict({"a": spaces.Dict({}), "b": spaces.Discrete(3)}), 2)
    assert make_encoder(packed)(torch.from_numpy(rows)).shape == (2, 3)


def test_a_text_is_refused_in_one_line_that_names_the_key():
    space = spaces.Dict({"a": spaces.Discrete(2), "inner": spaces.Tuple([spaces.Text(5)])})
    with pytest.raises(ValueError, match=r"unsupported observation space Text\(.*\) at 'inner.0'") as refused:
        pack(Given(space), False)
    assert "\n" not in str(refused.value)
    assert "env.wrappers" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": np.zeros(3, np.float32)}, r"'x' of shape \(3,\), where its space says \(2,\)"),
        ({"x": np.array([0, np.nan], np.float32)}, "NaN"),
        ({"x": np.array([np.inf, 0], np.float32)}, "infinity"),
        ({"x": np.zeros(2, np.float32), "n": 2}, "'n' of 2, where its space has 0 to 1"),
    ],
)
def test_an_observation_that_breaks_its_promise_is_refused(value, message):
    env = Given(spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "n": spaces.Discrete(2)}))
    wrapped = pack(env, False)
    env.value = {"n": 0, **value}
    with pytest.raises(ValueError, match=message):
        wrapped.reset()


def test_a_row_is_no_view_of_the_next():
    env = Given(spaces.Dict({"x": spaces.Box(-1, 1, (2,))}))
    wrapped = pack(env, False)
    env.value = {"x": np.zeros(2, np.float32)}
    first = wrapped.reset()[0]
    env.value = {"x": np.ones(2, np.float32)}
    wrapped.step(0)
    assert not first.any()


ACTIONS = spaces.Dict(
    {
        "box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 3], np.float32)),
        "deep": spaces.Tuple(
            [spaces.Discrete(3, start=5), spaces.MultiBinary((2, 2)), spaces.Box(-1, 1, (), np.float64)]
        ),
        "many": spaces.MultiDiscrete([[3, 4], [5, 6]], start=[[1, 1], [2, 2]]),
        "steps": spaces.Box(-3, 3, (2,), np.int32),
    }
)


@pytest.mark.parametrize("squash", [False, True])
def test_drawn_actions_are_members_of_the_nested_space(squash):
    env = Given(spaces.Box(-1, 1, (2,)), ACTIONS)
    env.value = np.zeros(2, np.float32)
    wrapped = pack(env, False)
    distribution = make_distribution(wrapped.action_space, squash)
    logits = torch.randn(50, distribution.logits_size, generator=torch.Generator().manual_seed(0))
    drawn = distribution.sample(logits, distribution.noise((50,), torch.Generator().manual_seed(1)))
    seen = set()
    for row in distribution.to_env(drawn.numpy()):
        wrapped.step(row)
        taken = env.taken
        assert taken.keys() == ACTIONS.spaces.keys()
        taken["deep"] = (*taken["deep"][:2], np.asarray(taken["deep"][2]))
        assert ACTIONS.contains(taken), taken
        seen.add(int(taken["deep"][0]))
    assert seen == {5, 6, 7}


def test_random_rows_are_repeated_by_their_seed():
    packed = PackedActions(ACTIONS)
    draws = []
    for _ in range(2):
        packed.seed(3)
        draws.append([packed.sample() for _ in range(4)])
    assert np.array_equal(*draws)
    assert not np.array_equal(draws[0][0], draws[0][1])


def test_an_action_of_an_unsupported_kind_is_refused():
    with pytest.raises(ValueError, match="unsupported action space Text") as refused:
        PackedActions(spaces.Dict({"say": spaces.Text(3)}))
    assert "\n" not in str(refused.value)


def test_images_of_floats_without_known_bounds_are_normalised():
    image = spaces.Box(-np.inf, np.inf, (36, 36, 2), np.float32)
    packed = PackedObservations(
        spaces.Dict(
            {"bright": spaces.Box(0, 1, (36, 36, 2)), "heights": image, "speed": spaces.Box(-1, 1, (2,))}
        )
    )
    assert packed.floats == 2 + 36 * 36 * 2
    assert [leaf.key for leaf in packed.leaves] == ["speed", "heights", "bright"]
    older = ObservationNormalizer((packed.floats,), 10.0, packed=True)
    older.statistics.load_state_dict({"mean": np.ones(2), "var": np.ones(2), "count": 1.0})
    row = older(np.zeros(packed.shape, np.uint8))  # statistics of before images had any
    speed, *images = packed.views(row)
    assert (speed == -1).all()
    assert not any(image.any() for image in images)


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (
            spaces.Box(0, 255, (2,), np.uint8),
            np.array([0, 300]),
            "with 300, where its space says uint8: 0 to 255",
        ),
        (spaces.Box(0, 255, (2,), np.uint8), [0, -1], "with -1, where"),
        (
            spaces.Box(-9, 9, (2,), np.int8),
            np.array([0, 128], np.uint8),
            "with 128, where its space says int8",
        ),
        (spaces.Box(0, 255, (2,), np.uint8), [0.5, 1.0], "of dtype float64, where its space says uint8"),
        (spaces.MultiBinary(2), np.array([0, 256]), "with 256, where"),
        (spaces.Discrete(3), 3, "of 3, where its space has 0 to 2"),
        (spaces.Discrete(3), np.float64(1.5), "of dtype float64"),
        (spaces.Box(-1, 1, (2,)), [0.0], r"of shape \(1,\), where its space says \(2,\)"),
        (spaces.Box(-1, 1, (2,)), torch.zeros(3), r"of shape \(3,\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_would_be_kept_as_another_number_is_refused(space, value, said, nested):
    env = Given(spaces.Dict({"a": space}))
    wrapped, env.value = pack(env, False), {"a": value}
    if not nested:
        with pytest.raises(ValueError, match=said):
            ObservationCheck(space)(value)
    elif isinstance(space, spaces.Box) and space.dtype == np.int8:  # packed as float32, which holds it
        wrapped.reset()
    else:
        with pytest.raises(ValueError, match=f"'a' {said}"):
            wrapped.reset()


@pytest.mark.parametrize(
    ("space", "value", "kept"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0, 255]), [0, 255]),
        (spaces.Box(-1, 1, (2,)), torch.ones(2, requires_grad=True), [1.0, 1.0]),
        (spaces.Box(-1, 1, (2,)), np.array([1, 0]), [1.0, 0.0]),
        (spaces.MultiBinary(2), [True, False], [1, 0]),
        (spaces.Discrete(3), torch.tensor(2), 2),
        (spaces.Discrete(3), 2, 2),
    ],
    ids=str,
)
def test_what_can_be_kept_is_taken_whatever_it_comes_as(space, value, kept):
    assert np.array_equal(np.asarray(ObservationCheck(space)(value), space.dtype), kept)
    env = Given(spaces.Dict({"a": space}))
    wrapped, env.value = pack(env, False), {"a": value}
    assert np.array_equal(wrapped.observation_space.views(wrapped.reset()[0])[0], kept)
