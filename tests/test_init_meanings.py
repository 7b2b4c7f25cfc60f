"""Weights of the same names and shapes that mean something else in another run: that is one line."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import ppo_cli
from ppo_cli.config.convert import from_stored, to_dict
from ppo_cli.runs.build import build_model, build_normalizers
from ppo_cli.runs.init_from import plan_beginning
from ppo_cli.runs.sources import Source, settings_in
from ppo_cli.spaces import PackedActions, PackedObservations, Spaces

BOX = spaces.Box(-1, 1, (3,))
VECTOR = spaces.Box(-2, 2, (4,))
TWINS = PackedObservations(spaces.Dict({"luck": BOX, "state": BOX}))
EYES = {"hidden_sizes": [8], "shared": False}


def config_of(env="A-v0", **knobs):
    return from_stored({"env": {"id": env}, **knobs})


def network(config, observations, actions):
    torch.manual_seed(0)
    return build_model(config, Spaces(observations, actions))


def source_of(config, observations=VECTOR, actions=BOX, settings=None):
    """A run that was trained so, as a source."""
    weights = network(config, observations, actions).state_dict()
    return Source("there:9@0123456789ab", weights, settings or settings_in(to_dict(config)), 9)


def planned(config, source, observations=VECTOR, actions=BOX):
    model = network(config, observations, actions)
    return plan_beginning(config, model, source, build_normalizers(config, observations))


def network_knobs(**knobs):
    return {"network": {**EYES, **knobs}}


def sees(actor=None, critic=None):
    return network_knobs(actor={"observations": actor}, critic={"observations": critic})


MEANINGS = {
    "network.log_std_init=-1.0 there and 1.0": (
        network_knobs(log_std="softplus", log_std_init=-1), network_knobs(log_std="softplus", log_std_init=1),
    ),
    "network.log_std_max=null there and 1.0": (network_knobs(), network_knobs(log_std_max=1)),
    "network.log_std_min=-3.0 there and null": (network_knobs(log_std_min=-3), network_knobs()),
    "value_loss=mse there and symlog": ({}, {"value_loss": "symlog"}),
    "network.actor.observations=['luck'] there and ['state']": (sees(["luck"]), sees(["state"])),
    "network.critic.observations=['luck'] there and ['state']": (
        sees(["state"], ["luck"]), sees(["state"], ["state"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", MEANINGS)
def test_a_knob_that_decides_what_the_same_weights_mean_has_to_be_the_same(said):
    there, here = MEANINGS[said]
    observations = TWINS if "observations" in said else VECTOR
    source = source_of(config_of(**there), observations)
    assert planned(config_of(**there, init_from="there"), source, observations).weights
    with pytest.raises(ppo_cli.ConfigError, match="does not fit this run") as refused:
        planned(config_of(**here, init_from="there"), source, observations)
    assert said in str(refused.value)
    taken = planned(config_of(**here, init_from="there", init_from_partial=True), source, observations)
    assert any(said in line for line in taken.notices)


class Tanh(nn.Module):
    """A layer as that of an MlpEncoder, with another activation behind it."""

    def __init__(self, space, hidden_sizes):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(space.shape[0], *hidden_sizes)])

    def forward(self, rows):
        return torch.tanh(self.layers[0](rows))


class Relu(Tanh):
    def forward(self, rows):
        return torch.relu(self.layers[0](rows))


def test_encoders_with_weights_of_the_same_shapes_have_to_be_the_same():
    there, here = (
        {"encoders": {"observation": {"name": f"{__name__}.{name}", "hidden_sizes": [5]}}}
        for name in ("Tanh", "Relu")
    )
    source = source_of(config_of(network=there))
    assert planned(config_of(network=there), source).weights
    with pytest.raises(ppo_cli.ConfigError, match=r"network\.encoders=.*Tanh.* there and .*Relu"):
        planned(config_of(network=here), source)


def test_a_knob_that_is_younger_than_a_source_has_its_default_there():
    old = source_of(config_of(), settings=settings_in({"network": {"hidden_sizes": [64, 64]}}))
    assert planned(config_of(), old).weights
    with pytest.raises(ppo_cli.ConfigError, match="value_loss=mse there and symlog here"):
        planned(config_of(value_loss="symlog"), old)
    with pytest.raises(ppo_cli.ConfigError, match=r"network\.log_std_min=null there and -1\.0 here"):
        planned(config_of(network={"log_std_min": -1}), old)


def test_what_a_source_says_is_compared_and_no_more():
    odd = source_of(config_of(), settings=settings_in({"value_loss": [1], "network": [2], "env": "x"}))
    with pytest.raises(ppo_cli.ConfigError, match=r"value_loss=\[1\] there and symlog here"):
        planned(config_of(value_loss="symlog"), odd)


def leaves(*keys):
    return PackedObservations(spaces.Dict(dict.fromkeys(keys, BOX)))


def encoders(*keys):
    return {"encoders": {key: {"name": "mlp", "hidden_sizes": [5]} for key in keys}, "hidden_sizes": [8]}


def test_weights_of_leaves_are_not_taken_where_a_leaf_may_be_another():
    """Theirs are of `a` and `c`, and ours of `a`, `b` and `c`: the second is not the second."""
    source = source_of(config_of(network=encoders("a", "c")), leaves("a", "c"))
    config = config_of("B-v0", network=encoders("a", "b", "c"), init_from="x", init_from_partial=True)
    taken = planned(config, source, leaves("a", "b", "c"))
    assert not any(name.startswith("encoder.") for name in taken.weights)
    assert "policy_head.linear.weight" in taken.weights
    assert any(
        "which leaf of the spaces each of encoder.encoders.* belongs to" in line for line in taken.notices
    )
    assert "(9 steps of A-v0)" in taken.notices[0]


def test_weights_of_leaves_are_taken_where_the_task_is_the_same():
    source = source_of(config_of(network=encoders("a", "c")), leaves("a", "c"))
    wide = encoders("a", "c")
    wide["encoders"]["c"] = {"name": "mlp", "hidden_sizes": [6]}
    taken = planned(config_of(network=wide, init_from="x", init_from_partial=True), source, leaves("a", "c"))
    assert "encoder.encoders.0.layers.0.weight" in taken.weights
    assert "encoder.encoders.1.layers.0.weight" not in taken.weights


def test_the_heads_of_nested_actions_are_not_taken_where_one_may_be_another():
    two, three = (
        PackedActions(spaces.Dict({key: spaces.Discrete(3) for key in keys} | {"z": BOX}))
        for keys in ("b", "ab")
    )
    source = source_of(config_of(), actions=two)
    config = config_of("B-v0", init_from="x", init_from_partial=True)
    taken = planned(config, source, actions=three)
    assert not any(name.startswith("policy_head.") for name in taken.weights)


def test_an_image_of_floats_is_scaled_where_nothing_of_its_encoder_is_taken():
    image = spaces.Box(0, 255, (36, 36, 3), np.float32)
    config = config_of("B-v0", init_from="x", init_from_partial=True)
    taken = planned(config, source_of(config_of()), image)
    model = network(config, image, BOX)
    kept = {name: value for name, value in model.state_dict().items() if name not in taken.left_out}
    model.load_state_dict({**kept, **taken.weights}, strict=False)
    assert model.encoder.input.float_scale.factor.item() == pytest.approx(1 / 255)


def test_an_intrinsic_reward_begins_anew_and_its_head_needs_one():
    bonus = source_of(config_of(intrinsic="rnd"))
    taken = planned(config_of(intrinsic="rnd"), bonus)
    assert "intrinsic_head.weight" in taken.weights
    assert "intrinsic=rnd begins anew: all is new to it" in taken.notices
    with pytest.raises(ppo_cli.ConfigError, match="intrinsic=rnd there and none here"):
        planned(config_of(), bonus)


def test_values_in_other_units_are_said_to_be_something_else():
    normalised = config_of(normalize={"values": True})
    found = planned(config_of(init_from_partial=True), source_of(normalised))
    assert any("normalize.values=true there and false here" in line for line in found.notices)
    policy = planned(config_of(init_from_partial=True, init_parts="policy"), source_of(normalised))
    assert not any("normalize.values" in line for line in policy.notices)


def test_the_values_of_a_source_are_the_same_where_they_are_normalised_from_now_on():
    config = config_of(normalize={"values": True})
    source, model = source_of(config_of()), network(config, VECTOR, BOX)
    model.load_state_dict({**model.state_dict(), **planned(config, source).weights})
    rows = torch.randn(20, 4)
    before = network(config_of(), VECTOR, BOX).value(rows)
    torch.testing.assert_close(model.value(rows).float(), before)
    model.value_head.adapt(torch.tensor([5.0, 90.0]))
    torch.testing.assert_close(model.value(rows).float(), before, atol=1e-4, rtol=1e-4)
