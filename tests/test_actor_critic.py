"""ActorCritic: encoders of every space, sharing, initialisation and gSDE."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from torch import nn

from ppo_cli.actor_critic import ActorCritic, make_actor_critic, make_encoder
from ppo_cli.distributions import DiagonalGaussian, make_distribution
from ppo_cli.distributions.heads import StateDependentHead
from ppo_cli.normalize import stored_observation
from ppo_cli.trunks import ACTIVATIONS

BATCH = 5
BOX4, DISCRETE2 = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)
OBSERVATION_SPACES = [
    spaces.Box(-1, 1, (3,)),
    spaces.Box(-1, 1, ()),
    spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(-5, 5, (2,), np.int32),
    spaces.Discrete(6),
    spaces.Discrete(3, start=-1),
    spaces.Discrete(3, start=10),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([2, 3], start=[5, -5]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
]
ACTION_SPACES = [
    spaces.Discrete(3, start=2),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-1, 1, (2, 2)),
    spaces.Box(-1, 1, ()),
]


def sample(space: spaces.Space, n: int = BATCH) -> list:
    space.seed(0)
    return [space.sample() for _ in range(n)]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("space", OBSERVATION_SPACES, ids=str)
def test_encoder_gives_gymnasiums_flat_vectors(space: spaces.Space) -> None:
    observations = sample(space)
    _, dtype = stored_observation(space, normalized=False)
    stored = torch.as_tensor(np.stack(observations)).to(dtype)
    encoder = make_encoder(space)
    encoded = encoder(stored)
    expected = np.stack([spaces.flatten(space, obs) for obs in observations]).astype(np.float32)
    if isinstance(space, spaces.Box) and space.dtype == np.uint8:
        expected /= 255
    assert encoded.dtype == torch.float32
    assert encoded.shape == (BATCH, encoder.size)
    np.testing.assert_allclose(encoded.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("space", OBSERVATION_SPACES, ids=str)
def test_forward_is_policy_and_value(space: spaces.Space, shared: bool) -> None:
    model = make_actor_critic(space, DISCRETE2, hidden_sizes=(8,), shared=shared)
    _, dtype = stored_observation(space, normalized=False)
    obs = torch.as_tensor(np.stack(sample(space))).to(dtype)
    logits, outputs = model(obs)
    values = model.value_head.decode(outputs)
    assert logits.shape == (BATCH, 2)
    assert values.shape == (BATCH,)
    assert torch.equal(model.policy(obs), logits)
    assert torch.equal(model.value(obs), values)


@pytest.mark.parametrize("space", ACTION_SPACES, ids=str)
def test_logits_fit_the_distribution(space: spaces.Space) -> None:
    model, distribution = make_actor_critic(BOX4, space), make_distribution(space)
    obs = torch.zeros(BATCH, 4)
    noise = distribution.noise((BATCH,), torch.Generator())
    features = model.trunk(model.encode(obs)[0])
    logits = model.logits(features, obs)
    actions = distribution.sample(logits, model.policy_head.action_noise(features, noise))
    assert distribution.log_prob(logits, actions).shape == (BATCH,)
    assert torch.equal(logits, model.policy(torch.zeros(BATCH, 4)))


def test_one_hot_keeps_out_of_the_state_dict() -> None:
    model = make_actor_critic(spaces.Discrete(3, start=1), DISCRETE2)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_shared_and_separate_parameter_counts() -> None:
    def count(action_space: spaces.Space, shared: bool, **knobs: object) -> int:
        return parameters(make_actor_critic(BOX4, action_space, hidden_sizes=(8, 6), shared=shared, **knobs))

    trunk, policy, value = (4 * 8 + 8) + (8 * 6 + 6), 6 * 2 + 2, 6 + 1
    assert count(DISCRETE2, shared=True) == trunk + policy + value
    assert count(DISCRETE2, shared=False) == 2 * trunk + policy + value
    box = spaces.Box(-1, 1, (2,))
    assert count(box, shared=True) == trunk + policy + value + 2  # a log-deviation an action
    assert count(box, shared=True, use_sde=True) == trunk + policy + value + 6 * 2  # and a feature


@pytest.mark.parametrize("shared", [True, False])
def test_value_loss_reaches_the_policys_trunk_only_when_shared(shared: bool) -> None:
    model = make_actor_critic(BOX4, DISCRETE2, shared=shared)
    model.value(torch.ones(BATCH, 4)).sum().backward()
    touched = [parameter.grad is not None for parameter in model.trunk.parameters()]
    assert touched == [shared] * 4
    assert all(parameter.grad is None for parameter in model.policy_head.parameters())


def test_separate_trunks_start_from_different_weights() -> None:
    model = make_actor_critic(BOX4, DISCRETE2, shared=False)
    assert model.value_trunk is not None
    assert not torch.equal(linears(model.trunk)[0].weight, linears(model.value_trunk)[0].weight)


@pytest.mark.parametrize(("use_sde", "actions"), [(False, DISCRETE2), (False, BOX4), (True, BOX4)])
def test_orthogonal_initialisation_and_its_gains(use_sde: bool, actions: spaces.Space) -> None:
    model = make_actor_critic(BOX4, actions, use_sde=use_sde, hidden_sizes=(32, 16), shared=False)
    assert model.value_trunk is not None
    gains = {
        model.trunk: math.sqrt(2),
        model.value_trunk: math.sqrt(2),
        model.policy_head: 0.01,
        model.value_head: 1,
    }
    for module, gain in gains.items():
        for layer in linears(module):
            torch.testing.assert_close(
                torch.linalg.svdvals(layer.weight), torch.full((min(layer.weight.shape),), float(gain))
            )
            assert (layer.bias == 0).all()


def test_without_orthogonal_initialisation_layers_are_pytorchs() -> None:
    torch.manual_seed(0)
    model = make_actor_critic(BOX4, DISCRETE2, hidden_sizes=(32,), ortho_init=False)
    torch.manual_seed(0)
    assert torch.equal(linears(model.trunk)[0].weight, nn.Linear(4, 32).weight)


def test_the_first_policy_is_close_to_uniform() -> None:
    torch.manual_seed(0)
    model = make_actor_critic(spaces.Box(-1, 1, (8,)), spaces.Discrete(4))
    entropy = make_distribution(spaces.Discrete(4)).entropy(model.policy(torch.randn(50, 8)))
    torch.testing.assert_close(entropy, torch.full((50,), math.log(4)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("use_sde", [False, True])
def test_log_std_init(use_sde: bool) -> None:
    model = make_actor_critic(BOX4, spaces.Box(-1, 1, (2,)), use_sde=use_sde, log_std_init=-1.5)
    assert (model.policy_head.log_std == -1.5).all()
    if not use_sde:
        assert (model.policy(torch.randn(3, 4))[:, 2:] == -1.5).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_stand_behind_every_hidden_layer(activation: str) -> None:
    model = make_actor_critic(BOX4, DISCRETE2, hidden_sizes=(8, 5), activation=activation)
    first, second = (layer for layer in model.trunk.modules() if isinstance(layer, nn.Linear))
    function = {"leaky_relu": nn.LeakyReLU(), "gelu": nn.GELU(), "silu": nn.SiLU(), "elu": nn.ELU()}.get(
        activation, getattr(torch, activation, None)
    )
    x = torch.randn(7, 4)
    torch.testing.assert_close(model.trunk(x), function(second(function(first(x)))))


def test_no_hidden_layers_is_a_linear_policy() -> None:
    model = make_actor_critic(BOX4, DISCRETE2, hidden_sizes=())
    assert parameters(model) == (4 * 2 + 2) + (4 + 1)
    obs = torch.randn(3, 4)
    torch.testing.assert_close(model.policy(2 * obs), 2 * model.policy(obs))  # zero biases


def test_same_seed_same_network() -> None:
    def build(seed: int) -> ActorCritic:
        torch.manual_seed(seed)
        return make_actor_critic(BOX4, DISCRETE2)

    first, second, other = build(1), build(1), build(2)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert not torch.equal(first.value_head.weight, other.value_head.weight)


LOW = np.arange(6, dtype=np.float32).reshape(2, 3)
MULTI_LINE = spaces.Box(LOW, LOW + 9)  # its repr takes several lines
UNSUPPORTED = [
    spaces.Dict({"image": MULTI_LINE}),
    spaces.Tuple([DISCRETE2, MULTI_LINE]),
    spaces.Text(3),
    spaces.Sequence(DISCRETE2),
]


@pytest.mark.parametrize("space", UNSUPPORTED, ids=lambda space: type(space).__name__)
@pytest.mark.parametrize("role", ["observation", "action"])
def test_unsupported_spaces_are_named_in_one_line(space: spaces.Space, role: str) -> None:
    pair = (space, DISCRETE2) if role == "observation" else (BOX4, space)
    with pytest.raises(ValueError, match=f"unsupported {role} space {type(space).__name__}") as caught:
        make_actor_critic(*pair)
    assert "\n" not in str(caught.value)


def test_gsde_needs_continuous_actions() -> None:
    with pytest.raises(ValueError, match=r"use_sde=true needs a Box .*Discrete\(2\)"):
        make_actor_critic(BOX4, DISCRETE2, use_sde=True)


def gaussian(n: int) -> DiagonalGaussian:
    return DiagonalGaussian(spaces.Box(-1, 1, (n,)))


def gsde(
    features: int, actions: int, seed: int
) -> tuple[StateDependentHead, StateDependentNoiseDistribution]:
    """Our head and Stable-Baselines3's distribution with the same, uneven deviations."""
    torch.manual_seed(seed)
    theirs = StateDependentNoiseDistribution(actions)
    theirs.proba_distribution_net(features, features)
    head = StateDependentHead(features, gaussian(actions), log_std_init=0.0)
    nn.init.normal_(head.log_std, -1.0, 0.7)
    theirs.sample_weights(head.log_std.detach(), batch_size=BATCH)
    return head, theirs


@pytest.mark.parametrize(("features", "actions", "seed"), [(1, 1, 0), (6, 3, 1), (64, 2, 2)])
def test_gsde_matches_stable_baselines3(features: int, actions: int, seed: int) -> None:
    head, theirs = gsde(features, actions, seed)
    latent = torch.randn(BATCH, features)
    logits = head(latent)
    mean, log_std = logits.chunk(2, dim=-1)
    theirs.proba_distribution(mean, head.log_std, latent)
    taken = mean.detach() + torch.randn(BATCH, actions)
    distribution = gaussian(actions)
    torch.testing.assert_close(log_std.exp(), theirs.distribution.stddev)
    torch.testing.assert_close(distribution.log_prob(logits, taken), theirs.log_prob(taken))
    torch.testing.assert_close(distribution.entropy(logits), theirs.entropy())
    # the same exploration matrices give the same actions
    epsilon = theirs.exploration_matrices / head.log_std.exp()
    actions_ours = distribution.sample(logits, head.action_noise(latent, epsilon))
    torch.testing.assert_close(actions_ours, theirs.sample())


def test_gsde_gradients_match_stable_baselines3() -> None:
    head, theirs = gsde(6, 3, 1)
    weights = [head.linear.weight, head.log_std]
    latent, taken = torch.randn(BATCH, 6, requires_grad=True), torch.randn(BATCH, 3)
    ours = torch.autograd.grad(
        gaussian(3).log_prob(head(latent), taken).sum(), [*weights, latent], retain_graph=True
    )
    theirs.proba_distribution(head.linear(latent), head.log_std, latent)
    for mine, their in zip(
        ours, torch.autograd.grad(theirs.log_prob(taken).sum(), [*weights, latent]), strict=True
    ):
        torch.testing.assert_close(mine, their)


def test_gsde_noise_has_the_deviation_of_the_policy() -> None:
    head, _ = gsde(6, 2, 3)
    latent = torch.randn(1, 6).expand(40_000, -1)
    noise = head.action_noise(latent, torch.randn(40_000, 6, 2))
    torch.testing.assert_close(noise.std(0), torch.ones(2), atol=0.02, rtol=0)
    assert noise.mean(0).abs().max() < 0.03


def test_gsde_noise_is_a_function_of_the_state_while_the_matrix_is_kept() -> None:
    model = make_actor_critic(BOX4, spaces.Box(-1, 1, (2,)), use_sde=True, hidden_sizes=(8,))
    epsilon = torch.randn(1, 8, 2).expand(3, -1, -1)
    obs = torch.randn(2, 4)[[0, 1, 0]]
    features = model.trunk(model.encode(obs)[0])
    noise = model.policy_head.action_noise(features, epsilon)
    actions = gaussian(2).sample(model.logits(features, obs), noise)
    assert torch.equal(actions[0], actions[2])
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(actions[:2], 2))
