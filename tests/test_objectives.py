"""The policy's terms: values and slopes by hand, gradients by finite differences, and padding."""

import numpy as np
import pytest
import torch

from ppo_cli.objectives import OBJECTIVES, Terms, clip, dual_clip, kl_penalty, spo

ROWS, PADDING, EPS = 40, 12, 0.2


def terms(new, old, advantages, weights, clip_ratio=EPS):
    """Terms of a minibatch in double precision, of which only those of the policy matter."""
    new, old, advantages, weights = (
        torch.as_tensor(x, dtype=torch.float64) for x in (new, old, advantages, weights)
    )
    other = torch.zeros_like(new)
    ratio = torch.exp(new - old)
    return Terms(
        other,
        other.unsqueeze(-1),
        other,
        new,
        old,
        ratio,
        advantages,
        other,
        other,
        other,
        weights,
        torch.tensor(clip_ratio, dtype=torch.float64),
    )


def one(ratio, advantage):
    """Terms of a single row with this ratio, and the ratio's leaf."""
    leaf = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    given = terms(torch.log(leaf), torch.zeros(1), [advantage], [1.0])
    return given, leaf


def reference(name, ratio, advantage, beta=3.0, bound=3.0):
    """The loss of each row in NumPy, written from the papers by cases."""
    inside = np.clip(ratio, 1 - EPS, 1 + EPS)
    if name == "kl_penalty":
        return -(ratio * advantage) + beta * (ratio - 1 - np.log(ratio))
    if name == "spo":
        return -(ratio * advantage - abs(advantage) * (ratio - 1) ** 2 / (2 * EPS))
    clipped = np.where(
        advantage >= 0, np.minimum(ratio, 1 + EPS) * advantage, np.maximum(ratio, 1 - EPS) * advantage
    )
    assert np.allclose(clipped, np.minimum(ratio * advantage, inside * advantage))
    if name == "dual_clip":
        clipped = np.where((advantage < 0) & (ratio > bound), bound * advantage, clipped)
    return -clipped


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_and_gradients_are_those_of_the_papers_formula(name):
    generator = np.random.default_rng(0)
    new, old, advantages = generator.normal(size=(3, ROWS))
    new[0], old[0], advantages[0] = 1.5, 0.0, -2.0  # a ratio of 4.5, beyond the second clip
    weights = generator.uniform(0.5, 2, ROWS)
    leaf = torch.tensor(new, requires_grad=True)
    loss = OBJECTIVES[name](terms(leaf, old, advantages, weights))
    loss.backward()

    def value(new):
        return (weights * reference(name, np.exp(new - old), advantages)).sum() / weights.sum()

    assert loss.item() == pytest.approx(value(new), rel=1e-12)
    step = 1e-6
    slopes = [(value(new + step * unit) - value(new - step * unit)) / (2 * step) for unit in np.eye(ROWS)]
    np.testing.assert_allclose(leaf.grad.numpy(), slopes, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),  # inside the clip
        (1.5, 2.0, -2.4, 0.0),  # better than allowed: held at 1.2 × 2
        (0.5, 2.0, -1.0, -2.0),  # worse: the full gradient leads back
        (0.5, -2.0, 1.6, 0.0),  # better than allowed: held at 0.8 × 2
        (1.5, -2.0, 3.0, 2.0),  # worse: not held
        (1.5, 0.0, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("objective", [clip, dual_clip])
def test_clipped_surrogate_by_hand(objective, ratio, advantage, loss, slope):
    given, leaf = one(ratio, advantage)
    value = objective(given)
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert leaf.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("ratio", "bound", "loss", "slope"), [(2.9, 3.0, 5.8, 2.0), (5.0, 3.0, 6.0, 0.0), (5.0, 6.0, 10.0, 2.0)]
)
def test_the_second_clip_holds_a_bad_action_that_became_likely(ratio, bound, loss, slope):
    given, leaf = one(ratio, -2.0)
    value = dual_clip(given, bound=bound)
    value.backward()
    assert (value.item(), leaf.grad.item()) == pytest.approx((loss, slope))


@pytest.mark.parametrize(("advantage", "best"), [(2.0, 1 + EPS), (-0.5, 1 - EPS)])
def test_simple_policy_optimization_is_best_at_the_bound_and_leads_back_beyond_it(advantage, best):
    slopes = []
    for ratio in (best - 0.1, best, best + 0.1):
        given, leaf = one(ratio, advantage)
        spo(given).backward()
        slopes.append(leaf.grad.item())
    assert slopes[0] < 0 < slopes[2]
    assert slopes[1] == pytest.approx(0, abs=1e-12)


def test_the_penalty_by_hand():
    given, leaf = one(2.0, 1.5)
    value = kl_penalty(given, beta=0.5)
    value.backward()
    assert value.item() == pytest.approx(-3 + 0.5 * (1 - np.log(2)))
    assert leaf.grad.item() == pytest.approx(-1.5 + 0.5 * (1 - 0.5))


def test_the_penaltys_gradient_is_that_of_the_exact_divergence_in_expectation():
    old = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.1, 0.5], dtype=torch.float64, requires_grad=True)
    new = torch.log_softmax(logits, 0)
    exact = torch.nn.functional.kl_div(new, old, reduction="sum")
    expected = torch.autograd.grad(exact, logits, retain_graph=True)[0]
    penalty = kl_penalty(
        terms(new, old.log(), torch.zeros(3), old), beta=1.0
    )  # each action by its probability
    torch.testing.assert_close(torch.autograd.grad(penalty, logits)[0], expected)


@pytest.mark.parametrize(
    ("objective", "options"), [(kl_penalty, {"beta": -0.1}), (dual_clip, {"bound": 1.0})]
)
def test_an_option_out_of_its_range_is_refused(objective, options):
    with pytest.raises(ValueError, match="expected a number"):
        objective(one(2.0, 1.5)[0], **options)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_of_weight_zero_change_neither_loss_nor_gradient(name):
    generator = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(ROWS, generator=generator).double() for _ in range(3))
    alone = x.clone().requires_grad_()
    loss = OBJECTIVES[name](terms(alone, y, z, torch.ones(ROWS)))
    loss.backward()
    padding = torch.randn(3, PADDING, generator=generator).double()
    padded = torch.cat([x, padding[0]]).requires_grad_()
    weights = torch.cat([torch.ones(ROWS), torch.zeros(PADDING)])
    other = OBJECTIVES[name](
        terms(padded, torch.cat([y, padding[1]]), torch.cat([z, 99 * padding[2]]), weights)
    )
    other.backward()
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(padded.grad[:ROWS], alone.grad)
    assert (padded.grad[ROWS:] == 0).all()


@pytest.mark.parametrize("name", ["clip", "spo", "dual_clip"])
def test_the_clip_range_is_that_of_the_terms(name):
    given, _ = one(1.4, 1.0)
    wide = given._replace(clip_ratio=torch.tensor(0.5).double())
    assert OBJECTIVES[name](given).item() != pytest.approx(OBJECTIVES[name](wide).item())
