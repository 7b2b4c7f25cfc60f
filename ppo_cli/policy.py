"""Policy: what acts after training, with its normalisation frozen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.distributions import Distribution
from ppo_cli.normalize import ObservationNormalizer


@dataclass(frozen=True)
class Policy:
    """A network, the distribution over its actions and the observation statistics it was trained with."""

    model: ActorCritic
    distribution: Distribution
    normalizer: ObservationNormalizer | None

    @torch.inference_mode()
    def act(self, observations: npt.NDArray[Any], generator: Generator | None = None) -> npt.NDArray[Any]:
        """Stored actions [N, *action_shape] for raw observations [N, *shape].

        Args:
            observations: as the environments give them.
            generator: draws the actions; None takes the most probable ones.
        """
        if self.normalizer is not None:
            observations = self.normalizer(observations)
        elif observations.dtype == np.float64:
            observations = observations.astype(np.float32)
        device = next(self.model.parameters()).device
        logits = self.model.policy(torch.as_tensor(observations, device=device))
        if generator is None:
            return self.distribution.mode(logits).cpu().numpy()
        noise = self.distribution.noise((len(observations),), generator).to(device)
        return self.distribution.sample(logits, noise).cpu().numpy()
