"""Acting in NumPy: the same actions, live weights, and only where it applies."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import make_distribution
from ppo_cli.numpy_actor import numpy_actor

VECTOR = spaces.Box(-1, 1, (5,), np.float32)
ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-1, 1, (2,)),
]


@pytest.mark.parametrize("actions", ACTIONS, ids=str)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (8,), (16, 7)])
def test_the_actions_are_those_of_the_network(actions: gym.Space, activation: str, hidden: tuple) -> None:
    model = make_actor_critic(VECTOR, actions, hidden_sizes=hidden, activation=activation, ortho_init=False)
    distribution = make_distribution(actions)
    actor = numpy_actor(model, 6)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        obs, noise = torch.randn(6, 5, generator=generator), distribution.noise((6,), generator)
        with torch.no_grad():
            expected = distribution.sample(model.policy(obs), noise).numpy()
            found = actor(obs.numpy(), noise.numpy())
            for parameter in model.parameters():
                parameter.add_(0.05)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_gsde_explores_as_the_network_does(hidden: tuple) -> None:
    actions = spaces.Box(-1, 1, (2,))
    model = make_actor_critic(VECTOR, actions, use_sde=True, hidden_sizes=hidden, ortho_init=False)
    distribution = make_distribution(actions)
    obs, epsilon = torch.randn(6, 5), torch.randn(6, *model.policy_head.log_std.shape)
    with torch.no_grad():
        features = model.trunk(model.encode(obs)[0])
        noise = model.policy_head.action_noise(features, epsilon)
        expected = distribution.sample(model.logits(features, obs), noise).numpy()
    found = numpy_actor(model, 6)(obs.numpy(), epsilon.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("observations", "actions", "knobs"),
    [
        (spaces.Discrete(4), spaces.Discrete(2), {}),
        (spaces.Box(-1, 1, (2, 3)), spaces.Discrete(2), {}),
        (VECTOR, spaces.Discrete(2), {"activation": "gelu"}),
        (VECTOR, spaces.Discrete(2), {"hidden_sizes": (1024, 1024)}),
    ],
    ids=["one-hot", "matrix", "gelu", "wide"],
)
def test_everything_else_acts_through_torch(observations: gym.Space, actions: gym.Space, knobs: dict) -> None:
    model = make_actor_critic(observations, actions, **knobs)
    assert numpy_actor(model, 6) is None


def test_a_network_that_it_does_not_reproduce_acts_through_torch() -> None:
    model = make_actor_critic(VECTOR, spaces.Discrete(2), ortho_init=False)
    model.trunk.register_forward_hook(
        lambda _module, _inputs, output: nn.functional.layer_norm(output, (64,))
    )
    assert numpy_actor(model, 6) is None
