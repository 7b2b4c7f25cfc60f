"""Boxes with finite bounds: a categorical choice among evenly spaced values for each component."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import log_softmax

from ppo_cli.distributions.base import Array, Distribution, ToEnv, gumbel
from ppo_cli.distributions.box import check_span
from ppo_cli.distributions.discrete import score_ties


class DiscretizedCategorical(Distribution):
    """Box with finite bounds: each component one of K values, evenly spaced from bound to bound, [B, n].

    Tang and Agrawal 2020 (https://arxiv.org/abs/1901.10500); the values are those of Bian et al. 2026
    (https://arxiv.org/abs/2601.23075), both bounds among them. Stored are the indices. Logits are those of
    the first component's values, then of the second's, [B, nK].
    """

    space: spaces.Box
    action_dtype = torch.int64

    def __init__(self, space: spaces.Box, bins: int) -> None:
        """Takes the space.

        Args:
            space: The space.
            bins: The number K of values of a component.

        Raises:
            ValueError: it has no finite bounds, or fewer integers than there are values.
        """
        check_span(space, "box_policy=categorical", "gaussian")
        self.space, self.n, self.bins = space, math.prod(space.shape), bins
        self.action_shape = (self.n,)
        self.logits_size = self.noise_size = self.n * bins  # one logit a value, one number a logit
        low, high = (bound.astype(np.float64).ravel() for bound in (space.low, space.high))
        values = np.linspace(low, high, bins, axis=-1)  # [n, K]
        if np.issubdtype(space.dtype, np.integer):
            fewest = int((high - low).min()) + 1
            if fewest < bins:
                raise ValueError(
                    f"action_bins={bins} is more than the {fewest} integers of a component of {space}; "
                    "lower it, or set box_policy=gaussian"
                )
            values = np.rint(values)
        with np.errstate(invalid="ignore"):  # the largest integers lie beyond what doubles tell apart
            self.values = values.astype(space.dtype)
        self.values[:, -1] = space.high.ravel()

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gumbel noise, [B, nK]."""
        return gumbel((*batch_shape, self.noise_size), generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Argmax of each component's perturbed logits, int64 [B, n]."""
        return self.mode(logits + noise)

    def mode(self, logits: Tensor) -> Tensor:
        """Argmax of each component's logits, int64 [B, n]."""
        return self._split(logits).argmax(-1)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Sum of the components' log-probabilities, [B]."""
        log_probs = log_softmax(self._split(logits), dim=-1)
        return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1).sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """-Σ p log p over values and components, [B]."""
        log_probs = log_softmax(self._split(logits), dim=-1)
        return -(log_probs.exp() * log_probs).sum((-2, -1))

    def to_env(self, actions: Array) -> Array:
        """The values of the indices, [N, *shape]."""
        places = actions.astype(np.int64, copy=False)  # numbers, beside other parts' actions
        chosen: Array = self.values[np.arange(self.n), places]
        return chosen.reshape(-1, *self.space.shape)

    def to_env_module(self) -> ToEnv:
        """`to_env` as a module."""
        return _ToValues(self)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """Any value of a component whose two best scores are as good."""
        scores = logits if noise is None else logits + noise
        return [score_ties(scores, [self.bins] * self.n, relative)]

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy."""
        drawn: Array = (logits + noise).reshape(-1, self.n, self.bins).argmax(-1)
        return drawn

    def _split(self, logits: Tensor) -> Tensor:
        """[B, nK] -> [B, n, K]."""
        split: Tensor = logits.unflatten(-1, (self.n, self.bins))
        return split


class _ToValues(ToEnv):
    values: Tensor

    def __init__(self, distribution: DiscretizedCategorical) -> None:
        super().__init__(distribution.space)
        values = distribution.values  # [n, K]
        if np.issubdtype(values.dtype, np.integer):  # PyTorch gathers no unsigned ones
            values = values.astype(np.int64)
        self.register_buffer("values", torch.from_numpy(values))

    def forward(self, stored: Tensor) -> Tensor:
        """Indices [B, n] -> values [B, *shape]."""
        places = stored.to(torch.int64).unsqueeze(-1)
        values = self.values.expand(stored.shape[0], -1, -1).gather(-1, places)
        return values.reshape(stored.shape[0], *self.shape).to(self.dtype)
