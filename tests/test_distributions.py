"""Action distributions against torch.distributions, and their samples against their own probabilities."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch import distributions as td

from ppo_cli.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    make_distribution,
)

DISTRIBUTIONS: list[Distribution] = [
    Categorical(5),
    MultiCategorical((2, 3, 4)),
    Bernoulli(3),
    DiagonalGaussian(2),
]
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
        parts = [td.Categorical(logits=part) for part in logits.split(distribution.nvec, dim=-1)]
        log_prob = sum(part.log_prob(action) for part, action in zip(parts, actions.unbind(-1), strict=True))
        return log_prob, sum(part.entropy() for part in parts)
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
    choices = (
        distribution.nvec if isinstance(distribution, MultiCategorical) else [2] * distribution.logits_size
    )
    rows = list(itertools.product(*(range(n) for n in choices)))
    return torch.tensor(rows).to(distribution.action_dtype)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[:3], ids=repr)
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


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[:3], ids=repr)
def test_mode_is_the_most_probable_action(distribution: Distribution) -> None:
    actions = all_actions(distribution)
    for logits in random_logits(distribution, 30):
        best = actions[distribution.log_prob(logits.expand(len(actions), -1), actions).argmax()]
        assert torch.equal(distribution.mode(logits), best)


def test_gaussian_samples_have_its_moments_and_are_independent() -> None:
    mean, std = torch.tensor([3.0, -20.0]), torch.tensor([0.1, 4.0])
    logits = torch.cat([mean, std.log()]).expand(DRAWS, -1)
    samples = draw(DiagonalGaussian(2), logits)
    standard = (samples - mean) / std
    assert (standard.mean(0).abs() < SIGMAS / DRAWS**0.5).all()
    assert ((standard.var(0) - 1).abs() < SIGMAS * (2 / DRAWS) ** 0.5).all()
    assert abs(standard.prod(1).mean().item()) < SIGMAS / DRAWS**0.5
    share_within_one_std = (standard.abs() < 1).to(torch.float32).mean().item()
    assert share_within_one_std == pytest.approx(0.6827, abs=0.01)
    assert torch.equal(DiagonalGaussian(2).mode(logits[0]), mean)


def test_multi_categorical_components_are_independent() -> None:
    samples = draw(MultiCategorical((2, 2)), torch.zeros(DRAWS, 4)).to(torch.float32)
    agree = (samples[:, 0] == samples[:, 1]).to(torch.float32).mean().item()
    assert agree == pytest.approx(0.5, abs=SIGMAS * 0.5 / DRAWS**0.5)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[:3], ids=repr)
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
        (spaces.Discrete(4, start=-2), Categorical(4)),
        (spaces.MultiDiscrete([3, 5]), MultiCategorical((3, 5))),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), MultiCategorical((2, 3, 4, 5))),
        (spaces.MultiBinary(6), Bernoulli(6)),
        (spaces.MultiBinary((2, 3)), Bernoulli(6)),
        (spaces.Box(-1, 1, (2, 3)), DiagonalGaussian(6)),
        (spaces.Box(-1, 1, ()), DiagonalGaussian(1)),
    ],
    ids=str,
)
def test_distribution_of_a_space(space: spaces.Space, expected: Distribution) -> None:
    assert make_distribution(space) == expected


def test_unsupported_space_is_named_in_one_line() -> None:
    low = np.arange(6, dtype=np.float32).reshape(2, 3)  # its repr takes two lines
    space = spaces.Tuple([spaces.Box(low, low + 1), spaces.Discrete(2)])
    with pytest.raises(
        ValueError, match=r"unsupported action space Tuple\(Box\(.*expected Discrete"
    ) as caught:
        make_distribution(space)
    assert "\n" not in str(caught.value)
