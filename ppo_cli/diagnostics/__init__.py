"""Numbers that say why a setting fails: of the network, the gradients, the policy's change and the rollout.

Each is a function of tensors in a module of this package; `diagnose` computes all of them for one iteration,
from the update's batch, the weights before it and those after it. What needs the network is computed on a
sample of the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import normalize_advantages
from ppo_cli.diagnostics.behaviour import clipped_actions, deviation_and_share, kl_k1, moments, value_bias
from ppo_cli.diagnostics.gradients import Gradients, cosine, draw_sample, loss_gradients, noise_scale, shared
from ppo_cli.diagnostics.network import dead_units, effective_rank, saturated_units, watching
from ppo_cli.distributions import Distribution
from ppo_cli.losses import approximate_kl
from ppo_cli.objectives import Terms
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.update import Hyperparameters, make_forward, parameter_shapes


@dataclass(frozen=True)
class Iteration:
    """What the diagnostics of one iteration are made of.

    Attributes:
        model: The network, with the weights after the update.
        distribution: The distribution of the actions.
        hyper: The constant knobs of the update.
        knobs: The values of the annealed ones by name.
        rollout: The rollout.
        batch: What the update learned from, in units of the return.
        learned: The same in those of the value head as it was before the update.
        before: The weights before the update, [P].
    """

    model: ActorCritic
    distribution: Distribution
    hyper: Hyperparameters
    knobs: Mapping[str, float]
    rollout: Rollout
    batch: Batch
    learned: Batch
    before: Tensor


def trained_weights(model: ActorCritic) -> Tensor:
    """A copy of the weights that are trained, as one vector [P]."""
    return torch.cat([each.detach().flatten() for each in model.parameters() if each.requires_grad])


def diagnose(of: Iteration, generator: Generator) -> dict[str, float]:
    """Every diagnostic of an iteration by its name; NaN where there is none.

    Args:
        of: The iteration.
        generator: Draws the sample, on the CPU.
    """
    sample, hyper = draw_sample(of.learned, of.rollout.valid, of.hyper.sequence_length, generator), of.hyper
    if hyper.normalize_advantage:  # once, so that small batches and large ones have the same loss a row
        advantages = normalize_advantages(sample.batch.advantages, sample.weights)
        sample = sample._replace(batch=sample.batch._replace(advantages=advantages))
    forward, after = make_forward(of.model, of.distribution, hyper), trained_weights(of.model)
    coefs = {name: torch.tensor(value, device=after.device) for name, value in of.knobs.items()}
    gradients = loss_gradients(forward, of.before, sample, coefs, of.distribution, hyper)
    with torch.no_grad(), watching(of.model) as units:
        terms = forward(after, sample.batch, sample.weights, coefs)
    counts = sample.weights > 0
    features = {head: given[counts] for head, given in units.features.items()}
    return {
        "dead_units": dead_units(units.rectified),
        "saturated_units": saturated_units(units.bounded),
        "policy_rank": effective_rank(features["policy_head"]),
        "value_rank": effective_rank(features["value_head"]),
        "weight_norm": after.norm().item(),
        "update_ratio": ((after - of.before).norm() / of.before.norm()).item(),
        **_of_gradients(gradients, [shape.numel() for shape in parameter_shapes(of.model)]),
        **_of_policy(of.distribution, terms, counts),
        **_of_rollout(of),
    }


def _of_gradients(found: Gradients, sizes: Sequence[int]) -> dict[str, float]:
    squares = zip((found.total, found.policy), found.small_squares, strict=False)
    noise, policy_noise = (
        noise_scale(small_square, gradient.square().sum(), found.small, found.big)
        for gradient, small_square in squares
    )
    return {
        "grad_norm_policy": found.policy.norm().item(),
        "grad_norm_value": found.value.norm().item(),
        "grad_norm_entropy": found.entropy.norm().item(),
        "grad_cosine": cosine(found.policy, found.value),
        "grad_cosine_shared": cosine(*shared(found.policy, found.value, sizes)),
        "noise_scale": noise,
        "noise_scale_policy": policy_noise,
    }


def _of_policy(distribution: Distribution, terms: Terms, counts: Tensor) -> dict[str, float]:
    deviation, share = deviation_and_share(distribution, terms.logits[counts])
    change = (terms.new_logprobs, terms.old_logprobs, terms.weights)
    return {
        "ratio_max": terms.ratio[counts].max().item(),
        "kl_k1": kl_k1(*change).item(),
        "kl_k3": approximate_kl(*change).item(),
        "action_deviation": deviation,
        "entropy_share": share,
    }


def _of_rollout(of: Iteration) -> dict[str, float]:
    rows = of.rollout.rows.to(of.batch.returns.device)
    found = {"clipped_actions": clipped_actions(of.distribution, of.batch.actions[rows])}
    for name, values in (("advantage", of.batch.advantages), ("return", of.batch.returns)):
        each = zip(("mean", "std", "skew", "kurtosis"), moments(values[rows]), strict=True)
        found |= {f"{name}_{moment}": value for moment, value in each}
    return found | {"value_bias": value_bias(of.batch, of.rollout, of.knobs["gamma"])}
