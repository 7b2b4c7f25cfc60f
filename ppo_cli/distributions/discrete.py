"""Discrete and MultiDiscrete actions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import log_softmax

from ppo_cli.distributions.base import Array, Distribution, ToEnv, gumbel, ties
from ppo_cli.spaces import choices


class Categorical(Distribution):
    """Discrete(n): one of ``n`` actions, stored as an index from 0."""

    space: spaces.Discrete[Any]
    action_shape = ()
    action_dtype = torch.int64

    def __init__(self, space: spaces.Discrete[Any]) -> None:
        self.space, self.choices = space, choices(space)
        (self.n,) = self.choices
        self.logits_size = self.noise_size = self.n  # one logit an action, one value a logit

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gumbel noise, [B, n]."""
        return gumbel((*batch_shape, self.n), generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Argmax of the perturbed logits (the Gumbel trick), int64 [B]."""
        return (logits + noise).argmax(-1)

    def mode(self, logits: Tensor) -> Tensor:
        """Argmax of the logits, int64 [B]."""
        return logits.argmax(-1)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Log-softmax at the action, [B]."""
        return log_softmax(logits, dim=-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """-Σ p log p, [B]."""
        log_probs = log_softmax(logits, dim=-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def to_env(self, actions: Array) -> Array:
        """Indices from the space's ``start`` on, [N]."""
        sent: Array = (actions + self.space.start).astype(self.space.dtype, copy=False)
        return sent

    def to_env_module(self) -> ToEnv:
        """`to_env` as a module."""
        return _ToIndex(self.space)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """Any action where the two best scores are as good."""
        return [score_ties(logits if noise is None else logits + noise, self.choices, relative)]

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy."""
        drawn: Array = (logits + noise).argmax(-1)
        return drawn


class MultiCategorical(Distribution):
    """MultiDiscrete(nvec): independent categorical actions, stored as indices from 0, [B, D]."""

    space: spaces.MultiDiscrete
    action_dtype = torch.int64

    def __init__(self, space: spaces.MultiDiscrete) -> None:
        self.space, self.choices = space, choices(space)
        self.action_shape = (len(self.choices),)  # one index a component
        self.logits_size = self.noise_size = sum(self.choices)  # those of all components, one after the other
        self._components = [Categorical(spaces.Discrete(n)) for n in self.choices]
        self._cuts = np.cumsum(self.choices)[:-1]

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gumbel noise, [B, Σn]."""
        return gumbel((*batch_shape, self.logits_size), generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Argmax of each component's perturbed logits, int64 [B, D]."""
        return self.mode(logits + noise)

    def mode(self, logits: Tensor) -> Tensor:
        """Argmax of each component's logits, int64 [B, D]."""
        return torch.stack([part.argmax(-1) for part in logits.split(self.choices, dim=-1)], dim=-1)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Sum of the components' log-probabilities, [B]."""
        columns = zip(self._components, logits.split(self.choices, dim=-1), actions.unbind(-1), strict=True)
        return torch.stack([each.log_prob(part, action) for each, part, action in columns]).sum(0)

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the components' entropies, [B]."""
        columns = zip(self._components, logits.split(self.choices, dim=-1), strict=True)
        return torch.stack([each.entropy(part) for each, part in columns]).sum(0)

    def to_env(self, actions: Array) -> Array:
        """Indices from the space's ``start`` on, [N, *shape]."""
        space = self.space
        sent: Array = (actions.reshape(-1, *space.shape) + space.start).astype(space.dtype)
        return sent

    def to_env_module(self) -> ToEnv:
        """`to_env` as a module."""
        return _ToIndex(self.space)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """Any index of a component whose two best scores are as good."""
        return [score_ties(logits if noise is None else logits + noise, self.choices, relative)]

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy."""
        return np.stack([part.argmax(-1) for part in np.split(logits + noise, self._cuts, -1)], -1)


class _ToIndex(ToEnv):
    starts: Tensor

    def __init__(self, space: "spaces.Discrete[Any] | spaces.MultiDiscrete") -> None:
        super().__init__(space)
        self.register_buffer("starts", torch.as_tensor(np.asarray(space.start, np.int64)))

    def convert(self, values: Tensor) -> Tensor:
        """Indices from the space's ``start`` on."""
        return values.to(torch.int64) + self.starts


def score_ties(scores: Tensor, choices: Sequence[int], relative: float) -> Array:
    """The tolerance of components' choices, [B, D], by scores [B, Σn]: infinite where two are as good."""
    margins, sizes = [], []
    for part in scores.split(list(choices), dim=-1):
        best = part.topk(min(2, part.shape[-1]), dim=-1).values
        lead = best[:, 0] - best[:, 1] if best.shape[1] > 1 else torch.full_like(best[:, 0], math.inf)
        margins.append(lead)
        sizes.append(best[:, 0].abs().clamp(min=1))
    return ties(torch.stack(margins, -1).numpy(), torch.stack(sizes, -1).numpy(), relative)
