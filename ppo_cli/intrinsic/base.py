"""What gives intrinsic rewards: the class that one's own is a subclass of."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ppo_cli.rollout import Rollout
from ppo_cli.spaces import Spaces


class IntrinsicReward:
    """A bonus for each transition of a rollout, beside the environment's reward.

    It is made once a run as ``Class(spaces, device, **intrinsic_kwargs)``, and then told of each rollout
    twice: `rewards`, then `learn`. The bonuses are scaled, discounted and valued by the run, so only their
    relation to each other matters.

    While it is called, Python's, NumPy's and PyTorch's global generators are seeded for it, anew at each
    call, from the run's seed, the iteration and the method: it draws the same in a run that was resumed, and
    disturbs no other stream.
    """

    def __init__(self, spaces: Spaces, device: torch.device) -> None:
        """Starts without having seen anything.

        Args:
            spaces: The spaces of a single environment; a Dict or Tuple observation is packed
                (`ppo_cli.spaces.PackedObservations`).
            device: The device on which the network runs.
        """

    def rewards(self, rollout: Rollout) -> Tensor:
        """The bonuses of a rollout's transitions, float [T, N]; those of rows that are none do not count.

        Args:
            rollout: The rollout, on the CPU, observations as the policy sees them. Its ``next_observations``
                are what the transitions lead to, [T, N, *shape], the true final one where an episode ended.
        """
        raise NotImplementedError("expected a method rewards(rollout) that gives bonuses [T, N]")

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Learns from a rollout, after its bonuses have been given.

        Args:
            rollout: As for `rewards`; ``rollout.rows`` are the indices of the T*N rows that are transitions.

        Returns:
            Numbers to log, by a name: they become ``intrinsic/<name>``.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint is to hold: nested dicts and lists of tensors, arrays and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called.

        Args:
            state: What it returned, arrays as tensors and tuples as lists.
        """
