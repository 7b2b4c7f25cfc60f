"""BatchPolicy: what acts after training, with its normalisation frozen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Generator, Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.arrays import NUMPY
from ppo_cli.distributions import Distribution
from ppo_cli.normalize import ObservationNormalizer


@dataclass(frozen=True)
class BatchPolicy:
    """A network, the distribution over its actions and the observation statistics it was trained with.

    Attributes:
        model: The network, of which the actor's part alone is used.
        distribution: The distribution over its actions.
        normalizer: None leaves observations as they are.
        complete: Makes observations that lack what the actor does not see those that the network takes; None
            where nothing is lacking.
    """

    model: ActorCritic
    distribution: Distribution
    normalizer: ObservationNormalizer | None
    complete: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None

    @property
    def initial_state(self) -> Tensor:
        """The memory's state at an episode's start, [A]: the actor's part, which is all that acting reads."""
        return torch.zeros(self.model.actor_state_size, device=next(self.model.parameters()).device)

    @torch.inference_mode()
    def act(
        self,
        observations: npt.NDArray[Any],
        generator: Generator | None = None,
        states: Tensor | None = None,
    ) -> tuple[npt.NDArray[Any], Tensor]:
        """Stored actions [N, *action_shape] for raw observations [N, *shape], and the memory's next states.

        Args:
            observations: The observations as the environments give them.
            generator: Draws the actions; None takes the most probable ones.
            states: The memory's states, [N, A]; None at the start of episodes.
        """
        logits, states = self.logits(observations, states)
        if generator is None:
            return self.distribution.mode(logits).cpu().numpy(), states
        noise = self.distribution.noise((len(observations),), generator).to(logits.device)
        return self.distribution.sample(logits, noise).cpu().numpy(), states

    @torch.inference_mode()
    def logits(self, observations: npt.NDArray[Any], states: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [N, P] of raw observations [N, *shape], and the memory's next states [N, A]."""
        if states is None:
            states = self.initial_state.repeat(len(observations), 1)
        if self.complete is not None:
            observations = self.complete(observations)
        observations = (self.normalizer or NUMPY.as_float32)(observations)
        obs = torch.as_tensor(observations, device=next(self.model.parameters()).device)
        encoded, states = self.model.encode(obs, states)
        return self.model.logits(self.model.trunk(encoded), obs), states
