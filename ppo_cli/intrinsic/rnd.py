"""Random network distillation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ppo_cli.encoders import IMAGE_ENCODERS
from ppo_cli.encoders.simple import checked_size, checked_sizes
from ppo_cli.intrinsic.base import IntrinsicReward
from ppo_cli.intrinsic.inputs import FeatureNetwork, Inputs
from ppo_cli.optimizers import ADAM
from ppo_cli.optimizers.optimizer import restored
from ppo_cli.rollout import Rollout
from ppo_cli.spaces import Spaces


class RandomNetworkDistillation(IntrinsicReward):
    r"""Bonus for observations that a predictor has seen little of (Burda et al. 2018, arXiv 1810.12894).

        r_t = mean_k (f̂_k(s_{t+1}) - f_k(s_{t+1}))²

    f is a network with random weights that stay as they are, the target; f̂, the predictor, is trained to
    give the same on what has been seen. Observations are normalised by running statistics and clipped to ±5,
    since the target can't adapt to their scale. A rollout is taken into these statistics before its bonuses
    are computed, in place of the paper's random steps before the first one.
    """

    def __init__(
        self,
        spaces: Spaces,
        device: torch.device,
        feature_size: int = 128,
        hidden_sizes: Sequence[int] = (128, 128),
        target_sizes: Sequence[int] = (128,),
        image_encoder: str = "auto",
        learning_rate: float = 1e-3,
        share: float = 1.0,
        n_epochs: int = 1,
        batch_size: int = 256,
        clip: float = 5.0,
    ) -> None:
        """Draws both networks from torch's global generator.

        Args:
            spaces: The spaces of a single environment.
            device: The device that the networks run on.
            feature_size: The number of features k.
            hidden_sizes: The widths of the predictor's hidden layers.
            target_sizes: The widths of the target's; it has fewer, so that the predictor can become it.
            image_encoder: What encodes images in both, as ``network.image_encoder``.
            learning_rate: The step size of the predictor's Adam.
            share: The share of a rollout's transitions that one epoch trains on, so that the bonus does not
                vanish sooner with more environments.
            n_epochs: The epochs of a rollout.
            batch_size: The rows of the predictor's minibatches.
            clip: The largest normalised observation.

        Raises:
            ValueError: an option is out of its range; one line that names it.
        """
        for name, value in (("learning_rate", learning_rate), ("share", share), ("clip", clip)):
            if not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"{name}: expected a number above 0, given {value}")
        if share > 1:
            raise ValueError(f"share: expected a share of at most 1, given {share}")
        if image_encoder not in IMAGE_ENCODERS:  # no import path: stored configs are trusted with none
            names = ", ".join(IMAGE_ENCODERS)
            raise ValueError(f"image_encoder: expected one of {names}, given {image_encoder}")
        self._n_epochs = checked_size("n_epochs", n_epochs)
        self._batch_size = checked_size("batch_size", batch_size)
        self._device, self._learning_rate, self._share = device, torch.tensor(learning_rate), share
        self.inputs = Inputs(spaces.observation_space, clip)
        size = checked_size("feature_size", feature_size)
        target, predictor = (
            FeatureNetwork(self.inputs.spaces, checked_sizes(name, sizes), size, image_encoder)
            for name, sizes in (("target_sizes", target_sizes), ("hidden_sizes", hidden_sizes))
        )
        self.target, self.predictor = target.to(device).requires_grad_(False), predictor.to(device)
        self._shapes = [parameter.shape for parameter in self.predictor.parameters()]
        self._optimizer = ADAM.init(self._params, self._shapes)

    @property
    def _params(self) -> Tensor:
        return parameters_to_vector(self.predictor.parameters()).detach()

    def rewards(self, rollout: Rollout) -> Tensor:
        """The predictor's mean squared error at the observation that each transition leads to, [T, N]."""
        reached = rollout.next_observations.flatten(0, 1)  # [T, N, *shape] -> [T * N, *shape]
        self.inputs.update(reached[rollout.rows])
        with torch.no_grad():
            found = torch.cat([self._errors(rows) for rows in reached.split(self.inputs.chunk)])
        return found.view(rollout.n_steps, rollout.n_envs).cpu()

    def learn(self, rollout: Rollout) -> dict[str, float]:
        """Trains the predictor on a random share of the transitions; gives its mean error on the way."""
        reached, rows = rollout.next_observations.flatten(0, 1), rollout.rows
        count = max(1, round(self._share * len(rows)))
        total = torch.zeros((), device=self._device)
        steps = 0
        for _ in range(self._n_epochs):
            chosen = rows[torch.randperm(len(rows))[:count]]
            for indices in chosen.split(self._batch_size):
                total += self._step(reached[indices])
                steps += 1
        return {"predictor_loss": (total / steps).item()}

    def state_dict(self) -> dict[str, Any]:
        """Both networks, the predictor's optimiser and the statistics of the observations."""
        return {
            "target": self.target.state_dict(),
            "predictor": self.predictor.state_dict(),
            "optimizer": self._optimizer._asdict(),
            "observations": self.inputs.statistics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets all that `state_dict` stores."""
        self.target.load_state_dict(state["target"])
        self.predictor.load_state_dict(state["predictor"])
        self._optimizer = restored(self._optimizer, state["optimizer"])
        self.inputs.statistics.load_state_dict(state["observations"])

    def _errors(self, observations: Tensor) -> Tensor:
        """The predictor's mean squared error at observations [R, *shape], [R]."""
        values = self.inputs(observations, self._device)
        errors: Tensor = (self.predictor(values) - self.target(values)).square().mean(1)
        return errors

    def _step(self, observations: Tensor) -> Tensor:
        """One step of Adam on a minibatch; gives its loss."""
        parameters = list(self.predictor.parameters())
        loss = self._errors(observations).mean()
        grad = torch.cat([each.flatten() for each in torch.autograd.grad(loss, parameters)])
        params, self._optimizer = ADAM.step(
            self._params, grad, self._optimizer, self._learning_rate, self._shapes
        )
        vector_to_parameters(params, parameters)
        return loss.detach()
