"""Numbers that say why a setting fails: of the network, the gradients, the policy's change and the rollout.

Each is a function of tensors in a module of this package; `diagnose` computes all of them for one iteration,
from the update's batch, the weights before it and those after it. What needs the network is computed on a
sample of the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import normalize_advantages
from ppo_cli.diagnostics.behaviour import clipped_actions, deviation_and_share, kl_k1, moments, value_bias
from ppo_cli.diagnostics.gradients import cosine, draw_sample, loss_gradients, noise_scale, shared
from ppo_cli.diagnostics.network import dead_units, effective_rank, saturated_units, watching
from ppo_cli.distributions import Distribution
from ppo_cli.losses import approximate_kl
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.update import Hyperparameters, make_forward, parameter_shapes

NAMES = (
    "dead_units",
    "saturated_units",
    "policy_rank",
    "value_rank",
    "weight_norm",
    "update_ratio",
    "grad_norm_policy",
    "grad_norm_value",
    "grad_norm_entropy",
    "grad_cosine",
    "grad_cosine_shared",
    "grad_noise_scale",
    "ratio_max",
    "kl_k1",
    "kl_k3",
    "action_deviation",
    "entropy_share",
    "clipped_actions",
    "advantage_mean",
    "advantage_std",
    "advantage_skew",
    "advantage_kurtosis",
    "return_mean",
    "return_std",
    "return_skew",
    "return_kurtosis",
    "value_bias",
)


@dataclass(frozen=True)
class Iteration:
    """What the diagnostics of one iteration are made of.

    Attributes:
        model: The network, with the weights after the update.
        distribution: The distribution of the actions.
        hyper: The constant knobs of the update.
        knobs: The values of the annealed ones by name.
        rollout: The rollout.
        batch: What the update learned from.
        before: The weights before the update, [P].
    """

    model: ActorCritic
    distribution: Distribution
    hyper: Hyperparameters
    knobs: Mapping[str, float]
    rollout: Rollout
    batch: Batch
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
    after, rows = trained_weights(of.model), of.rollout.rows.to(of.before.device)
    coefs = {name: torch.tensor(value, device=after.device) for name, value in of.knobs.items()}
    sample = draw_sample(of.batch, of.rollout.valid, of.hyper.sequence_length, generator)
    chosen, weights = sample.batch, sample.weights
    hyper = of.hyper
    if hyper.normalize_advantage:  # once, so that small batches and large ones have the same loss a row
        chosen = chosen._replace(advantages=normalize_advantages(chosen.advantages, weights))
        hyper = replace(hyper, normalize_advantage=False)
    forward = make_forward(of.model, of.distribution, hyper)
    found = loss_gradients(forward, of.before, sample._replace(batch=chosen), coefs, of.distribution, hyper)
    sizes = [shape.numel() for shape in parameter_shapes(of.model)]
    with torch.no_grad(), watching(of.model) as units:
        terms = forward(after, chosen, weights, coefs["clip_ratio"])
    counts = weights > 0
    ranks = {id(each): effective_rank(each[counts]) for each in units.features.values()}
    policy_rank, value_rank = (ranks[id(units.features[head])] for head in ("policy_head", "value_head"))
    deviation, share = deviation_and_share(of.distribution, terms.logits[counts])
    values = (
        dead_units(units.rectified),
        saturated_units(units.bounded),
        policy_rank,
        value_rank,
        after.norm().item(),
        ((after - of.before).norm() / of.before.norm()).item(),
        found.policy.norm().item(),
        found.value.norm().item(),
        found.entropy.norm().item(),
        cosine(found.policy, found.value),
        cosine(*shared(found.policy, found.value, sizes)),
        noise_scale(found.small_square, found.total.square().sum().item(), found.small, found.big),
        terms.ratio[counts].max().item(),
        kl_k1(terms.new_logprobs, terms.old_logprobs, weights).item(),
        approximate_kl(terms.new_logprobs, terms.old_logprobs, weights).item(),
        deviation,
        share,
        clipped_actions(of.distribution, of.batch.actions[rows]),
        *moments(of.batch.advantages[rows]),
        *moments(of.batch.returns[rows]),
        value_bias(of.batch, of.rollout, of.knobs["gamma"]),
    )
    return dict(zip(NAMES, values, strict=True))
