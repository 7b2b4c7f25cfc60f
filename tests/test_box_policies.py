"""What Box policies are made of beside a plain Gaussian: Beta and discretised ones, and their deviations."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch import Tensor

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.distributions import Beta, DiscretizedCategorical, make_distribution
from ppo_cli.distributions.beta import PROPOSALS
from ppo_cli.distributions.deviations import Bounds, bounded, log_std_bounds, softplus_log_std
from ppo_cli.numpy_actor import numpy_actor
from ppo_cli.spaces import PackedActions

DRAWS = 40_000
VECTOR = spaces.Box(-1, 1, (5,), np.float32)
BOX = spaces.Box(-1, 1, (2,))
ONE = Beta(spaces.Box(-1, 1, (1,)))
# From a flat density to one of deviation 1e-3; softplus of the logits is α - 1 and β - 1.
SHAPES = [(-40.0, -40.0), (-3.0, 1.0), (0.0, 0.0), (5.0, 0.3), (-5.0, 60.0), (2e3, 5e3), (2e5, 1e5)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def concentrations(shape: tuple[float, float]) -> tuple[float, float]:
    alpha, beta = (1 + np.logaddexp(0, shape)).tolist()
    return alpha, beta


def drawn(shape: tuple[float, float], count: int = DRAWS) -> tuple[Tensor, Tensor]:
    """Logits of that shape in every row, and a draw of each."""
    logits = torch.tensor(shape).expand(count, 2)
    return logits, ONE.sample(logits, ONE.noise((count,), generator()))


@pytest.mark.parametrize("shape", SHAPES)
def test_beta_draws_have_the_distribution_function_of_the_density(shape: tuple[float, float]) -> None:
    _, u = drawn(shape)
    x = (torch.tanh(u.double()).flatten() + 1) / 2
    assert stats.kstest(x.numpy(), stats.beta(*concentrations(shape)).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_a_beta_density_integrates_to_one_and_its_entropy_is_its_integral(shape: tuple[float, float]) -> None:
    own = stats.beta(*concentrations(shape))
    ends = [max(own.ppf(1e-12), 1e-12), min(own.isf(1e-12), 1 - 1e-12)]
    grid = np.linspace(*(np.log(x / (1 - x)) / 2 for x in ends), 20_001)
    u = torch.from_numpy(grid).float().unsqueeze(-1)
    logits = torch.tensor(shape).expand(len(u), 2)
    log_prob = ONE.log_prob(logits, u).double().numpy()
    density = np.exp(log_prob) / np.cosh(grid) ** 2  # over u, of a density over tanh(u)
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=2e-3)
    entropy = ONE.entropy(logits[0]).item()
    assert entropy == pytest.approx(-np.trapezoid(density * log_prob, grid), abs=5e-3)
    assert entropy == pytest.approx(own.entropy() + math.log(2), abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_the_mode_of_a_beta_policy_is_where_its_density_is_highest(shape: tuple[float, float]) -> None:
    mode = ONE.mode(torch.tensor([shape]))
    alpha, beta = concentrations(shape)
    assert (math.tanh(mode.item()) + 1) / 2 == pytest.approx((alpha - 1) / (alpha + beta - 2), rel=1e-5)
    around = mode + torch.linspace(-1, 1, 201).unsqueeze(-1)
    log_prob = ONE.log_prob(torch.tensor(shape).expand(201, 2), around)
    assert log_prob.argmax() == 100


@pytest.mark.parametrize("shape", SHAPES)
def test_beta_log_probs_have_the_digits_that_a_ratio_needs(shape: tuple[float, float]) -> None:
    logits, u = drawn(shape, 200)
    expected = stats.beta(*concentrations(shape)).logpdf((np.tanh(u.double().numpy()) + 1) / 2) - math.log(2)
    np.testing.assert_allclose(ONE.log_prob(logits, u).numpy(), expected[:, 0], rtol=1e-5, atol=1e-4)


def test_numpy_takes_the_same_beta_proposals() -> None:
    wide = Beta(spaces.Box(-1, 1, (3,)))
    logits = 4 * torch.randn(2_000, 6, generator=generator(1))
    noise = wide.noise((2_000,), generator())
    expected = wide.sample(logits, noise).numpy()
    np.testing.assert_allclose(
        wide.numpy_sample(logits.numpy(), noise.numpy()), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("taken", [0, 2, PROPOSALS - 1, None])
def test_the_first_beta_proposal_that_holds_is_taken(taken: int | None) -> None:
    noise = torch.full((1, 2, PROPOSALS, 2), -9.0)  # 1 + c z < 0: none holds
    noise[:, 1] = 50.0
    if taken is not None:
        noise[:, 0, taken:] = torch.linspace(0.5, 1.5, PROPOSALS - taken).unsqueeze(-1)
    logits = torch.tensor([[1.0, 3.0]])
    d = 1 + np.logaddexp(0, [1.0, 3.0]) - 1 / 3
    roots = 1 if taken is None else 1 + 0.5 / np.sqrt(9 * d)
    g, h = d * roots**3
    for found in (
        ONE.sample(logits, noise.flatten(1)).item(),
        ONE.numpy_sample(logits.numpy(), noise.flatten(1).numpy()).item(),
    ):
        assert found == pytest.approx(math.log(g / h) / 2, rel=1e-5)


def test_a_beta_draw_is_left_without_a_proposal_in_less_than_one_of_50_million() -> None:
    _, margins = ONE._proposals(torch.ones(DRAWS, 2, dtype=torch.float64), ONE.noise((DRAWS,), generator()))
    held = (margins >= 0).double()  # of α = 1, where the fewest do
    rejected = 1 - held.mean().item() + 4.5 * held.std().item() / held.numel() ** 0.5
    assert rejected**PROPOSALS < 2e-8


@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("u", [-100.0, 0.0, 100.0])
def test_extreme_beta_policies_stay_finite(logit: float, u: float) -> None:
    logits = torch.tensor([[logit, 0.3]], requires_grad=True)
    (ONE.log_prob(logits, torch.tensor([[u]])) + ONE.entropy(logits)).sum().backward()
    assert logits.grad is not None
    noise = ONE.noise((1,), generator())
    found = (logits.grad, ONE.mode(logits), ONE.sample(logits, noise))
    assert all(torch.isfinite(value).all() for value in found)


UNEVEN = spaces.Box(np.array([-0.1, 2.0], np.float32), np.array([0.3, 70.0], np.float32))
INTEGERS = spaces.Box(np.array([-3, 0], np.int16), np.array([3, 100], np.int16), dtype=np.int16)


@pytest.mark.parametrize("space", [UNEVEN, INTEGERS, spaces.Box(-1, 1, (2,), np.float64)], ids=str)
def test_a_beta_policy_reaches_the_bounds_and_nothing_beyond(space: spaces.Box) -> None:
    distribution = Beta(space)
    ends = np.array([[-100.0, -100.0], [100.0, 100.0]], np.float32)
    np.testing.assert_array_equal(distribution.to_env(ends), [space.low, space.high])
    u = distribution.sample(torch.zeros(500, 4), distribution.noise((500,), generator()))
    sent = distribution.to_env(u.numpy())
    assert sent.dtype == space.dtype
    assert all(space.contains(action) for action in sent)
    exported = distribution.to_env_module()(u).numpy()
    np.testing.assert_allclose(exported, sent, rtol=1e-6, atol=1e-6)


WIDEST = [
    spaces.Box(np.iinfo(kind).min, np.iinfo(kind).max, (1,), kind)
    for kind in (np.uint16, np.int64, np.uint64)
]


@pytest.mark.parametrize("space", WIDEST, ids=str)
def test_discretised_integers_of_any_kind_reach_both_bounds(space: spaces.Box) -> None:
    distribution = DiscretizedCategorical(space, 3)
    indices = np.arange(3)[:, None]
    sent = distribution.to_env(indices)
    assert sent[0] == space.low and sent[0] < sent[1] < sent[2] == space.high
    exported = distribution.to_env_module()(torch.from_numpy(indices)).numpy()
    assert exported.dtype == space.dtype
    np.testing.assert_array_equal(exported, sent)


@pytest.mark.parametrize(
    ("space", "bins"), [(UNEVEN, 41), (INTEGERS, 7), (spaces.Box(-1, 1, (), np.float64), 2)]
)
def test_discretised_actions_are_evenly_spaced_from_bound_to_bound(space: spaces.Box, bins: int) -> None:
    distribution = DiscretizedCategorical(space, bins)
    indices = np.arange(bins)[:, None].repeat(distribution.n, 1)
    sent = distribution.to_env(indices)
    assert (sent.dtype, sent.shape) == (space.dtype, (bins, *space.shape))
    np.testing.assert_array_equal(sent[[0, -1]], [space.low, space.high])
    even = np.linspace(space.low.astype(float), space.high.astype(float), bins)
    np.testing.assert_allclose(sent, np.rint(even) if space.dtype == np.int16 else even, rtol=1e-6, atol=1e-7)
    assert len(np.unique(sent.reshape(bins, -1), axis=0)) == bins
    exported = distribution.to_env_module()(torch.from_numpy(indices))
    np.testing.assert_array_equal(exported.numpy(), sent)


def test_discretised_choices_may_differ_where_two_are_as_good() -> None:
    distribution = DiscretizedCategorical(spaces.Box(-1, 1, (2,)), 3)
    scores = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0, 2.0]])
    (allowed,) = distribution.tolerance(scores, None, np.zeros((1, 2), np.int64), 1e-5)
    assert allowed.tolist() == [[np.inf, 0.0]]


def test_beta_proposals_may_differ_where_one_is_held_by_a_hair() -> None:
    noise = ONE.noise((3,), generator()).view(3, 2, PROPOSALS, 2)
    logits = torch.zeros(3, 2)
    _, margins = ONE._proposals(torch.full((3, 2), 1 + math.log(2), dtype=torch.float64), noise.flatten(1))
    noise[1, 1, 0, 0] -= margins[1, 0, 0].float()
    stored = np.zeros((3, 1), np.float32)
    (allowed,) = ONE.tolerance(logits, noise.flatten(1), stored, 1e-5)
    assert np.isinf(allowed.ravel()).tolist() == [False, True, False]
    assert np.isfinite(ONE.tolerance(logits, None, stored, 1e-5)[0]).all()


@pytest.mark.parametrize(
    ("knobs", "space", "said"),
    [
        ({"box_policy": "beta"}, spaces.Box(0, np.inf, (2,)), "box_policy=beta needs finite bounds"),
        ({"box_policy": "categorical"}, spaces.Box(-3e38, 3e38, (2,)), "box_policy=categorical needs finite"),
        (
            {"box_policy": "categorical", "action_bins": 8}, INTEGERS,
            "action_bins=8 is more than the 7 integers",
        ),
        ({"box_policy": "beta"}, spaces.Discrete(2), r"beta needs Box actions, given Discrete\(2\)"),
        (
            {"box_policy": "categorical"}, PackedActions(spaces.Tuple([spaces.MultiBinary(2)])),
            "box_policy=categorical needs Box actions",
        ),
    ],
)  # fmt: skip
def test_a_box_policy_that_does_not_fit_says_so(knobs: dict, space: spaces.Space, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_actor_critic(VECTOR, space, **knobs)


@pytest.mark.parametrize("policy", ["beta", "categorical"])
def test_the_boxes_of_a_nested_space_get_the_policy_and_the_others_theirs(policy: str) -> None:
    space = PackedActions(spaces.Dict({"steer": UNEVEN, "gear": spaces.Discrete(3, start=1)}))
    distribution = make_distribution(space, box_policy=policy, action_bins=5)
    names = {"beta": "Beta", "categorical": "DiscretizedCategorical"}
    assert {type(part).__name__ for part in distribution.parts} == {names[policy], "Categorical"}
    model = make_actor_critic(VECTOR, space, box_policy=policy, action_bins=5)
    logits = model.policy(torch.zeros(64, 5))
    actions = distribution.sample(logits, distribution.noise((64,), generator())).detach()
    assert torch.isfinite(distribution.log_prob(logits, actions)).all()
    assert all(space.original.contains(space.nested(row)) for row in distribution.to_env(actions.numpy()))


def test_a_gradient_beyond_a_bound_passes_only_where_it_leads_back() -> None:
    x = torch.tensor([-3.0, -3.0, 0.0, 0.0, 3.0, 3.0], requires_grad=True)
    upstream = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # a descent goes against it
    y = bounded(x, Bounds(-2.0, 1.0))
    (y * upstream).sum().backward()
    assert y.tolist() == [-2, -2, 0, 0, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1, 1, -1, 1, 0]


@pytest.mark.parametrize("log_std", ["free", "state"])
def test_a_deviation_that_was_carried_beyond_its_bounds_comes_back(log_std: str) -> None:
    model = make_actor_critic(
        VECTOR, BOX, log_std=log_std, log_std_min=-1.0, log_std_max=0.5, hidden_sizes=(8,)
    )
    parameters = list(model.policy_head.parameters())

    def descend(sign: float) -> Tensor:
        for _ in range(40):
            log_std = model.policy(torch.ones(4, 5))[:, 2:]
            grads = torch.autograd.grad((sign * log_std).sum(), parameters, materialize_grads=True)
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter -= 0.3 * grad
        return log_std

    assert (descend(-1) == 0.5).all()
    assert (descend(1) == -1.0).all()
    assert (descend(-1) == 0.5).all()


@pytest.mark.parametrize("init", [-6.0, -1.0, 0.0, 3.0, 19.0])
def test_a_softplus_deviation_begins_as_it_is_told_and_has_a_floor(init: float) -> None:
    bounds = log_std_bounds("softplus", init, None, None)
    found = softplus_log_std(torch.tensor([0.0, -1e10, 1e10], dtype=torch.float64), init, bounds)
    assert found.tolist()[:2] == pytest.approx([init, math.log(1e-3)], abs=1e-6)
    assert torch.isfinite(found).all()
    model = make_actor_critic(VECTOR, BOX, log_std="softplus", log_std_init=init)
    torch.testing.assert_close(
        model.policy(torch.zeros(1, 5))[:, 2:], torch.full((1, 2), init), rtol=1e-4, atol=1e-4
    )


def test_a_softplus_deviation_is_the_softplus_of_the_features_above_its_least() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    bounds = log_std_bounds("softplus", 0.0, math.log(0.1), 1.0)
    shift = math.log(math.expm1(0.9))
    expected = torch.log(0.1 + torch.log1p(torch.exp(x + shift))).clamp(max=1.0)
    torch.testing.assert_close(softplus_log_std(x, 0.0, bounds), expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("free", 0.0, 1.0, 0.5), "from 1 to 0.5: expected log_std_min below log_std_max"),
        (("state", 0.0, 3.0, None), "from 3 to 2: expected log_std_min below"),
        (
            ("free", -3.0, -2.0, None),
            "log_std_init=-3: network.log_std=free has .* from -2 to no bound",
        ),
        (("free", 0.0, None, -0.5), "from no bound to -0.5; set log_std_init"),
        (("softplus", -7.0, None, None), "from -6.908 to no bound"),
        (("softplus", 0.0, 0.0, None), "log_std_init=0: network.log_std=softplus"),
    ],
)
def test_bounds_that_no_deviation_can_begin_between_are_refused(given: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        log_std_bounds(*given)


def test_bounds_that_are_not_given_are_those_of_before() -> None:
    assert log_std_bounds("free", 3.0, None, None) == Bounds(None, None)
    assert log_std_bounds("state", 0.0, None, None) == Bounds(-20, 2)
    assert log_std_bounds("state", 0.0, None, 1.0) == Bounds(-20, 1)


@pytest.mark.parametrize("knobs", [{"log_std_max": -0.5, "log_std_init": -1.0}, {"box_policy": "beta"},
                                   {"box_policy": "categorical", "action_bins": 6}], ids=str)  # fmt: skip
def test_acting_in_numpy_is_acting_in_torch(knobs: dict) -> None:
    model = make_actor_critic(VECTOR, BOX, ortho_init=False, **knobs)
    with torch.no_grad():
        for name, parameter in model.policy_head.named_parameters():
            parameter.copy_(parameter + (1.0 if "log_std" in name else 0.0))  # beyond the bound
    distribution = model.policy_head.distribution
    actor = numpy_actor(model, 6)
    assert actor is not None
    for seed in range(10):
        obs = torch.randn(6, 5, generator=generator(seed))
        noise = distribution.noise((6,), generator(seed + 50))
        with torch.no_grad():
            expected = distribution.sample(model.policy(obs), noise).numpy()
        found = actor(obs.numpy(), noise.numpy())
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
