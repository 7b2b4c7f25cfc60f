"""The parts of the PPO loss (Schulman et al. 2017, https://arxiv.org/abs/1707.06347): pure functions.

The policy's own, which is chosen, is in `ppo_cli.objectives`.

Every mean is a weighted one, Σwx/Σw, so that a minibatch padded with rows of weight 0 has the loss of
the rows that count.
"""

import torch
from torch import Tensor


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Σwx / Σw over a minibatch, both [B]."""
    return (x * weights).sum() / weights.sum()


def probability_ratio(new_logprobs: Tensor, mb_old_logprobs: Tensor) -> Tensor:
    r"""r_t(θ) = π_θ(a_t | s_t) / π_θ_old(a_t | s_t), from log-probabilities [B]."""
    return torch.exp(new_logprobs - mb_old_logprobs)


def value_loss(values_pred: Tensor, mb_returns: Tensor, weights: Tensor) -> Tensor:
    r"""L^VF(θ) = E[(V_θ(s_t) - V_t^targ)²] (PPO, eq. 9), all [B]."""
    return weighted_mean((mb_returns - values_pred) ** 2, weights)


def clipped_value_loss(
    values_pred: Tensor,
    mb_old_values: Tensor,
    mb_returns: Tensor,
    vf_clip_ratio: Tensor,
    weights: Tensor,
) -> Tensor:
    r"""Value loss with the change since the rollout clipped, on the scale of `value_loss`.

        E[max((V_θ - V^targ)², (V_old + clip(V_θ - V_old, -ε, ε) - V^targ)²)]

    (OpenAI Baselines' PPO2; detail 9 of "The 37 Implementation Details of PPO").

    Args:
        values_pred: The predictions V_θ(s_t), [B].
        mb_old_values: V(s_t) when the rollout was collected, [B].
        mb_returns: The targets V_t^targ, [B].
        vf_clip_ratio: The bound ε > 0, in units of the return.
        weights: The weights of the rows, [B].
    """
    clipped = mb_old_values + torch.clamp(values_pred - mb_old_values, -vf_clip_ratio, vf_clip_ratio)
    worst = torch.max((mb_returns - values_pred) ** 2, (mb_returns - clipped) ** 2)
    return weighted_mean(worst, weights)


def total_loss(
    policy_loss: Tensor,
    value_loss: Tensor,
    entropy: Tensor,
    vf_coef: float | Tensor,
    ent_coef: float | Tensor,
) -> Tensor:
    r"""L(θ) = L^CLIP + c_1 L^VF - c_2 S[π_θ] (PPO, eq. 9, with the sign of a loss)."""
    return policy_loss + vf_coef * value_loss - ent_coef * entropy


def approximate_kl(new_logprobs: Tensor, mb_old_logprobs: Tensor, weights: Tensor) -> Tensor:
    """KL(π_old ‖ π_θ) ≈ E[(r - 1) - log r], never negative (http://joschu.net/blog/kl-approx.html, k3)."""
    log_ratio = new_logprobs - mb_old_logprobs
    return weighted_mean(torch.expm1(log_ratio) - log_ratio, weights)


def clip_fraction(ratio: Tensor, clip_ratio: float | Tensor, weights: Tensor) -> Tensor:
    """Share of the rows whose ratio lies outside [1 - ε, 1 + ε]."""
    return weighted_mean(((ratio - 1).abs() > clip_ratio).to(weights.dtype), weights)
