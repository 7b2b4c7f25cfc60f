"""The value's term of the loss: what ``value_loss`` may be, each a function of `ppo_cli.objectives.Terms`.

Each is of the same units as the targets. Where ``vf_clip_ratio`` is set, a row's error is the larger one of
that of the value and that of the value held near the old one, `ppo_cli.losses.clipped_value_loss`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ppo_cli import losses
from ppo_cli.losses import RowError, weighted_mean
from ppo_cli.objectives import Loss, Terms


def mse(terms: Terms) -> Tensor:
    """Mean squared error, `ppo_cli.losses.value_loss` (PPO, eq. 9)."""
    return _mean_error(terms, losses.squared_error)


def huber(terms: Terms, delta: float = 1.0) -> Tensor:
    """Mean of `ppo_cli.losses.huber_error`: far from its target, a value is pulled no harder.

    Args:
        terms: The terms of the minibatch.
        delta: The error δ > 0 up to which it is squared, in units of the targets.
    """
    if not delta > 0:  # below it the loss has no bound
        raise ValueError(f"delta={delta}: expected a number above 0")
    return _mean_error(terms, partial(losses.huber_error, delta=delta))


def symlog(terms: Terms) -> Tensor:
    r"""Mean squared error in symlog space (Hafner et al. 2023, https://arxiv.org/abs/2301.04104).

    E[(f_θ(s_t) - symlog(V_t^targ))²], V_θ = symexp(f_θ)
    """
    targets = losses.symlog(terms.returns)
    errors = losses.squared_error(terms.value_outputs.squeeze(-1), targets)  # [B, 1] -> [B]
    if terms.vf_clip_ratio is not None:
        held = losses.held_values(terms.values, terms.old_values, terms.vf_clip_ratio)
        errors = torch.max(errors, losses.squared_error(losses.symlog(held), targets))
    return weighted_mean(errors, terms.weights)


def two_hot(terms: Terms) -> Tensor:
    """Mean of `ppo_cli.losses.two_hot_error`, a classification (Hafner et al. 2023)."""
    return weighted_mean(losses.two_hot_error(terms.value_outputs, terms.returns), terms.weights)


def _mean_error(terms: Terms, error: RowError) -> Tensor:
    if terms.vf_clip_ratio is None:
        return losses.value_loss(terms.values, terms.returns, terms.weights, error)
    return losses.clipped_value_loss(
        terms.values, terms.old_values, terms.returns, terms.vf_clip_ratio, terms.weights, error
    )


VALUE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse,
    "huber": huber,
    "symlog": symlog,
    "two_hot": two_hot,
}
MSE = Loss("mse", mse)
