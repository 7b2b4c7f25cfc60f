"""NumPy's forward pass of the policy: the same logits, live weights, and only where it applies."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from ppo_cli.acting import numpy_policy
from ppo_cli.actor_critic import make_actor_critic

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
def test_the_logits_are_those_of_the_network(actions: gym.Space, activation: str, hidden: tuple) -> None:
    model = make_actor_critic(VECTOR, actions, hidden_sizes=hidden, activation=activation, ortho_init=False)
    policy = numpy_policy(model, 6)
    obs = torch.randn(6, 5)
    np.testing.assert_allclose(policy(obs.numpy()), model.policy(obs).detach(), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    np.testing.assert_allclose(policy(obs.numpy()), model.policy(obs).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("observations", "actions", "knobs"),
    [
        (spaces.Discrete(4), spaces.Discrete(2), {}),
        (spaces.Box(-1, 1, (2, 3)), spaces.Discrete(2), {}),
        (VECTOR, spaces.Box(-1, 1, (2,)), {"use_sde": True}),
        (VECTOR, spaces.Discrete(2), {"activation": "gelu"}),
        (VECTOR, spaces.Discrete(2), {"hidden_sizes": (1024, 1024)}),
    ],
    ids=["one-hot", "matrix", "gsde", "gelu", "wide"],
)
def test_everything_else_acts_through_torch(observations: gym.Space, actions: gym.Space, knobs: dict) -> None:
    assert numpy_policy(make_actor_critic(observations, actions, **knobs), 6) is None


def test_a_network_that_it_does_not_reproduce_acts_through_torch() -> None:
    model = make_actor_critic(VECTOR, spaces.Discrete(2), ortho_init=False)
    model.trunk.register_forward_hook(
        lambda _module, _inputs, output: nn.functional.layer_norm(output, (64,))
    )
    assert numpy_policy(model, 6) is None
