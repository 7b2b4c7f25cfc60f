"""The policy's term of the loss: what ``objective`` may be, and what it and further losses are given.

An objective, as any further loss, is a function ``fn(terms, **options)`` that returns a scalar tensor, to
be minimised. Every mean is a weighted one (`ppo_cli.losses.weighted_mean`), so that rows of weight 0, which
pad a minibatch, have no influence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppo_cli.errors import UserCodeError
from ppo_cli.import_path import calling
from ppo_cli.losses import approximate_kl, weighted_mean


class Terms(NamedTuple):
    """What a loss of one minibatch of B rows may be made of.

    Attributes:
        logits: The parameters of the policy's distribution, [B, P]; illegal actions are masked.
        value_outputs: What the value heads give, [B, K], of which the values are made.
        values: The values V_θ(s_t), [B].
        new_logprobs: The log π_θ(a_t | s_t), [B].
        old_logprobs: The log π_θ_old(a_t | s_t), of the policy that collected the rollout, [B].
        ratio: r_t(θ) = π_θ(a_t | s_t) / π_θ_old(a_t | s_t), [B].
        advantages: Â_t, normalised if that is on, [B].
        returns: V_t^targ, the targets of the values, [B].
        old_values: V(s_t) when the rollout was collected, [B].
        actions: a_t as sampled, [B, *action_shape].
        weights: 1 for a row that counts, 0 for padding, [B].
        clip_ratio: ε > 0, a scalar.
        vf_clip_ratio: That of the value's change, a scalar; None where it is not clipped.
        intrinsic_values: The values of the intrinsic returns, [B]; [0] where there are none.
        intrinsic_returns: Their targets, likewise.
    """

    logits: Tensor
    value_outputs: Tensor
    values: Tensor
    new_logprobs: Tensor
    old_logprobs: Tensor
    ratio: Tensor
    advantages: Tensor
    returns: Tensor
    old_values: Tensor
    actions: Tensor
    weights: Tensor
    clip_ratio: Tensor
    vf_clip_ratio: Tensor | None = None
    intrinsic_values: Tensor = torch.zeros(0)
    intrinsic_returns: Tensor = torch.zeros(0)


@dataclass(frozen=True)
class Loss:
    """A function of `Terms` with its options.

    Attributes:
        name: The name as it was typed.
        function: ``fn(terms, **options)``.
        options: The arguments that it gets beside the terms.
    """

    name: str
    function: Callable[..., Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """Its value's name in the logs."""
        return metric_name(self.name)

    def __call__(self, terms: Terms) -> Tensor:
        """The value for a minibatch, a scalar of the dtype of the values.

        Raises:
            UserCodeError: the function raised, returned something else, or changed a term in place.
        """
        with calling(self.name, self.options, [term for term in terms if term is not None]):
            value = self.function(terms, **self.options)
        if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
            kind = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserCodeError(f"{self.name} returned {kind}: expected a scalar tensor of floats")
        return value.to(terms.values.dtype)


def metric_name(path: str) -> str:
    """The name under which a loss at an import path is logged: the function's own."""
    return path.replace(":", ".").rpartition(".")[2]


def clip(terms: Terms) -> Tensor:
    r"""Clipped surrogate objective (PPO, eq. 7, https://arxiv.org/abs/1707.06347), negated to be minimised.

    L^CLIP(θ) = -E[min(r_t(θ) Â_t, clip(r_t(θ), 1 - ε, 1 + ε) Â_t)]
    """
    surr1 = terms.ratio * terms.advantages
    surr2 = torch.clamp(terms.ratio, 1 - terms.clip_ratio, 1 + terms.clip_ratio) * terms.advantages
    return -weighted_mean(torch.min(surr1, surr2), terms.weights)


def kl_penalty(terms: Terms, beta: float = 3.0) -> Tensor:
    r"""Surrogate objective with a penalty on the divergence from the old policy (PPO, eq. 8), negated.

        L^KLPEN(θ) = -E[r_t(θ) Â_t] + β KL(π_θ_old ‖ π_θ)

    The divergence is `ppo_cli.losses.approximate_kl`, whose expectation, and that of its gradient, are exact.

    Args:
        terms: The terms of the minibatch.
        beta: β ≥ 0; 3 is the best of the fixed ones in the paper's table 1.
    """
    if not beta >= 0:
        raise ValueError(f"beta={beta}: expected a number from 0")
    surrogate = weighted_mean(terms.ratio * terms.advantages, terms.weights)
    return beta * approximate_kl(terms.new_logprobs, terms.old_logprobs, terms.weights) - surrogate


def spo(terms: Terms) -> Tensor:
    r"""Simple Policy Optimization (Xie et al. 2025, https://arxiv.org/abs/2401.16025), negated.

        L^SPO(θ) = -E[r_t(θ) Â_t - |Â_t| / (2 ε) (r_t(θ) - 1)²]

    Each row's best ratio is 1 + ε sign(Â_t), the bound at which `clip` has no gradient left; beyond it the
    gradient leads back.
    """
    penalty = terms.advantages.abs() / (2 * terms.clip_ratio) * (terms.ratio - 1) ** 2
    return -weighted_mean(terms.ratio * terms.advantages - penalty, terms.weights)


def dual_clip(terms: Terms, bound: float = 3.0) -> Tensor:
    r"""`clip`, bounded below where the advantage is negative (Ye et al. 2020, https://arxiv.org/abs/1912.09729).

        -E[max(min(r_t Â_t, clip(r_t, 1 - ε, 1 + ε) Â_t), c Â_t)] where Â_t < 0, and `clip` elsewhere

    A ratio far above 1, with a negative advantage, has no gradient either.

    Args:
        terms: The terms of the minibatch.
        bound: The bound c > 1.
    """
    if not bound > 1:
        raise ValueError(f"bound={bound}: expected a number above 1")
    surr1 = terms.ratio * terms.advantages
    surr2 = torch.clamp(terms.ratio, 1 - terms.clip_ratio, 1 + terms.clip_ratio) * terms.advantages
    clipped = torch.min(surr1, surr2)
    bounded = torch.max(clipped, bound * terms.advantages)
    return -weighted_mean(torch.where(terms.advantages < 0, bounded, clipped), terms.weights)


OBJECTIVES: dict[str, Callable[..., Tensor]] = {
    "clip": clip,
    "kl_penalty": kl_penalty,
    "spo": spo,
    "dual_clip": dual_clip,
}
CLIP = Loss("clip", clip)
