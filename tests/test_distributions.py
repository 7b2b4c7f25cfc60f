"""Action distributions against torch.distributions, and their samples against their own probabilities."""

import itertools
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch import distributions as td
from torch.nn import functional

from ppo_cli.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    DiagonalGaussian,
    DiscretizedCategorical,
    Distribution,
    MultiCategorical,
    Product,
    SquashedGaussian,
    make_distribution,
)
from ppo_cli.spaces import PackedActions


def box(n: int) -> spaces.Box:
    return spaces.Box(-1, 1, (n,))


DISTRIBUTIONS: list[Distribution] = [
    Categorical(spaces.Discrete(5)),
    MultiCategorical(spaces.MultiDiscrete([2, 3, 4])),
    Bernoulli(spaces.MultiBinary(3)),
    DiagonalGaussian(box(2)),
    DiscretizedCategorical(box(2), bins=4),
    Beta(box(2)),
]
DISCRETE = [*DISTRIBUTIONS[:3], DISTRIBUTIONS[4]]
BATCH_SHAPES = [(), (7,), (3, 4)]
DRAWS = 40_000
# |frequency - p| of a fair draw is below 4.5 standard deviations but for 7 cases in a million
SIGMAS = 4.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_logits(distribution: Distribution, *batch_shape: int, seed: int = 1) -> Tensor:
    return torch.randn((*batch_shape, distribution.logits_size), generator=generator(seed)) * 1.5


def draw(distribution: Distribution, logits: Tensor, seed: int = 0) -> Tensor:
    """One sample a row of the logits."""
    return distribution.sample(logits, distribution.noise(tuple(logits.shape[:-1]), generator(seed)))


def reference(distribution: Distribution, logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """log π(a) and entropy by torch.distributions, of [..., P] logits."""
    if isinstance(distribution, Categorical):
        theirs: td.Distribution = td.Categorical(logits=logits)
    elif isinstance(distribution, MultiCategorical):
        parts = [td.Categorical(logits=part) for part in logits.split(distribution.choices, dim=-1)]
        log_prob = sum(part.log_prob(action) for part, action in zip(parts, actions.unbind(-1), strict=True))
        return log_prob, sum(part.entropy() for part in parts)
    elif isinstance(distribution, DiscretizedCategorical):
        theirs = td.Independent(td.Categorical(logits=logits.unflatten(-1, (-1, distribution.bins))), 1)
    elif isinstance(distribution, Beta):
        alpha, beta = (1 + functional.softplus(logits)).chunk(2, dim=-1)
        stretched = td.TransformedDistribution(td.Beta(alpha, beta), td.AffineTransform(-1, 2))
        log_prob = stretched.log_prob(torch.tanh(actions)).sum(-1)
        return log_prob, (td.Beta(alpha, beta).entropy() + math.log(2)).sum(-1)
    elif isinstance(distribution, Bernoulli):
        theirs = td.Independent(td.Bernoulli(logits=logits), 1)
    else:
        mean, log_std = logits.chunk(2, dim=-1)
        theirs = td.Independent(td.Normal(mean, log_std.exp()), 1)
    return theirs.log_prob(actions), theirs.entropy()


@pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_log_prob_and_entropy_match_torch(distribution: Distribution, batch_shape: tuple[int, ...]) -> None:
    logits = random_logits(distribution, *batch_shape)
    actions = draw(distribution, logits)
    log_prob, entropy = reference(distribution, logits, actions)
    assert log_prob.shape == entropy.shape == batch_shape
    torch.testing.assert_close(distribution.log_prob(logits, actions), log_prob)
    torch.testing.assert_close(distribution.entropy(logits), entropy)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_gradients_match_torch(distribution: Distribution) -> None:
    ours = random_logits(distribution, 6).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    actions = draw(distribution, ours.detach())
    (distribution.log_prob(ours, actions) + 3 * distribution.entropy(ours)).sum().backward()
    log_prob, entropy = reference(distribution, theirs, actions)
    (log_prob + 3 * entropy).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_shapes_and_dtypes(distribution: Distribution, batch_shape: tuple[int, ...]) -> None:
    logits = random_logits(distribution, *batch_shape)
    for actions in (draw(distribution, logits), distribution.mode(logits)):
        assert actions.shape == (*batch_shape, *distribution.action_shape)
        assert actions.dtype == distribution.action_dtype


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_the_generator_alone_decides_a_sample(distribution: Distribution) -> None:
    logits = random_logits(distribution, 50)
    torch.manual_seed(1)
    first = draw(distribution, logits, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, draw(distribution, logits, seed=3))
    assert not torch.equal(first, draw(distribution, logits, seed=4))


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=repr)
def test_rows_and_steps_get_noise_of_their_own(distribution: Distribution) -> None:
    rows = distribution.noise((4, 3), generator()).flatten(0, 1)
    assert len({tuple(row.tolist()) for row in rows}) == 12


def all_actions(distribution: Distribution) -> Tensor:
    """Every action of a discrete distribution, [K, *action_shape]."""
    if isinstance(distribution, Categorical):
        return torch.arange(distribution.n)
    if isinstance(distribution, DiscretizedCategorical):
        choices = (distribution.bins,) * distribution.n
    else:
        choices = distribution.choices or (2,) * distribution.logits_size
    rows = list(itertools.product(*(range(n) for n in choices)))
    return torch.tensor(rows).to(distribution.action_dtype)


@pytest.mark.parametrize("distribution", DISCRETE, ids=repr)
def test_sampled_frequencies_are_the_probabilities(distribution: Distribution) -> None:
    logits = random_logits(distribution)
    samples = draw(distribution, logits.expand(DRAWS, -1))
    actions = all_actions(distribution)
    probabilities = distribution.log_prob(logits.expand(len(actions), -1), actions).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    hits = samples.unsqueeze(0) == actions.unsqueeze(1)  # [K, draws, *action_shape]
    frequencies = hits.reshape(len(actions), DRAWS, -1).all(-1).to(torch.float32).mean(1)
    deviation = (probabilities * (1 - probabilities) / DRAWS).sqrt()
    assert ((frequencies - probabilities).abs() <= SIGMAS * deviation).all()


@pytest.mark.parametrize("distribution", DISCRETE, ids=repr)
def test_mode_is_the_most_probable_action(distribution: Distribution) -> None:
    actions = all_actions(distribution)
    for logits in random_logits(distribution, 30):
        best = actions[distribution.log_prob(logits.expand(len(actions), -1), actions).argmax()]
        assert torch.equal(distribution.mode(logits), best)


def test_gaussian_samples_have_its_moments_and_are_independent() -> None:
    mean, std = torch.tensor([3.0, -20.0]), torch.tensor([0.1, 4.0])
    logits = torch.cat([mean, std.log()]).expand(DRAWS, -1)
    samples = draw(DiagonalGaussian(box(2)), logits)
    standard = (samples - mean) / std
    assert (standard.mean(0).abs() < SIGMAS / DRAWS**0.5).all()
    assert ((standard.var(0) - 1).abs() < SIGMAS * (2 / DRAWS) ** 0.5).all()
    assert abs(standard.prod(1).mean().item()) < SIGMAS / DRAWS**0.5
    share_within_one_std = (standard.abs() < 1).to(torch.float32).mean().item()
    assert share_within_one_std == pytest.approx(0.6827, abs=0.01)
    assert torch.equal(DiagonalGaussian(box(2)).mode(logits[0]), mean)


def test_multi_categorical_components_are_independent() -> None:
    samples = draw(MultiCategorical(spaces.MultiDiscrete([2, 2])), torch.zeros(DRAWS, 4)).to(torch.float32)
    agree = (samples[:, 0] == samples[:, 1]).to(torch.float32).mean().item()
    assert agree == pytest.approx(0.5, abs=SIGMAS * 0.5 / DRAWS**0.5)


@pytest.mark.parametrize("distribution", DISCRETE, ids=repr)
def test_extreme_logits_stay_finite(distribution: Distribution) -> None:
    logits = torch.zeros(4, distribution.logits_size)
    logits[:, 0] = torch.tensor([500.0, -500.0, 500.0, -500.0])
    logits.requires_grad_()
    actions = draw(distribution, logits.detach())
    log_prob, entropy = distribution.log_prob(logits, actions), distribution.entropy(logits)
    (log_prob + entropy).sum().backward()
    assert logits.grad is not None
    for value in (log_prob, entropy, logits.grad):
        assert torch.isfinite(value).all()
    assert (log_prob <= 0).all()
    assert (entropy >= 0).all()


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(4, start=-2), (Categorical, 4, (), (4,))),
        (spaces.MultiDiscrete([3, 5]), (MultiCategorical, 8, (2,), (3, 5))),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), (MultiCategorical, 14, (4,), (2, 3, 4, 5))),
        (spaces.MultiBinary(6), (Bernoulli, 6, (6,), ())),
        (spaces.MultiBinary((2, 3)), (Bernoulli, 6, (6,), ())),
        (spaces.Box(-1, 1, (2, 3)), (DiagonalGaussian, 12, (6,), ())),
        (spaces.Box(-1, 1, ()), (DiagonalGaussian, 2, (1,), ())),
    ],
    ids=str,
)
def test_distribution_of_a_space(space: spaces.Space, expected: tuple) -> None:
    distribution = make_distribution(space)
    assert distribution.form == expected
    assert distribution.space is space


def test_unsupported_space_is_named_in_one_line() -> None:
    low = np.arange(6, dtype=np.float32).reshape(2, 3)  # its repr takes two lines
    space = spaces.Tuple([spaces.Box(low, low + 1), spaces.Discrete(2)])
    with pytest.raises(
        ValueError, match=r"unsupported action space Tuple\(Box\(.*expected Discrete"
    ) as caught:
        make_distribution(space)
    assert "\n" not in str(caught.value)


SQUASHED = SquashedGaussian(box(2))
PARTS = (spaces.Discrete(3), box(2), spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(2), box(2))
PRODUCT = Product(
    PackedActions(spaces.Tuple(PARTS)), [*(make_distribution(space) for space in PARTS[:-1]), SQUASHED]
)


def squashed_reference(logits: Tensor) -> td.Distribution:
    mean, log_std = logits.double().chunk(2, dim=-1)
    return td.TransformedDistribution(td.Normal(mean, log_std.exp()), td.TanhTransform())


def test_squashed_log_prob_is_that_of_the_transformed_distribution() -> None:
    logits = random_logits(SQUASHED, 50) * 0.5
    u = draw(SQUASHED, logits)
    expected = squashed_reference(logits).log_prob(torch.tanh(u.double())).sum(-1)
    inside = u.abs().amax(-1) < 4  # beyond, tanh in double precision loses the reference's digits
    assert inside.sum() > 30
    found = SQUASHED.log_prob(logits, u).double()
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("log_std", [-3.0, -1.0, 0.0, 1.0, 2.0])
def test_squashed_entropy_is_the_mean_of_minus_log_prob(log_std: float) -> None:
    means = torch.tensor([[0.0, 0.5], [-2.0, 4.0]])
    logits = torch.cat([means, torch.full_like(means, log_std)], dim=-1)
    many = logits.repeat_interleave(DRAWS, 0)
    found = -SQUASHED.log_prob(many, draw(SQUASHED, many)).view(2, DRAWS)
    assert ((SQUASHED.entropy(logits) - found.mean(1)).abs() < SIGMAS * found.std(1) / DRAWS**0.5).all()


@pytest.mark.parametrize("deviation", [math.exp(-20), 1e-3, 0.1, 0.5, 1.0, 2.7, math.exp(2), 20.0, 1e4])
@pytest.mark.parametrize("mean", [0.0, 0.3, -2.0, 8.0, -60.0])
def test_squashed_entropy_and_its_gradient_are_those_of_a_dense_integral(
    mean: float, deviation: float
) -> None:
    z = np.linspace(-12, 12, 200_001)
    weights = np.exp(-0.5 * z * z)
    weights /= weights.sum()
    u = mean + deviation * z
    slope = 2 * (math.log(2) - np.logaddexp(u, -u)) * weights
    entropy = math.log(deviation) + 0.5 * (1 + math.log(2 * math.pi)) + slope.sum()
    by_mean = (-2 * np.tanh(u) * weights).sum()
    by_log_std = 1 + (-2 * np.tanh(u) * deviation * z * weights).sum()
    logits = torch.tensor([[mean, math.log(deviation)]], requires_grad=True)
    found = SquashedGaussian(box(1)).entropy(logits)
    found.sum().backward()
    assert found.item() == pytest.approx(entropy, rel=1e-5, abs=1e-5)
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([by_mean, by_log_std], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("u", [-1e4, -100.0, -20.0, 0.0, 20.0, 100.0, 1e4])
def test_squashed_gradients_are_finite_for_extreme_actions(u: float) -> None:
    logits = torch.tensor([[0.3, -0.2, 0.1, -1.0]], requires_grad=True)
    actions = torch.full((1, 2), u)
    (SQUASHED.log_prob(logits, actions) + SQUASHED.entropy(logits)).sum().backward()
    assert torch.isfinite(logits.grad).all()
    far = torch.tensor([[u, -u, 2.0, -20.0]], requires_grad=True)  # as state-dependent deviations are bounded
    SQUASHED.entropy(far).sum().backward()
    assert torch.isfinite(far.grad).all()


def test_the_jacobian_of_the_squashing_cancels_in_the_ratio() -> None:
    old, new = random_logits(SQUASHED, 30, seed=1), random_logits(SQUASHED, 30, seed=2)
    u, plain = draw(SQUASHED, old), DiagonalGaussian(box(2))
    ratio = SQUASHED.log_prob(new, u) - SQUASHED.log_prob(old, u)
    torch.testing.assert_close(ratio, plain.log_prob(new, u) - plain.log_prob(old, u), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_shape", BATCH_SHAPES, ids=str)
def test_a_product_is_its_parts(batch_shape: tuple[int, ...]) -> None:
    logits = random_logits(PRODUCT, *batch_shape)
    noise = PRODUCT.noise(batch_shape, generator())
    actions, mode = PRODUCT.sample(logits, noise), PRODUCT.mode(logits)
    assert actions.shape == (*batch_shape, *PRODUCT.action_shape)
    assert noise.shape[-1] == PRODUCT.noise_size
    log_prob, entropy = torch.zeros(batch_shape), torch.zeros(batch_shape)
    sizes = [int(np.prod(part.action_shape)) for part in PRODUCT.parts]
    columns = zip(
        PRODUCT.parts,
        logits.split([part.logits_size for part in PRODUCT.parts], -1),
        noise.split([part.noise_size for part in PRODUCT.parts], -1),
        actions.split(sizes, -1),
        mode.split(sizes, -1),
        strict=True,
    )
    for part, own, own_noise, stored, most in columns:
        taken = part.sample(own, own_noise)
        assert torch.equal(stored, taken.to(actions.dtype).reshape(stored.shape))
        assert torch.equal(most, part.mode(own).to(actions.dtype).reshape(most.shape))
        log_prob += part.log_prob(own, taken)
        entropy += part.entropy(own)
    torch.testing.assert_close(PRODUCT.log_prob(logits, actions), log_prob)
    torch.testing.assert_close(PRODUCT.entropy(logits), entropy)


def test_a_products_parts_are_drawn_independently() -> None:
    logits = torch.zeros(DRAWS, PRODUCT.logits_size)
    correlation = torch.corrcoef(draw(PRODUCT, logits).T)
    assert (correlation - torch.eye(len(correlation))).abs().max() < SIGMAS / DRAWS**0.5


def test_squashing_needs_bounds_and_says_so() -> None:
    with pytest.raises(ValueError, match="squash_actions=true needs finite bounds, given Box") as refused:
        make_distribution(spaces.Box(np.array([0.0, -np.inf], np.float32), 1.0, (2,)), squash=True)
    assert "\n" not in str(refused.value)
