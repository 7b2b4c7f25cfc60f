"""SimBa's trunk against its formula, and what `network=simba` sets."""

import math

import pytest
import torch
from gymnasium import spaces
from torch.nn import functional

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.config.compose import load
from ppo_cli.numpy_actor import numpy_actor
from ppo_cli.trunks import SimBa, TrunkChoice, count_weights

VECTOR = spaces.Box(-1, 1, (5,))
CHOICE = TrunkChoice((16, 16), "relu", trunk="simba")


def test_a_trunk_is_embedding_residual_blocks_and_norm() -> None:
    trunk = SimBa(5, CHOICE)
    named = dict(trunk.named_parameters())
    with torch.no_grad():
        for parameter in named.values():
            parameter += 0.1 * torch.randn_like(parameter)

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * named[f"{name}.weight"] + named[f"{name}.bias"]

    def linear(x, name):
        return x @ named[f"{name}.weight"].T + named[f"{name}.bias"]

    inputs = torch.randn(7, 5)
    x = linear(inputs, "embedding")
    for block in ("blocks.0", "blocks.1"):
        inner = functional.relu(linear(norm(x, f"{block}.norm"), f"{block}.wide"))
        assert inner.shape == (7, 64)
        x = x + linear(inner, f"{block}.narrow")
    torch.testing.assert_close(trunk(inputs), norm(x, "norm"))
    assert sum(parameter.dim() == 2 for parameter in named.values()) == 5
    between = [
        parameter.numel() for name, parameter in named.items() if "blocks" in name and parameter.dim() == 2
    ]
    assert count_weights(CHOICE) == sum(between)


def test_it_begins_with_the_published_weights_or_pytorchs() -> None:
    published, plain = (
        make_actor_critic(
            VECTOR, spaces.Discrete(3), trunk="simba", hidden_sizes=(64, 64), shared=False, ortho_init=ortho
        )
        for ortho in (True, False)
    )
    for trunk in (published.trunk, published.value_trunk):
        assert isinstance(trunk, SimBa)
        weight = trunk.embedding.weight
        torch.testing.assert_close(weight.T @ weight, torch.eye(5), atol=1e-5, rtol=0)
        for block in trunk.blocks:
            for layer in (block.wide, block.narrow):
                assert not layer.bias.any()
                assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / layer.in_features), rel=0.05)
    assert not torch.equal(published.trunk.blocks[0].wide.weight, published.value_trunk.blocks[0].wide.weight)
    assert all(block.wide.bias.any() for block in plain.trunk.blocks)


@pytest.mark.parametrize("sizes", [(), (16, 8)])
def test_blocks_of_other_widths_are_refused(sizes: tuple) -> None:
    with pytest.raises(ValueError, match=r"network\.trunk=simba: expected hidden_sizes of one width"):
        make_actor_critic(VECTOR, spaces.Discrete(3), trunk="simba", hidden_sizes=sizes)


def test_it_acts_through_torch() -> None:
    model = make_actor_critic(VECTOR, spaces.Discrete(3), trunk="simba", hidden_sizes=(8,), activation="relu")
    assert numpy_actor(model, 2) is None


def test_the_network_comes_with_normalised_observations_and_what_is_typed_wins() -> None:
    config = load("env=CartPole-v1", "preset=none", "network=simba")
    assert config.normalize.observations
    network = config.network
    assert (network.trunk, network.hidden_sizes, network.activation, network.shared) == (
        "simba", [128], "relu", False
    )  # fmt: skip
    typed = load(
        "env=CartPole-v1", "network=simba", "normalize.observations=false", "network.hidden_sizes=[64]"
    )
    assert not typed.normalize.observations
    assert typed.network.hidden_sizes == [64]
    assert load("env=HalfCheetah-v5", "network=simba").network.trunk == "simba"  # over the preset's own
