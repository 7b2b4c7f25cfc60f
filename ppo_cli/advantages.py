"""Generalized advantage estimation and the normalisation of its result: pure functions."""

import torch
from torch import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    r"""Generalized advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438, eq. 16).

        δ_t = r_t + γ (1 - terminated_t) V(s_{t+1}) - V(s_t)
        Â_t = δ_t + γλ (1 - done_t) Â_{t+1} = Σ_{l≥0} (γλ)^l δ_{t+l}
        V_t^targ = Â_t + V(s_t)

    The sum ends with the episode. A truncation (a time limit) cuts it but keeps V(s_{t+1}), the value of the
    true final observation; a termination drops it.

    Args:
        rewards: The rewards r_t, [T, N].
        values: V(s_t), [T, N].
        next_values: V(s_{t+1}), [T, N], of the episode's own final observation where it ended.
        terminated: The episode ended in a terminal state at t, bool [T, N].
        truncated: The episode was cut at t, bool [T, N].
        gamma: The discount factor γ in [0, 1].
        gae_lambda: The trace decay λ in [0, 1].

    Returns:
        The advantages Â and the value targets, both [T, N].
    """
    deltas = rewards + gamma * next_values * (~terminated) - values
    decays = gamma * gae_lambda * (~(terminated | truncated)).to(rewards.dtype)
    advantages = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[0])
    for delta, decay, advantage in zip(
        reversed(deltas.unbind(0)), reversed(decays.unbind(0)), reversed(advantages.unbind(0)), strict=True
    ):
        running = torch.addcmul(delta, decay, running, out=advantage)
    return advantages, advantages + values


def normalize_advantages(advantages: Tensor, weights: Tensor) -> Tensor:
    r"""Advantages of a minibatch shifted to mean 0 and scaled to (sample) standard deviation 1.

    (Â - mean) / (std + 1e-8), with weighted mean Σwx/Σw and variance Σw(x - mean)²/(Σw - 1).
    A minibatch of a single row is left as it is: it has no deviation.

    Args:
        advantages: The advantages, [B].
        weights: 1 for a row that counts, 0 for padding, [B].
    """
    count = weights.sum()
    mean = (advantages * weights).sum() / count
    variance = (weights * (advantages - mean) ** 2).sum() / (count - 1).clamp(min=1)
    return torch.where(count > 1, (advantages - mean) / (variance.sqrt() + 1e-8), advantages)


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 no better than a constant.

    Args:
        values: The predictions, [T, N].
        returns: The targets of the predictions, [T, N].

    Returns:
        A scalar; NaN where the targets do not vary.
    """
    explained = 1 - (returns - values).var(unbiased=False) / returns.var(unbiased=False)
    return torch.where(varies(returns), explained, torch.full_like(explained, float("nan")))


def varies(values: Tensor) -> Tensor:
    """Whether numbers differ by more than a few units of what they are rounded by, a scalar."""
    rounding = 4 * torch.finfo(values.dtype).eps * values.abs().max()
    return values.std(unbiased=False) > rounding
