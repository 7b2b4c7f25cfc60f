"""What an update learns from: values, log-probabilities, advantages and value targets of a rollout."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import gae
from ppo_cli.distributions import Distribution
from ppo_cli.encoders import is_heavy
from ppo_cli.rollout import Batch, Rollout
from ppo_cli.value_heads import ValueHead, ValueStatistics

# Rows of a forward pass outside the update, and numbers in what they are encoded as; they bound its memory.
EVALUATION_ROWS, EVALUATION_NUMBERS = 4096, 2**27
HEAVY_ROWS = 256  # where a critic's own encoder has layers in between that are wider than that


def compute_batch(
    rollout: Rollout,
    model: ActorCritic,
    distribution: Distribution,
    knobs: Mapping[str, float],
    device: torch.device,
) -> Batch:
    """A rollout with what the update needs beside it, flattened.

    What was not kept while acting is computed here, in one pass over the whole rollout rather than at each
    step.

    Args:
        rollout: What was collected.
        model: The network that acted, on the device.
        distribution: The distribution of the actions.
        knobs: The values in use of what may be annealed, by name.
        device: The device on which the batch is wanted.
    """
    observations = rollout.observations.to(device)
    acted_on = observations[:-1].flatten(0, 1)  # [T, N, ...] -> [T * N, ...]
    actions = rollout.actions.flatten(0, 1).to(device)
    if model.is_heavy:  # acting kept what it computed
        logprobs = rollout.logprobs.flatten().to(device)
    else:
        rows = rows_at_once(model)
        chunks = zip(acted_on.split(rows), actions.split(rows), strict=True)
        logprobs = torch.cat([distribution.log_prob(model.policy(obs), taken) for obs, taken in chunks])
    values, intrinsic_values = values_of(rollout, observations, model)
    next_values = values[1:].clone()
    next_values[rollout.final_index] = compute_values(
        model, rollout.final_obs.to(device), rollout.final_states
    )[0]
    estimate = partial(
        gae,
        rollout.rewards.to(device),
        values[:-1],
        next_values,
        rollout.terminated.to(device),
        rollout.truncated.to(device),
        knobs["gamma"],
    )
    advantages, returns = estimate(knobs["gae_lambda"])
    if "value_lambda" in knobs:
        returns = estimate(knobs["value_lambda"])[1]
    intrinsic_returns = intrinsic_values
    if rollout.intrinsic_rewards is not None:
        rewards = rollout.intrinsic_rewards.to(device)
        bonus, intrinsic_returns = intrinsic_gae(rewards, intrinsic_values, knobs)
        advantages = advantages + knobs["intrinsic_coef"] * bonus
    columns = (advantages, returns, values[:-1])
    memory = (rollout.states[:-1], rollout.episode_starts)
    batch = Batch(
        acted_on,
        actions,
        logprobs,
        *(column.flatten() for column in columns),
        *(column.flatten(0, 1).to(device) for column in memory),
    )
    return batch._replace(intrinsic_returns=intrinsic_returns.flatten())


def values_of(rollout: Rollout, observations: Tensor, model: ActorCritic) -> tuple[Tensor, Tensor]:
    """Values at s_0 to s_T: of the returns [T + 1, N], and of the intrinsic ones [T + 1, N], or none [0].

    Args:
        rollout: What was collected.
        observations: Its observations on the network's device, [T + 1, N, *shape].
        model: The network that acted.
    """
    states = rollout.states
    if not model.is_heavy:
        found = compute_values(model, observations.flatten(0, 1), states.flatten(0, 1))
        values, intrinsic_values = (each.view(-1, rollout.n_envs) if each.numel() else each for each in found)
        return values, intrinsic_values
    kept = (rollout.values, rollout.intrinsic_values)
    values, intrinsic_values = (
        torch.cat([before.to(last.device), last.unsqueeze(0)]) if last.numel() else last
        for before, last in zip(kept, compute_values(model, observations[-1], states[-1]), strict=True)
    )
    return values, intrinsic_values


def intrinsic_gae(rewards: Tensor, values: Tensor, knobs: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Advantages and value targets of intrinsic rewards, both [T, N], by a discount of their own.

    They go on across the ends of episodes (Burda et al. 2018, section 2.3): what is new stays new, whichever
    episode it is found in.

    Args:
        rewards: The intrinsic rewards, [T, N].
        values: The values of the intrinsic returns at s_0 to s_T, [T + 1, N].
        knobs: The values in use of what may be annealed, by name.
    """
    never = torch.zeros_like(rewards, dtype=torch.bool)
    gamma, gae_lambda = knobs["intrinsic_gamma"], knobs["gae_lambda"]
    return gae(rewards, values[:-1], values[1:], never, never, gamma, gae_lambda)


def adapt_values(head: ValueHead, batches: Sequence[Batch], targets: Tensor) -> list[Batch]:
    """Has a head that normalises its values learn the scale of a rollout's targets.

    Args:
        head: The head, which is changed in place; the values that it gives are not.
        batches: Batches whose values and targets are in units of the return.
        targets: The targets of all rows that are transitions, [M].

    Returns:
        The batches with values and targets in the units of the head.
    """
    head.adapt(targets)
    return [in_head_units(head.statistics, each) for each in batches]


def in_head_units(statistics: ValueStatistics | None, batch: Batch) -> Batch:
    """A batch whose values and targets, in units of the return, are in those of a head's loss.

    Args:
        statistics: Those by which the head normalises its values; None where it does not.
        batch: The batch.
    """
    if statistics is None:
        return batch
    normalize = statistics.normalize
    return batch._replace(returns=normalize(batch.returns), values=normalize(batch.values))


def compute_values(model: ActorCritic, observations: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Values [R] of any number of rows [R, *shape] and the memory's states there [R, S].

    Returns:
        The values of the returns [R], and of the intrinsic ones [R], or none [0].
    """
    if not len(observations):  # no episode ended; not every module of a user's takes an empty batch
        nothing = torch.zeros(0, device=observations.device)
        return nothing, nothing
    rows = rows_at_once(model)
    pairs = zip(observations.split(rows), states.to(observations.device).split(rows), strict=True)
    found = [model.all_values(model.critic.step(some, before)[0]) for some, before in pairs]
    values, intrinsic_values = (torch.cat(each) for each in zip(*found, strict=True))
    return values, intrinsic_values


def rows_at_once(model: ActorCritic) -> int:
    """The largest number of rows that a forward pass outside the update is given."""
    widest = max(eyes.encoder.size for eyes in (model.actor, model.critic))
    most = HEAVY_ROWS if model.has_own_critic and is_heavy(model.critic.encoder) else EVALUATION_ROWS
    return max(1, min(most, EVALUATION_NUMBERS // widest))
