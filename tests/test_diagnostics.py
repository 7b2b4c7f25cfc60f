"""Diagnostics: each against cases made by hand, and a run that is the same with and without them."""

import copy
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces
from run_ends import differences, rows
from torch import nn

from ppo_cli.actor_critic import ILLEGAL, make_actor_critic
from ppo_cli.diagnostics import Iteration, diagnose, trained_weights
from ppo_cli.diagnostics.behaviour import (
    clipped_actions,
    deviation_and_share,
    discounted_sums,
    kl_k1,
    moments,
    value_bias,
)
from ppo_cli.diagnostics.gradients import cosine, draw_sample, loss_gradients, noise_scale, shared
from ppo_cli.diagnostics.network import dead_units, effective_rank, saturated_units, watching
from ppo_cli.distributions import make_distribution
from ppo_cli.encoders import UserEncoder
from ppo_cli.objectives import Loss
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.runs.checkpoint import load_checkpoint
from ppo_cli.runs.diagnosing import Diagnosing
from ppo_cli.spaces import PackedActions
from ppo_cli.update import Hyperparameters, make_forward, parameter_shapes, ppo_loss

BOX, THREE = spaces.Box(-1, 1, (4,)), spaces.Discrete(3)
DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"
RUN = (  # 3 iterations
    "env=CartPole-v1", "n_envs=2", "n_steps=64", "total_timesteps=384", "n_epochs=2", "eval.episodes=1",
    "vectorization=sync", "compile=false", "ent_coef=0.01", "network=mlp",
)  # fmt: skip


def network(**options):
    torch.manual_seed(0)
    return make_actor_critic(BOX, THREE, **{"hidden_sizes": (10,), **options})


def units_of(model, observations):
    with torch.no_grad(), watching(model) as units:
        model(observations)
    return units


def batch_of(model, n=64):
    torch.manual_seed(1)
    distribution = make_distribution(THREE)
    observations = torch.randn(n, 4)
    with torch.no_grad():
        logits = model.policy(observations)
        taken = distribution.sample(logits, distribution.noise((n,), torch.Generator().manual_seed(2)))
        logprobs, values = distribution.log_prob(logits, taken), model.value(observations)
    return Batch(observations, taken, logprobs, torch.randn(n), values + torch.randn(n), values)


COEFS = {"clip_ratio": torch.tensor(0.2), "vf_coef": torch.tensor(0.5), "ent_coef": torch.tensor(0.1)}


def gradients_of(model, batch, hyper, n_envs=1):
    valid = torch.ones(len(batch.returns) // n_envs, n_envs, dtype=torch.bool)
    sample = draw_sample(batch, valid, 1, torch.Generator().manual_seed(0))
    distribution = make_distribution(THREE)
    forward = make_forward(model, distribution, hyper)
    return loss_gradients(forward, trained_weights(model), sample, COEFS, distribution, hyper)


# --- the network


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu", "silu", "leaky_relu"])
def test_three_of_ten_dead_units_are_a_share_of_three_tenths(activation):
    model = network(activation=activation)
    with torch.no_grad():
        model.trunk.linears[0].bias[:3] = -100.0
        model.trunk.linears[0].bias[3:] = 100.0
    units = units_of(model, torch.rand(50, 4))
    assert dead_units(units.rectified) == pytest.approx(0.3)
    assert math.isnan(saturated_units(units.bounded))


def test_a_unit_that_is_active_in_a_single_row_is_not_dead():
    layer = torch.zeros(100, 4)
    layer[7, 0] = 1e-6
    assert dead_units([layer]) == 0.75


def test_two_of_ten_saturated_units_are_a_share_of_a_fifth():
    model = network()
    with torch.no_grad():
        model.trunk.linears[0].bias.zero_()
        model.trunk.linears[0].bias[:2] = torch.tensor([50.0, -50.0])
    units = units_of(model, torch.rand(50, 4))
    assert saturated_units(units.bounded) == pytest.approx(0.2)
    assert math.isnan(dead_units(units.rectified))


def test_both_trunks_and_an_encoder_of_ones_own_are_looked_at_and_a_memory_is_not():
    class Own(nn.Sequential):
        def __init__(self, space):
            super().__init__(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 5), nn.Tanh())

    model = network(shared=False, memory="lstm", memory_size=7)
    model.encoder = UserEncoder(Own(BOX), BOX, "own")
    model.memory = type(model.memory)("lstm", 5, 7)
    with torch.no_grad(), watching(model) as units:
        model(torch.randn(12, 4), torch.zeros(4, model.state_size), torch.zeros(12, 1))
    assert [tuple(each.shape) for each in units.rectified] == [(12, 6)]
    assert [tuple(each.shape) for each in units.bounded] == [(12, 5), (12, 10), (12, 10)]
    assert not model.trunk._forward_hooks
    assert not model.trunk._forward_pre_hooks


def test_a_convolutions_units_are_its_channels():
    images = spaces.Box(0, 255, (36, 36, 3), "uint8")
    model = make_actor_critic(images, spaces.Discrete(2), hidden_sizes=())
    with torch.no_grad():
        model.encoder.convolutions[0].bias[:16] = -1e6
        model.encoder.convolutions[0].bias[16:] = 1e6
    units = units_of(model, torch.randint(0, 255, (5, 36, 36, 3), dtype=torch.uint8))
    assert dead_units(units.rectified[:1]) == 0.5
    assert units.features["policy_head"].shape == (5, 512)


def test_the_effective_rank_counts_the_directions_that_hold_all_but_a_hundredth():
    turned, _ = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))

    def with_singular_values(*values):
        return torch.diag(torch.tensor(values)) @ turned[: len(values)]

    assert effective_rank(with_singular_values(1.0, 1.0, 1.0)) == 3
    assert effective_rank(with_singular_values(1.0, 1.0, 1e-3)) == 2
    assert effective_rank(with_singular_values(98.0, 1.5, 0.5)) == 2  # 98 % is not enough
    assert effective_rank(with_singular_values(99.5, 0.25, 0.25)) == 1
    assert effective_rank(torch.zeros(8, 3)) == 0
    assert math.isnan(effective_rank(torch.full((8, 3), math.inf)))


# --- the gradients


def test_the_parts_gradients_are_those_of_the_loss_and_add_up_to_its_own():
    model, hyper = network(), Hyperparameters(normalize_advantage=False)
    batch = batch_of(model)
    found = gradients_of(model, batch, hyper)
    torch.testing.assert_close(found.total, found.policy + found.value + found.entropy)
    distribution = make_distribution(THREE)
    params = trained_weights(model).requires_grad_()
    terms = make_forward(model, distribution, hyper)(params, batch, torch.ones(64), COEFS)
    parts = ppo_loss(terms, COEFS, distribution, hyper)
    (expected,) = torch.autograd.grad(0.5 * parts["value_loss"], params)
    torch.testing.assert_close(found.value, expected)
    assert (found.small, found.big) == (16.0, 64.0)


def test_a_loss_that_no_parameter_changes_has_no_gradient():
    constant = Loss("constant", lambda terms: terms.returns.mean())
    found = gradients_of(network(), batch_of(network()), Hyperparameters(objective=constant))
    assert found.policy.norm() == 0
    assert found.value.norm() > 0
    assert math.isnan(cosine(found.policy, found.value))


def test_the_cosine_is_that_of_the_parameters_that_both_parts_reach():
    first, second = torch.tensor([3.0, 0, 1, 1, 7]), torch.tensor([0.0, 5, 1, -1, 7])
    assert cosine(first, second) == pytest.approx(49 / (60**0.5 * 76**0.5))
    one, other = shared(first, second, (1, 1, 2, 1))
    torch.testing.assert_close(one, torch.tensor([1.0, 1, 7]))
    torch.testing.assert_close(other, torch.tensor([1.0, -1, 7]))
    assert cosine(torch.tensor([2.0, 0]), torch.tensor([-1.0, 0])) == -1


@pytest.mark.parametrize(("is_shared", "reached"), [(True, 10 * 5), (False, 0)])
def test_policy_and_value_share_the_trunk_where_there_is_one(is_shared, reached):
    model = network(shared=is_shared)
    found = gradients_of(model, batch_of(model), Hyperparameters(normalize_advantage=False))
    one, _ = shared(found.policy, found.value, [shape.numel() for shape in parameter_shapes(model)])
    assert len(one) == reached


def test_the_noise_scale_is_that_of_gradients_with_known_noise():
    # rows' gradients are G + noise of covariance Σ, tr Σ = 12, |G|² = 3: E|G_b|² = |G|² + tr Σ / b
    def square(rows):
        return torch.tensor(3 + 12 / rows)

    assert noise_scale(square(8), square(64), 8, 64) == pytest.approx(4)
    assert math.isnan(noise_scale(torch.tensor(1.0), torch.tensor(0.1), 8, 64))  # noise alone
    assert math.isnan(noise_scale(torch.tensor(1.0), torch.tensor(1.0), 64, 64))


def test_a_sample_keeps_sequences_whole_and_leaves_filler_rows_out():
    n = torch.arange(60.0)
    batch = Batch(n, n, n, n, n, n, n.unsqueeze(1), n.unsqueeze(1))
    valid = torch.ones(20, 3, dtype=torch.bool)
    valid[5, 1] = False
    sample = draw_sample(batch, valid, 4, torch.Generator().manual_seed(0))
    sequences = sample.batch.returns.view(-1, 4)
    assert (sequences.diff(dim=1) == 3).all()  # one environment's steps lie n_envs rows apart
    assert sample.chunk == 12
    assert 16.0 not in sample.batch.returns[sample.weights > 0]
    again = draw_sample(batch, valid, 4, torch.Generator().manual_seed(0))
    assert torch.equal(again.batch.returns, sample.batch.returns)


# --- the policy


def test_the_estimators_of_the_divergence_agree_with_it_on_average():
    old, new = (torch.distributions.Normal(mean, 1.0) for mean in (0.0, 0.3))
    torch.manual_seed(0)
    x = old.sample((200_000,))
    ones = torch.ones(len(x))
    assert kl_k1(new.log_prob(x), old.log_prob(x), ones).item() == pytest.approx(0.045, abs=2e-3)
    few = torch.tensor([0.0, 2.0])  # rows of weight 0 count for nothing
    assert kl_k1(few, torch.ones(2), torch.tensor([1.0, 0.0])).item() == 1.0


def test_the_deviation_of_a_normal_policy_is_its_sigma():
    box = make_distribution(spaces.Box(-1, 1, (2,)))
    logits = torch.tensor([[5.0, -3.0, math.log(0.1), math.log(0.4)]]).repeat(6, 1)
    deviation, share = deviation_and_share(box, logits)
    assert deviation == pytest.approx(0.2)  # the geometric mean of 0.1 and 0.4
    assert math.isnan(share)


def test_the_share_of_the_entropy_is_of_what_the_mask_leaves():
    discrete = make_distribution(spaces.Discrete(4))
    even = torch.zeros(1, 4)
    assert deviation_and_share(discrete, even)[1] == pytest.approx(1)
    masked = torch.tensor([[0.0, 0.0, ILLEGAL, ILLEGAL], [3.0, ILLEGAL, ILLEGAL, ILLEGAL]])
    assert deviation_and_share(discrete, masked)[1] == pytest.approx(1)  # the second has nothing to choose
    assert deviation_and_share(discrete, torch.tensor([[50.0, 0, 0, 0]]))[1] == pytest.approx(0, abs=1e-6)
    bits = make_distribution(spaces.MultiBinary(3))
    assert deviation_and_share(bits, torch.zeros(2, 3))[1] == pytest.approx(1)


def test_a_products_parts_count_by_themselves():
    space = PackedActions(spaces.Dict({"a": spaces.Box(-1, 1, (1,)), "b": spaces.Discrete(2)}))
    product = make_distribution(space)
    logits = torch.tensor([[0.0, math.log(0.5), 0.0, 0.0]])
    assert deviation_and_share(product, logits) == pytest.approx((0.5, 1.0))
    assert clipped_actions(product, torch.tensor([[2.0, 1.0], [0.5, 0.0]])) == 0.5


def test_the_share_of_clipped_actions_counts_components_beyond_the_bounds():
    box = make_distribution(spaces.Box(-1, 1, (2,)))
    actions = torch.tensor([[0.0, 1.5], [-2.0, 0.3], [0.1, -1.0], [0.0, 0.0]])
    assert clipped_actions(box, actions) == 2 / 8
    assert math.isnan(clipped_actions(make_distribution(spaces.Box(-1, 1, (2,)), squash=True), actions))
    assert math.isnan(clipped_actions(make_distribution(spaces.Discrete(2)), torch.zeros(4)))
    unbounded = make_distribution(spaces.Box(-math.inf, math.inf, (2,)))
    assert clipped_actions(unbounded, actions) == 0
    integers = make_distribution(spaces.Box(0, 4, (1,), dtype="int64"))
    assert clipped_actions(integers, torch.tensor([[4.4], [4.6], [-0.4], [9.0]])) == 0.5


# --- the rollout


def test_moments():
    assert moments(torch.tensor([1.0, 1.0, 1.0, 5.0])) == pytest.approx((2, 3**0.5, 1.1547, 2.3333), abs=1e-4)
    torch.manual_seed(0)
    assert moments(torch.randn(300_000))[2:] == pytest.approx((0, 3), abs=0.03)


def rollout_of(rewards, terminated, truncated):
    rollout = Rollout(len(rewards), 1, (1,), torch.float32, (), torch.int64)
    rollout.rewards[:, 0] = torch.tensor(rewards)
    rollout.terminated[terminated], rollout.truncated[truncated] = True, True
    return rollout


def test_the_value_bias_is_what_values_promise_beyond_what_came():
    rollout = rollout_of([1.0, 2.0, 4.0, 100.0], terminated=[2], truncated=[])
    nothing = torch.zeros(4)
    values = torch.tensor([3.0, 5.0, 4.5, 0.0])
    targets = torch.tensor([0.0, 0.0, 4.0, 0.0])  # of the last step of an episode: its reward
    batch = Batch(nothing, nothing, nothing, nothing, targets, values)
    # G = 4, 2 + 4/2, 1 + 4/2: the bias is 0.5, 1, 0 in turn; the episode that goes on does not count
    assert value_bias(batch, rollout, 0.5) == pytest.approx(0.5)
    rollout.valid[0] = False
    assert value_bias(batch, rollout, 0.5) == pytest.approx(0.75)


def test_a_cut_episode_goes_on_in_its_last_observations_value():
    rollout = rollout_of([1.0, 2.0], terminated=[], truncated=[1])
    nothing, values = torch.zeros(2), torch.tensor([6.0, 7.0])
    targets = torch.tensor([0.0, 2.0 + 0.5 * 8.0])  # V(s') = 8
    batch = Batch(nothing, nothing, nothing, nothing, targets, values)
    assert value_bias(batch, rollout, 0.5) == pytest.approx(((6 - 4) + (7 - 6)) / 2)


@pytest.mark.parametrize("n", [1, 2, 3, 37, 64])
def test_discounted_sums_are_those_of_a_loop(n):
    torch.manual_seed(n)
    rewards, decays = torch.randn(n, 3), torch.rand(n, 3) * (torch.rand(n, 3) > 0.1)
    expected, running = torch.empty(n, 3), torch.zeros(3)
    for t in reversed(range(n)):
        expected[t] = running = rewards[t] + decays[t] * running
    torch.testing.assert_close(discounted_sums(rewards, decays), expected)


def test_without_an_ended_episode_there_is_no_value_bias():
    nothing = torch.zeros(2)
    batch = Batch(nothing, nothing, nothing, nothing, nothing, nothing)
    assert math.isnan(value_bias(batch, rollout_of([1.0, 1.0], [], []), 0.9))


# --- all of them


def test_an_update_that_changes_nothing_has_no_divergence_and_twice_the_weights_twice_the_norm():
    model = network()
    batch, before = batch_of(model), trained_weights(model)
    rollout = Rollout(64, 1, (4,), torch.float32, (), torch.int64)
    knobs = {name: value.item() for name, value in COEFS.items()} | {"gamma": 0.9}
    of = Iteration(model, make_distribution(THREE), Hyperparameters(), knobs, rollout, batch, batch, before)
    found = diagnose(of, torch.Generator().manual_seed(0))
    assert found["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert found["kl_k1"] == pytest.approx(0, abs=1e-6)
    assert found["kl_k3"] == pytest.approx(0, abs=1e-6)
    assert found["update_ratio"] == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2
    doubled = diagnose(of, torch.Generator().manual_seed(0))
    assert doubled["weight_norm"] == pytest.approx(2 * found["weight_norm"])
    assert doubled["update_ratio"] == pytest.approx(1)
    assert doubled["kl_k3"] > 1e-5
    assert doubled["ratio_max"] > 1.005
    assert doubled["grad_norm_policy"] == found["grad_norm_policy"]  # of the weights before the update


def test_what_hooks_make_of_the_targets_is_what_is_looked_at_also_in_the_units_of_a_head():
    model = network(normalize_values=True)
    model.value_head.adapt(torch.tensor([1.0, 5.0]))
    agent = SimpleNamespace(
        model=model,
        distribution=make_distribution(THREE),
        hyper=Hyperparameters(),
        knobs={name: value.item() for name, value in COEFS.items()} | {"gamma": 0.9},
    )
    rollout = Rollout(64, 1, (4,), torch.float32, (), torch.int64)
    run = SimpleNamespace(agent=agent, collector=SimpleNamespace(rollout=rollout), iteration=1)

    def gradient(before, after):
        hook, batch, scalars = Diagnosing(seed=0), batch_of(model), {}
        batch.returns.mul_(before)
        hook.before_update(run, batch)
        batch.returns.mul_(after)  # as a hook that is told next does
        head = copy.deepcopy(model.value_head)
        model.value_head.adapt(torch.tensor([100.0, 300.0]))  # as the update does
        hook.after_iteration(run, scalars)
        model.value_head = head
        return scalars["diagnostics/grad_norm_value"]

    assert gradient(1.0, 9.0) == gradient(9.0, 1.0) != gradient(1.0, 1.0)


@pytest.fixture(scope="module")
def names():
    headings = re.findall(r"^### (.*)$", DOCS.read_text(), re.MULTILINE)
    return {tag for heading in headings for tag in re.findall(r"`(diagnostics/\w+)`", heading)}


def test_a_run_has_the_same_bits_with_diagnostics_and_they_are_documented(ppo_train, tmp_path, names):
    noisy = "extra_losses=[{name: test_diagnostics.noisy, coef: 0.1}]"
    for folder, value in (("off", "false"), ("on", "true")):
        outcome = ppo_train(*RUN, noisy, f"log.diagnostics={value}", f"hydra.run.dir={folder}")
        assert outcome.status == 0, outcome.err
    off, on = (load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("off", "on"))
    assert {path.split("/")[1] for path in differences(off, on)} <= {"config"}
    without, having = rows(tmp_path / "off"), rows(tmp_path / "on")
    assert len(having) == 3
    for one, other in zip(without, having, strict=True):
        assert other.items() >= one.items()
    added = set(having[0]) - set(without[0])
    assert added <= names
    assert names - added <= {
        "diagnostics/dead_units",
        "diagnostics/action_deviation",
        "diagnostics/clipped_actions",
    }
    assert not any(tag.startswith("diagnostics/") for tag in without[0])
    header = (tmp_path / "on" / "metrics.csv").read_text().splitlines()[0]
    assert "time/diagnostics" in header
    assert "time/diagnostics" not in (tmp_path / "off" / "metrics.csv").read_text()


def noisy(terms):
    """A loss that draws from the global generator."""
    return (terms.values * torch.randn(())).mean() * 0.01
