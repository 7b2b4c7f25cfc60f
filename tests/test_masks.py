"""Action masks: what is illegal is never drawn, counts in no entropy and gets no gradient."""

import json
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import EncoderChoice
from ppo_cli.envs.make import env_fn
from ppo_cli.envs.pack import pack
from ppo_cli.envs.snapshot import find_kind
from ppo_cli.hooks import Hook
from ppo_cli.spaces import random_action

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
ACTIONS = {
    "discrete": (spaces.Discrete(6), (6,)),
    "start": (spaces.Discrete(6, start=4), (6,)),
    "multi": (spaces.MultiDiscrete([3, 2, 4]), (3, 2, 4)),
    "multi-2d": (spaces.MultiDiscrete(np.array([[3, 2], [4, 2]])), (3, 2, 4, 2)),
}


class Masked(gym.Env):
    """Observations with whatever mask is put into ``mask``, in the observation or (``info``) beside it."""

    def __init__(self, actions, parts, info=False):
        self.action_space, self.info = actions, info
        self.observation_space = VECTOR
        if not info:
            self.observation_space = spaces.Dict({"seen": VECTOR, "action_mask": parts})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        seen = np.ones(2, np.float32)
        return (
            (seen, {"action_mask": self.mask})
            if self.info
            else ({"seen": seen, "action_mask": self.mask}, {})
        )


def rows_and_masks(kind, n, seed=0):
    """A packed space, packed observations [n, size], and their masks [n, P] one legal or more a component."""
    actions, sizes = ACTIONS[kind]
    env = Masked(actions, spaces.MultiBinary(sum(sizes)))
    packed, generator = pack(env, False), np.random.default_rng(seed)
    rows, masks = [], []
    for _ in range(n):
        parts = [generator.integers(0, 2, size).astype(np.int8) for size in sizes]
        for part in parts:
            part[generator.integers(len(part))] = 1
        env.mask = np.concatenate(parts)
        rows.append(packed.reset()[0])
        masks.append(env.mask)
    return packed, torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(masks)).bool()


def network(packed, **options):
    torch.manual_seed(0)
    return make_actor_critic(packed.observation_space, packed.action_space, hidden_sizes=(8,), **options)


def components(kind, logits):
    return logits.split(ACTIONS[kind][1], dim=-1)


@pytest.mark.parametrize("kind", ACTIONS)
def test_no_illegal_action_in_a_hundred_thousand(kind):
    packed, rows, masks = rows_and_masks(kind, 20)
    model, distribution = network(packed), make_distribution(packed.action_space)
    with torch.no_grad():
        for parameter in model.policy_head.parameters():  # that prefers some actions strongly
            parameter.mul_(1000.0)
        logits = model.policy(rows).repeat(5000, 1)
    noise = distribution.noise((len(logits),), torch.Generator().manual_seed(0))
    drawn = distribution.sample(logits, noise).view(len(logits), -1)
    for column, mask in zip(drawn.unbind(1), components(kind, masks.repeat(5000, 1)), strict=True):
        assert mask.gather(1, column.unsqueeze(1)).all()
    modes = distribution.mode(logits[:20]).view(20, -1)
    for column, mask in zip(modes.unbind(1), components(kind, masks), strict=True):
        assert mask.gather(1, column.unsqueeze(1)).all()


def test_legal_actions_keep_their_proportions():
    packed, rows, masks = rows_and_masks("discrete", 10)
    model, distribution = network(packed, ortho_init=False), make_distribution(packed.action_space)
    with torch.no_grad():
        logits = model.policy(rows)
        free = model.policy_head(model.trunk(model.encoder(rows)))
    expected = torch.where(masks, free.exp(), 0.0)
    expected /= expected.sum(1, keepdim=True)
    every = torch.arange(6).expand(10, 6)
    found = distribution.log_prob(logits.unsqueeze(1).expand(10, 6, 6), every).exp()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ACTIONS)
def test_entropy_is_that_of_the_legal_actions(kind):
    packed, rows, masks = rows_and_masks(kind, 30)
    model, distribution = network(packed, ortho_init=False), make_distribution(packed.action_space)
    with torch.no_grad():
        logits = model.policy(rows)
    expected = torch.zeros(30)
    for part, mask in zip(components(kind, logits), components(kind, masks), strict=True):
        for i in range(30):
            expected[i] += torch.distributions.Categorical(logits=part[i][mask[i]]).entropy()
    torch.testing.assert_close(distribution.entropy(logits), expected)


@pytest.mark.parametrize("only", ["one", "none"])
def test_gradients_are_finite_with_one_legal_action_and_with_none(only):
    packed, rows, _ = rows_and_masks("discrete", 4)
    rows = rows.clone()
    (leaf,) = [leaf for leaf in packed.observation_space.leaves if leaf.is_mask]
    rows[:, leaf.start : leaf.stop] = 0
    if only == "one":
        rows[:, leaf.start + 2] = 1
    model, distribution = network(packed), make_distribution(packed.action_space)
    logits, outputs = model(rows)
    values = model.value_head.decode(outputs)
    actions = torch.full((4,), 2)
    (distribution.log_prob(logits, actions) + distribution.entropy(logits) + values).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    if only == "one":
        assert distribution.entropy(logits).abs().max() == 0
        assert distribution.log_prob(logits, actions).abs().max() == 0


def test_illegal_logits_get_no_gradient():
    packed, rows, masks = rows_and_masks("discrete", 1)
    model, distribution = network(packed), make_distribution(packed.action_space)
    logits, _ = model(rows)
    legal = masks[0].nonzero()[0]
    (distribution.log_prob(logits, legal) - distribution.entropy(logits)).sum().backward()
    assert torch.equal(model.policy_head.bias.grad != 0, masks[0])


@pytest.mark.parametrize("as_tuple", [False, True])
def test_masks_in_info_become_part_of_the_observation(as_tuple):
    actions, _ = ACTIONS["multi"]
    env = Masked(actions, None, info=True)
    parts = [np.array([1, 0, 1], np.int8), np.array([0, 1], np.int8), np.array([1, 1, 0, 1], np.int8)]
    env.mask = tuple(parts) if as_tuple else np.concatenate(parts)
    packed = pack(env, True)
    row = packed.reset()[0]
    model = network(packed)
    assert model.encoder.mask(torch.from_numpy(row[None])).int().tolist() == [np.concatenate(parts).tolist()]
    assert model.encoder.size == 2  # the mask is no feature


def test_a_mask_may_be_a_tuple_in_the_observation_too():
    actions, sizes = ACTIONS["multi"]
    env = Masked(actions, spaces.Tuple([spaces.MultiBinary(size) for size in sizes]))
    env.mask = (np.array([1, 0, 0]), np.array([0, 1]), np.array([0, 0, 0, 1]))
    packed = pack(env, False)
    row = packed.reset()[0]
    mask = network(packed).encoder.mask(torch.from_numpy(row[None]))
    assert mask.int().tolist() == [[1, 0, 0, 0, 1, 0, 0, 0, 1]]


def test_a_mask_may_be_nested_and_its_numbers_may_be_fractions():
    env = Masked(spaces.MultiDiscrete([[2, 3]]), None, info=True)
    env.mask = ((np.array([0.5, 0.0]), np.array([0.0, 0.1, 1.0])),)
    packed = pack(env, True)
    mask = network(packed).encoder.mask(torch.from_numpy(packed.reset()[0][None]))
    assert mask.int().tolist() == [[1, 0, 0, 1, 1]]


@pytest.mark.parametrize(("kind", "without"), [("discrete", slice(None)), ("multi", slice(3, 5))])
def test_a_mask_without_a_legal_action_is_refused_before_the_end(kind, without):
    actions, sizes = ACTIONS[kind]
    env = Masked(actions, None, info=True)
    env.mask = np.ones(sum(sizes), np.int8)
    env.mask[without] = 0
    with pytest.raises(ValueError, match="without a legal action"):
        pack(env, True).reset()


def test_a_mask_has_no_encoder():
    packed = pack(Masked(spaces.Discrete(6), spaces.MultiBinary(6)), False)
    with pytest.raises(
        ValueError, match=r"network.encoders.action_mask: no such observation; there are seen$"
    ):
        network(packed, encoders=EncoderChoice(by_key={"action_mask": "mlp"}))


def test_what_no_mask_is_for_is_an_observation_like_others():
    env = Masked(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)))
    env.mask = np.array([1.0, -0.5], np.float32)
    packed = pack(env, False)
    model = network(packed)
    encoded = model.encoder(torch.from_numpy(packed.reset()[0][None]))
    assert {1.0, -0.5} <= set(encoded[0].tolist())
    assert model.encoder.mask(torch.from_numpy(packed.reset()[0][None])) is None


@pytest.mark.parametrize("kind", ACTIONS)
def test_random_actions_are_legal(kind):
    actions, sizes = ACTIONS[kind]
    packed, rows, masks = rows_and_masks(kind, 60)
    packed.action_space.seed(0)
    for row, mask in zip(rows.numpy(), masks, strict=True):
        drawn = random_action(packed.action_space, packed.observation_space, row)
        assert actions.contains(drawn)
        indices = np.ravel(drawn - actions.start)
        cuts = np.cumsum((0, *sizes[:-1]))
        assert all(mask[cut + int(index)] for cut, index in zip(cuts, indices, strict=True))


def test_a_mask_of_another_size_is_refused():
    env = Masked(spaces.Discrete(6), spaces.MultiBinary(5))
    with pytest.raises(ValueError, match="action_mask has 5 values, the policy 6 logits"):
        network(pack(env, False))


def test_an_observation_that_is_only_a_mask_trains_on_the_mask_alone():
    env = Masked(spaces.Discrete(3), spaces.MultiBinary(3))
    env.observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(3)})
    packed = pack(env, False)
    logits, outputs = network(packed)(torch.zeros(4, *packed.observation_space.shape, dtype=torch.uint8))
    assert logits.shape == (4, 3)
    assert outputs.shape == (4, 1)


def refused(outcome, *words):
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1, outcome.err
    for word in words:
        assert word in outcome.err, outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("env=CartPole-v1", "env.action_mask=true"), ("action_mask", "CartPole-v1")),
        (
            ("env=Pendulum-v1", "env.action_mask=true"),
            ("env.action_mask=true needs Discrete or MultiDiscrete",),
        ),
        (("env.id=zoo_envs:Zoo-v0", "+env.kwargs.mask=key", "env.action_mask=true"), ("action_mask",)),
        (("env.id=zoo_envs:Zoo-v0", "use_sde=true"), ("use_sde=true needs a Box action space",)),
        (
            ("env.id=zoo_envs:Zoo-v0", "+env.kwargs.action=product", "use_sde=true"),
            ("use_sde=true needs a Box",),
        ),
    ],
    ids=["no-mask-given", "box", "key-and-info", "sde", "sde-product"],
)
def test_what_does_not_go_together_is_said_in_one_line(ppo_train, arguments, words):
    refused(ppo_train(*arguments, "total_timesteps=64"), *words)


@pytest.mark.parametrize("change", ["env.action_mask=false", "squash_actions=true"])
def test_what_the_weights_were_trained_for_stays_on_resuming(ppo_train, change):
    tiny = (
        "env.id=zoo_envs:Zoo-v0",
        "+env.kwargs.mask=info",
        "total_timesteps=32",
        "n_steps=16",
        "n_epochs=1",
    )
    assert ppo_train(*tiny, "vectorization=sync", "eval.episodes=0", "hydra.run.dir=run").status == 0
    refused(
        ppo_train("resume=run", change, "total_timesteps=64"),
        change.split("=")[0],
        "can't change on resuming",
    )


def test_envpools_environments_have_no_masks(ppo_train):
    outcome = ppo_train("env=CartPole-v1", "vectorization=envpool", "env.action_mask=true")
    refused(outcome, "env.action_mask=true: vectorization=envpool gives no masks")


def test_an_environment_that_raises_at_its_first_reset_is_said_in_one_line(ppo_train):
    outcome = ppo_train("env.id=zoo_envs:Raising-v0", "total_timesteps=64")
    assert outcome.status == 1
    assert "environment 0 raised RuntimeError: no luck" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize("where", ["info", "key"])
def test_trying_out_snapshots_sends_legal_actions_too(where):
    make = env_fn("zoo_envs:Zoo-v0", {"mask": where}, action_mask=where == "info")
    assert find_kind(make) == "replay"  # restart, where the environment raises


TAXI = (
    "env=Taxi-v3", "preset=none", "n_envs=4", "n_steps=32", "batch_size=64", "n_epochs=2", "compile=false",
    "vectorization=sync", "network.hidden_sizes=[32]",
)  # fmt: skip


class Forget(Hook):
    """Forgets whatever was tried out before the training."""

    noted: ClassVar[list[bool]] = []

    def start(self, run):
        self.noted.clear()


def test_taxis_masks_are_obeyed_and_can_be_ignored(ppo_train, tmp_path, monkeypatch):
    illegal = Forget.noted
    step = gym.wrappers.OrderEnforcing.step

    def checked(self, action):
        taxi = self.unwrapped
        illegal.append(not taxi.action_mask(taxi.s)[action])
        return step(self, action)

    monkeypatch.setattr(gym.wrappers.OrderEnforcing, "step", checked)
    counts = {}
    for setting in ("auto", "false"):
        outcome = ppo_train(
            *TAXI,
            "total_timesteps=256",
            "eval.episodes=0",
            f"env.action_mask={setting}",
            "hooks=[{name: test_masks.Forget}]",
            "hydra.run.dir=" + setting,
        )
        assert outcome.status == 0, outcome.err
        assert len(illegal) == 256
        counts[setting] = sum(illegal)
    assert counts["auto"] == 0
    assert counts["false"] > 50


@pytest.mark.slow
def test_masked_taxi_learns_faster_than_punished_taxi(ppo_train, tmp_path):
    means = {}
    for setting in ("true", "false"):
        outcome = ppo_train(
            *TAXI, "total_timesteps=6e4", "n_envs=16", "n_steps=128", "batch_size=512", "n_epochs=4",
            "network.hidden_sizes=[]", "learning_rate=1e-2", "ent_coef=0.02", "gamma=0.97", "gae_lambda=0.9",
            "normalize.rewards=true", "eval.deterministic=false", f"env.action_mask={setting}",
            f"hydra.run.dir=masked-{setting}",
        )  # fmt: skip
        assert outcome.status == 0, outcome.err
        means[setting] = json.loads((tmp_path / f"masked-{setting}" / "eval.json").read_text())["mean"]
    assert means["true"] > 0  # the best is about 8
    assert means["false"] < -50
