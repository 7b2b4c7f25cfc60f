"""Parts of the PPO loss, at values worked out by hand and under padding."""

import math

import pytest
import torch
from torch import Tensor

from ppo_cli import losses

ROWS, PADDING = 20, 12


def rows(seed: int, n: int = ROWS) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def value_term(x: Tensor, y: Tensor, z: Tensor, weights: Tensor) -> Tensor:
    return losses.value_loss(x, y, weights)


def clipped_value_term(x: Tensor, y: Tensor, z: Tensor, weights: Tensor) -> Tensor:
    return losses.clipped_value_loss(x, y, z, torch.tensor(0.3), weights)


def kl_term(x: Tensor, y: Tensor, z: Tensor, weights: Tensor) -> Tensor:
    return losses.approximate_kl(x, y, weights)


def fraction_term(x: Tensor, y: Tensor, z: Tensor, weights: Tensor) -> Tensor:
    return losses.clip_fraction(losses.probability_ratio(x, y), 0.2, weights) + 0 * x.sum()


@pytest.mark.parametrize("term", [value_term, clipped_value_term, kl_term, fraction_term])
def test_rows_of_weight_zero_change_neither_loss_nor_gradient(term) -> None:
    x, y, z = rows(1), rows(2), rows(3)
    alone = x.clone().requires_grad_()
    loss = term(alone, y, z, torch.ones(ROWS))
    loss.backward()
    padded = torch.cat([x, 10 * rows(4, PADDING)]).requires_grad_()
    weights = torch.cat([torch.ones(ROWS), torch.zeros(PADDING)])
    other = term(
        padded, torch.cat([y, 10 * rows(5, PADDING)]), torch.cat([z, 99 * rows(6, PADDING)]), weights
    )
    other.backward()
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(padded.grad[:ROWS], alone.grad)
    assert (padded.grad[ROWS:] == 0).all()


def test_probability_ratio() -> None:
    ratio = losses.probability_ratio(torch.tensor([0.3, 0.5]).log(), torch.tensor([0.6, 0.5]).log())
    assert ratio.tolist() == pytest.approx([0.5, 1.0])


def test_value_loss_is_the_plain_mean_squared_error() -> None:
    predicted, target = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 1.0])
    assert losses.value_loss(predicted, target, torch.ones(2)).item() == pytest.approx(
        5.0
    )  # (9 + 1) / 2, not / 4


def test_a_wide_value_clip_has_the_scale_of_none() -> None:
    predicted, old, target, weights = rows(1), rows(2), rows(3), torch.ones(ROWS)
    plain = losses.value_loss(predicted, target, weights)
    torch.testing.assert_close(
        losses.clipped_value_loss(predicted, old, target, torch.tensor(1e6), weights), plain
    )


@pytest.mark.parametrize(
    ("predicted", "target", "loss", "slope"),
    [
        (0.1, 1.0, 0.81, -1.8),  # inside the clip of 0.2 around 0
        (0.5, 1.0, 0.64, 0.0),  # nearer to the target than allowed: held at 0.2
        (-0.5, 1.0, 2.25, -3.0),  # moved away: the full gradient leads back
        (0.5, 0.0, 0.25, 1.0),
    ],
)
def test_clipped_value_loss_by_hand(predicted: float, target: float, loss: float, slope: float) -> None:
    p = torch.tensor([predicted], requires_grad=True)
    value = losses.clipped_value_loss(
        p, torch.zeros(1), torch.tensor([target]), torch.tensor(0.2), torch.ones(1)
    )
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert p.grad.item() == pytest.approx(slope)


def test_total_loss_rewards_entropy() -> None:
    terms = [torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, 0.7)]
    total = losses.total_loss(*terms, vf_coef=0.5, ent_coef=0.1)
    total.backward()
    assert total.item() == pytest.approx(2 + 1.5 - 0.07)
    assert [term.grad.item() for term in terms] == pytest.approx([1.0, 0.5, -0.1])


def test_approximate_kl_is_zero_for_the_same_policy_and_never_negative() -> None:
    logprobs = rows(1)
    assert losses.approximate_kl(logprobs, logprobs, torch.ones(ROWS)).item() == 0.0
    for scale in (1e-5, 1e-3, 1.0, 5.0):
        for seed in range(20):
            shifted = logprobs + scale * rows(seed + 10)
            assert losses.approximate_kl(shifted, logprobs, torch.ones(ROWS)).item() >= 0.0


def test_approximate_kl_estimates_the_divergence_from_the_old_policy() -> None:
    old, new = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    exact = torch.nn.functional.kl_div(new.log(), old, reduction="sum").item()  # KL(old ‖ new)
    # its expectation over the old policy's actions, taken exactly
    assert losses.approximate_kl(new.log(), old.log(), weights=old).item() == pytest.approx(exact, rel=1e-5)


def test_approximate_kl_of_a_tiny_change_is_not_rounding_noise() -> None:
    old = torch.full((1000,), -0.5)
    kl = losses.approximate_kl(old + 1e-3, old, torch.ones(1000)).item()
    assert kl == pytest.approx((math.exp(1e-3) - 1) - 1e-3, rel=1e-2)


def test_clip_fraction_counts_both_sides_by_weight() -> None:
    ratio = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5, 3.0])
    assert losses.clip_fraction(ratio, 0.2, torch.ones(6)).item() == pytest.approx(0.5)
    assert losses.clip_fraction(ratio, 0.2, torch.tensor([0.0, 1, 1, 1, 1, 0])).item() == pytest.approx(0.25)
