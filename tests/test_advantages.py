"""GAE by hand, with both kinds of episode end inside."""

import math

import pytest
import torch

from ppo_cli.advantages import explained_variance, gae, normalize_advantages
from ppo_cli.diagnostics.behaviour import moments


def test_gae_by_hand_with_a_termination_and_a_truncation() -> None:
    # one environment, γ = λ = 0.5; terminated at step 1, truncated at step 3, going on after step 4
    column = lambda *values: torch.tensor(values).unsqueeze(1)  # noqa: E731
    rewards = column(1.0, 2.0, 3.0, 4.0, 5.0)
    values = column(0.5, 1.0, 2.0, 3.0, 4.0)
    next_values = column(
        1.0, 100.0, 3.0, 10.0, 6.0
    )  # 100 is behind a termination; 10 is V(final observation)
    terminated = column(False, True, False, False, False)
    truncated = column(False, False, False, True, False)
    advantages, returns = gae(rewards, values, next_values, terminated, truncated, 0.5, 0.5)
    # δ: 1 + .5·1 - .5 = 1; 2 - 1 = 1; 3 + .5·3 - 2 = 2.5; 4 + .5·10 - 3 = 6; 5 + .5·6 - 4 = 4
    # Â: 1 + .25·1 = 1.25; 1 (episode over); 2.5 + .25·6 = 4; 6 (episode cut); 4
    torch.testing.assert_close(advantages, column(1.25, 1.0, 4.0, 6.0, 4.0))
    torch.testing.assert_close(returns, column(1.75, 2.0, 6.0, 9.0, 8.0))


def test_gae_with_lambda_one_is_the_discounted_return() -> None:
    rewards = torch.ones(3, 1)
    flags = torch.zeros(3, 1, dtype=torch.bool)
    values = torch.tensor([[7.0], [8.0], [9.0]])
    next_values = torch.tensor([[8.0], [9.0], [16.0]])
    _, returns = gae(rewards, values, next_values, flags, flags, 0.5, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[1 + 0.5 + 0.25 + 2.0], [1 + 0.5 + 4.0], [1 + 8.0]]))


def test_environments_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values, next_values = (torch.randn(20, 3, generator=generator) for _ in range(3))
    terminated = torch.rand(20, 3, generator=generator) < 0.2
    truncated = (torch.rand(20, 3, generator=generator) < 0.2) & ~terminated
    together = gae(rewards, values, next_values, terminated, truncated, 0.9, 0.8)[0]
    for env in range(3):
        one = (x[:, env : env + 1] for x in (rewards, values, next_values, terminated, truncated))
        torch.testing.assert_close(together[:, env : env + 1], gae(*one, 0.9, 0.8)[0])


def test_normalized_advantages_ignore_padding() -> None:
    advantages = torch.tensor([1.0, 2.0, 6.0, 1000.0])
    normalized = normalize_advantages(advantages, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(normalized[:3].mean(), torch.tensor(0.0))
    torch.testing.assert_close(normalized[:3].std(), torch.tensor(1.0))


def test_a_single_row_is_not_normalized() -> None:
    assert normalize_advantages(torch.tensor([3.0, 9.0]), torch.tensor([1.0, 0.0]))[0] == 3.0


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 2.0), returns) == pytest.approx(0.0)
    assert explained_variance(returns, torch.ones(3)).isnan()


@pytest.mark.parametrize("constant", [0.1, 1.0, -3e5, 0.0])
def test_what_only_rounding_tells_apart_does_not_vary(constant: float) -> None:
    values = torch.linspace(-1, 1, 512).view(64, 8) * constant
    returns = (torch.full_like(values, constant) - values) + values  # as targets are made
    assert explained_variance(values, returns).isnan()
    assert math.isnan(moments(returns.flatten())[2])
    varied = returns + 1e-4 * abs(constant) * torch.arange(512).view(64, 8)
    assert explained_variance(values, varied).isfinite() or not constant
