"""What an update learns from: values, log-probabilities, advantages and value targets of a rollout."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import gae
from ppo_cli.distributions import Distribution
from ppo_cli.rollout import Batch, Rollout

# Rows of a forward pass outside the update, and numbers in what they are encoded as; they bound its memory.
EVALUATION_ROWS, EVALUATION_NUMBERS = 4096, 2**27


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
    n_steps, n_envs = rollout.n_steps, rollout.n_envs
    observations = rollout.observations.flatten(0, 1).to(device)  # [T + 1, N] -> [(T + 1) * N]
    acted_on = observations[: n_steps * n_envs]
    actions = rollout.actions.flatten(0, 1).to(device)  # [T, N] -> [T * N]
    if model.is_heavy:  # acting kept what it computed
        logprobs = rollout.logprobs.flatten().to(device)
        last_values = compute_values(model, observations[n_steps * n_envs :], rollout.states[-1])
        values = torch.cat([rollout.values.to(device), last_values.unsqueeze(0)])
    else:
        rows = rows_at_once(model)
        chunks = zip(acted_on.split(rows), actions.split(rows), strict=True)
        logprobs = torch.cat([distribution.log_prob(model.policy(obs), taken) for obs, taken in chunks])
        values = compute_values(model, observations, rollout.states.flatten(0, 1)).view(n_steps + 1, n_envs)
    next_values = values[1:].clone()
    next_values[rollout.final_index] = compute_values(
        model, rollout.final_obs.to(device), rollout.final_states
    )
    advantages, returns = gae(
        rollout.rewards.to(device),
        values[:-1],
        next_values,
        rollout.terminated.to(device),
        rollout.truncated.to(device),
        knobs["gamma"],
        knobs["gae_lambda"],
    )
    columns = (advantages, returns, values[:-1])
    memory = (rollout.states[:-1], rollout.episode_starts)
    return Batch(
        acted_on,
        actions,
        logprobs,
        *(column.flatten() for column in columns),
        *(column.flatten(0, 1).to(device) for column in memory),
    )


def compute_values(model: ActorCritic, observations: Tensor, states: Tensor) -> Tensor:
    """Values [R] of any number of rows [R, *shape] and the memory's states there [R, S]."""
    if not len(observations):  # no episode ended; not every module of a user's takes an empty batch
        return torch.zeros(0, device=observations.device)
    rows = rows_at_once(model)
    pairs = zip(observations.split(rows), states.to(observations.device).split(rows), strict=True)
    return torch.cat([model.value(some, before) for some, before in pairs])


def rows_at_once(model: ActorCritic) -> int:
    """The largest number of rows that a forward pass outside the update is given."""
    return max(1, min(EVALUATION_ROWS, EVALUATION_NUMBERS // model.encoder.size))
