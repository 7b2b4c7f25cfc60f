"""The parts of the PPO loss (Schulman et al. 2017, https://arxiv.org/abs/1707.06347): pure functions.

The policy's own, which is chosen, is in `ppo_cli.objectives`, and the value's in `ppo_cli.value_losses`.

Every mean is a weighted one, Σwx/Σw, so that a minibatch padded with rows of weight 0 has the loss of
the rows that count.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, softmax

RowError = Callable[[Tensor, Tensor], Tensor]  # of values and their targets, all [B]


def weighted_mean(x: Tensor, weights: Tensor) -> Tensor:
    """Σwx / Σw over a minibatch, both [B]."""
    return (x * weights).sum() / weights.sum()


def probability_ratio(new_logprobs: Tensor, mb_old_logprobs: Tensor) -> Tensor:
    r"""r_t(θ) = π_θ(a_t | s_t) / π_θ_old(a_t | s_t), from log-probabilities [B]."""
    return torch.exp(new_logprobs - mb_old_logprobs)


def squared_error(values: Tensor, targets: Tensor) -> Tensor:
    """(V - V^targ)², all [B]."""
    return (targets - values) ** 2


def huber_error(values: Tensor, targets: Tensor, delta: float) -> Tensor:
    r"""Squared error up to δ, and a line of the same slope beyond (Huber 1964), all [B].

        (V - V^targ)² where |V - V^targ| ≤ δ, else δ (2 |V - V^targ| - δ)

    That is twice Huber's function, so that its scale is that of `squared_error`.
    """
    distance = (targets - values).abs()
    return torch.where(distance <= delta, distance**2, delta * (2 * distance - delta))


def held_values(values: Tensor, old_values: Tensor, vf_clip_ratio: Tensor) -> Tensor:
    """V_old + clip(V - V_old, -ε, ε): values held near those of the rollout, all [B]."""
    return old_values + torch.clamp(values - old_values, -vf_clip_ratio, vf_clip_ratio)


def value_loss(
    values_pred: Tensor, mb_returns: Tensor, weights: Tensor, error: RowError = squared_error
) -> Tensor:
    r"""L^VF(θ) = E[(V_θ(s_t) - V_t^targ)²] (PPO, eq. 9), or of another error of the rows, all [B]."""
    return weighted_mean(error(values_pred, mb_returns), weights)


def clipped_value_loss(
    values_pred: Tensor,
    mb_old_values: Tensor,
    mb_returns: Tensor,
    vf_clip_ratio: Tensor,
    weights: Tensor,
    error: RowError = squared_error,
) -> Tensor:
    r"""Value loss with the change since the rollout clipped, on the scale of `value_loss`.

        E[max((V_θ - V^targ)², (V_old + clip(V_θ - V_old, -ε, ε) - V^targ)²)]

    (OpenAI Baselines' PPO2; detail 9 of "The 37 Implementation Details of PPO").

    Args:
        values_pred: The predictions V_θ(s_t), [B].
        mb_old_values: V(s_t) when the rollout was collected, [B].
        mb_returns: The targets V_t^targ, [B].
        vf_clip_ratio: The bound ε > 0, in units of the targets.
        weights: The weights of the rows, [B].
        error: The error of each row, instead of the square.
    """
    clipped = held_values(values_pred, mb_old_values, vf_clip_ratio)
    worst = torch.max(error(values_pred, mb_returns), error(clipped, mb_returns))
    return weighted_mean(worst, weights)


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(|x| + 1) (Hafner et al. 2023, https://arxiv.org/abs/2301.04104)."""
    return x.sign() * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return x.sign() * torch.expm1(x.abs())


def symexp_bins(count: int, like: Tensor) -> Tensor:
    """Values b_k at equal distances between -20 and 20 in symlog space, symexp([-20, ..., 20]), [K].

    Args:
        count: The number of bins K, which is odd, so that one of them is 0.
        like: A tensor of the wanted dtype, on the wanted device.
    """
    positive = symexp(torch.linspace(0, 20, count // 2 + 1, dtype=like.dtype, device=like.device))
    return torch.cat([-positive[1:].flip(0), positive])


def two_hot(targets: Tensor, bins: Tensor) -> Tensor:
    r"""Weights [B, K] of the two bins beside each target [B], such that Σ_k w_k b_k is the target.

        w_k = (b_{k+1} - y) / (b_{k+1} - b_k),  w_{k+1} = 1 - w_k,  where b_k ≤ y ≤ b_{k+1}

    (Hafner et al. 2023, "symexp twohot"). What lies beyond the bins counts as the outermost one.
    """
    inside = targets.clamp(bins[0], bins[-1]).unsqueeze(-1)  # [B, 1]
    share = ((inside - bins[:-1]) / bins.diff()).clamp(0, 1)  # [B, K - 1]: how far beyond each bin
    edge = torch.ones_like(inside)
    return torch.cat([edge, share], dim=-1) - torch.cat([share, torch.zeros_like(inside)], dim=-1)


def two_hot_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy [B] of logits over the bins, [B, K], to the targets' weights."""
    weights = two_hot(targets, symexp_bins(logits.shape[-1], logits))
    return -(weights * log_softmax(logits, dim=-1)).sum(-1)


def expected_bin(logits: Tensor) -> Tensor:
    """Σ_k p_k b_k of logits over the bins, [B, K] -> [B].

    Each bin is added up with its negative: the outermost are 5e8, and the value of equal logits is 0.
    """
    count = logits.shape[-1]
    probs = softmax(logits, dim=-1)
    positive = symexp_bins(count, logits)[count // 2 + 1 :]
    return ((probs[..., count // 2 + 1 :] - probs[..., : count // 2].flip(-1)) * positive).sum(-1)


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
