"""One class an action space: how the policy's logits become actions, log-probabilities and entropy.

A distribution is stateless. Randomness enters as a noise tensor drawn beforehand (`noise`), so that
`sample` is a pure function of the logits and that noise.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import log_softmax, softplus

from ppo_cli.spaces import PackedActions, unsupported


class Distribution(Protocol):
    """What an action space needs. ``B`` stands for any leading batch shape."""

    @property
    def logits_size(self) -> int:
        """Number of values P that the policy head gives: logits are [B, P]."""

    @property
    def noise_size(self) -> int:
        """Number of values of the noise for one action."""

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action as it is stored, behind the batch axes."""

    @property
    def action_dtype(self) -> torch.dtype:
        """Dtype of a stored action."""

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Noise for one `sample` of logits of that batch shape, on the CPU."""

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Action drawn with that noise, [B, *action_shape]."""

    def mode(self, logits: Tensor) -> Tensor:
        """The most probable action, [B, *action_shape]."""

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Log-probability log π(a | s), [B]."""

    def entropy(self, logits: Tensor) -> Tensor:
        """S[π] in nats, [B]."""


def _gumbel(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbel noise: argmax(logits + noise) is a draw from softmax(logits)."""
    return torch.empty(shape).exponential_(generator=generator).log_().neg_()


@dataclass(frozen=True)
class Categorical:
    """Discrete(n): one of ``n`` actions, stored as an index from 0."""

    n: int
    action_shape: tuple[int, ...] = ()
    action_dtype: torch.dtype = torch.int64

    @property
    def logits_size(self) -> int:
        """One logit an action."""
        return self.n

    @property
    def noise_size(self) -> int:
        """One value a logit."""
        return self.n

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gumbel noise, [B, n]."""
        return _gumbel((*batch_shape, self.n), generator)

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


@dataclass(frozen=True)
class MultiCategorical:
    """MultiDiscrete(nvec): independent categorical actions, stored as indices from 0, [B, D]."""

    nvec: tuple[int, ...]
    action_dtype: torch.dtype = torch.int64

    @property
    def action_shape(self) -> tuple[int, ...]:
        """One index a component."""
        return (len(self.nvec),)

    @property
    def logits_size(self) -> int:
        """The logits of all components, one after the other."""
        return sum(self.nvec)

    def _parts(self) -> list[Categorical]:
        return [Categorical(n) for n in self.nvec]

    @property
    def noise_size(self) -> int:
        """One value a logit."""
        return self.logits_size

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Gumbel noise, [B, Σn]."""
        return _gumbel((*batch_shape, self.logits_size), generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Argmax of each component's perturbed logits, int64 [B, D]."""
        return self.mode(logits + noise)

    def mode(self, logits: Tensor) -> Tensor:
        """Argmax of each component's logits, int64 [B, D]."""
        return torch.stack([part.argmax(-1) for part in logits.split(self.nvec, dim=-1)], dim=-1)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Sum of the components' log-probabilities, [B]."""
        columns = zip(self._parts(), logits.split(self.nvec, dim=-1), actions.unbind(-1), strict=True)
        return torch.stack([part.log_prob(part_logits, action) for part, part_logits, action in columns]).sum(
            0
        )

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the components' entropies, [B]."""
        columns = zip(self._parts(), logits.split(self.nvec, dim=-1), strict=True)
        return torch.stack([part.entropy(part_logits) for part, part_logits in columns]).sum(0)


@dataclass(frozen=True)
class Bernoulli:
    """MultiBinary(n): ``n`` independent bits, stored as 0.0 and 1.0, [B, n]."""

    n: int
    action_dtype: torch.dtype = torch.float32

    @property
    def action_shape(self) -> tuple[int, ...]:
        """One value a bit."""
        return (self.n,)

    @property
    def logits_size(self) -> int:
        """One logit a bit: the log-odds of 1."""
        return self.n

    @property
    def noise_size(self) -> int:
        """One value a bit."""
        return self.n

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Logistic noise, [B, n]: the difference of two Gumbel draws."""
        shape = (*batch_shape, self.n)
        return _gumbel(shape, generator) - _gumbel(shape, generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """1 where the perturbed log-odds are positive, [B, n]."""
        return self.mode(logits + noise)

    def mode(self, logits: Tensor) -> Tensor:
        """1 where the log-odds are positive, [B, n]."""
        return (logits > 0).to(self.action_dtype)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Σ a log p + (1 - a) log(1 - p), [B]."""
        return (actions * logits - softplus(logits)).sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the bits' entropies, [B]."""
        return (softplus(logits) - torch.sigmoid(logits) * logits).sum(-1)


@dataclass(frozen=True)
class DiagonalGaussian:
    """Box: independent normal components, stored flat and unclipped, [B, n].

    The logits are the means followed by the logarithms of the standard deviations, [B, 2n]. gSDE is this
    distribution too: its deviations depend on the state and its noise is correlated in time, both of
    which are the policy head's business.
    """

    n: int
    action_dtype: torch.dtype = torch.float32

    @property
    def action_shape(self) -> tuple[int, ...]:
        """One value a component."""
        return (self.n,)

    @property
    def logits_size(self) -> int:
        """A mean and a log-deviation a component."""
        return 2 * self.n

    @property
    def noise_size(self) -> int:
        """One value a component."""
        return self.n

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Standard normal noise, [B, n]."""
        return torch.randn((*batch_shape, self.n), generator=generator)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Mean plus scaled noise, [B, n]."""
        mean, log_std = logits.chunk(2, dim=-1)
        return mean + log_std.exp() * noise

    def mode(self, logits: Tensor) -> Tensor:
        """The mean, [B, n]."""
        return logits.chunk(2, dim=-1)[0]

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """-Σ ((a - μ) / σ)² / 2 + log σ + log(2π) / 2, [B]."""
        mean, log_std = logits.chunk(2, dim=-1)
        z = (actions - mean) * (-log_std).exp()
        return -(0.5 * z * z + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """Σ log σ + (1 + log(2π)) / 2, [B]."""
        log_std = logits.chunk(2, dim=-1)[1]
        return (log_std + 0.5 * (1 + math.log(2 * math.pi))).sum(-1)


@dataclass(frozen=True)
class SquashedGaussian(DiagonalGaussian):
    """Box with finite bounds: tanh of a Gaussian, stretched to the bounds on the way to the environment.

    What is stored is u, before the tanh. Probabilities and entropies are those of tanh(u) in [-1, 1]
    (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290, appendix C).
    """

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Log N(u; μ, σ) - Σ log(1 - tanh² u), [B]."""
        return super().log_prob(logits, actions) - _log_slope(actions).sum(-1)

    def entropy(self, logits: Tensor) -> Tensor:
        """S[N] + Σ E[log(1 - tanh² u)] = S[N] + Σ 2 log 2 - 2 E|u + Λ| with logistic Λ, [B].

        The logistic is a mixture of normals (`_LOGISTIC`), and with a normal for Λ the expectation has a
        closed form: what the mixture leaves is 2e-8 a component, at any mean and deviation.
        """
        mean, log_std = logits.chunk(2, dim=-1)
        weights, variances = (
            torch.tensor(each, dtype=logits.dtype, device=logits.device) for each in _LOGISTIC
        )
        deviations = ((2 * log_std).exp().unsqueeze(-1) + variances).sqrt()  # [B, n] -> [B, n, K]
        distance = (_mean_magnitude(mean.unsqueeze(-1), deviations) * weights).sum((-2, -1))
        return super().entropy(logits) + 2 * (mean.shape[-1] * math.log(2) - distance)


def _log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh² u) = 2 (log 2 - u - softplus(-2u)), without overflow."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def _mean_magnitude(mean: Tensor, deviation: Tensor) -> Tensor:
    """E|x| under N(mean, deviation)."""
    z = mean / deviation
    peak = math.sqrt(2 / math.pi) * torch.exp(-0.5 * z * z)
    return deviation * peak + mean * torch.erf(z * math.sqrt(0.5))


# Weights and variances of the normals whose mixture is the logistic distribution of scale 1/2, to 2e-9 in its
# distribution function; -log(1 - tanh² u) / 2 = log cosh u = E|u + Λ| - log 2 under it. Monahan and Stefanski
# 1992, "Normal scale mixture approximations to F*(z) and computation of the logistic-normal integral", k = 8,
# where a component is Φ(s z) for the standard logistic: of variance 1 / (2s)² here.
_LOGISTIC = (
    (
        0.003246343272134,
        0.051517477033972,
        0.195077912673858,
        0.315569823632818,
        0.274149576158423,
        0.131076880695470,
        0.027912418727972,
        0.001449567805354,
    ),
    tuple(
        1 / (2 * s) ** 2
        for s in (
            1.365340806296348,
            1.059523971016916,
            0.830791313765644,
            0.650732166639391,
            0.508135425366489,
            0.396313345166341,
            0.308904252267995,
            0.238212616409306,
        )
    ),
)


@dataclass(frozen=True)
class Product:
    """Dict and Tuple: independent parts, their stored actions side by side as numbers, [B, Σd]."""

    parts: tuple[Distribution, ...]
    action_dtype: torch.dtype = torch.float32

    @property
    def action_shape(self) -> tuple[int, ...]:
        """The numbers of all parts."""
        return (sum(self.action_sizes),)

    @property
    def action_sizes(self) -> list[int]:
        """How many numbers each part has."""
        return [math.prod(part.action_shape) for part in self.parts]

    @property
    def logits_size(self) -> int:
        """The logits of all parts, one after the other."""
        return sum(part.logits_size for part in self.parts)

    @property
    def noise_size(self) -> int:
        """The noise of all parts."""
        return sum(part.noise_size for part in self.parts)

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """The parts' noise side by side, [B, noise_size]."""
        return torch.cat([part.noise(batch_shape, generator) for part in self.parts], dim=-1)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """The parts' actions side by side, [B, Σd]."""
        noises = noise.split([part.noise_size for part in self.parts], dim=-1)
        drawn = zip(self.parts, self._logits(logits), noises, strict=True)
        return self._join([part.sample(own, noise) for part, own, noise in drawn])

    def mode(self, logits: Tensor) -> Tensor:
        """The parts' most probable actions side by side, [B, Σd]."""
        pairs = zip(self.parts, self._logits(logits), strict=True)
        return self._join([part.mode(own) for part, own in pairs])

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Sum of the parts' log-probabilities, [B]."""
        columns = zip(self.parts, self._logits(logits), actions.split(self.action_sizes, -1), strict=True)
        return torch.stack(
            [
                part.log_prob(
                    own, taken.to(part.action_dtype).reshape((*taken.shape[:-1], *part.action_shape))
                )
                for part, own, taken in columns
            ]
        ).sum(0)

    def entropy(self, logits: Tensor) -> Tensor:
        """Sum of the parts' entropies, [B]."""
        pairs = zip(self.parts, self._logits(logits), strict=True)
        return torch.stack([part.entropy(own) for part, own in pairs]).sum(0)

    def _logits(self, logits: Tensor) -> tuple[Tensor, ...]:
        split: tuple[Tensor, ...] = logits.split([part.logits_size for part in self.parts], dim=-1)
        return split

    def _join(self, actions: list[Tensor]) -> Tensor:
        columns = zip(self.parts, actions, strict=True)
        flat = [taken if part.action_shape else taken.unsqueeze(-1) for part, taken in columns]
        return torch.cat([taken.to(self.action_dtype) for taken in flat], dim=-1)


def make_distribution(space: spaces.Space[Any], squash: bool = False) -> Distribution:
    """The distribution over a single environment's action space, a packed one included.

    Args:
        space: of the actions.
        squash: whether Box actions go through a tanh.

    Raises:
        ValueError: the space is unsupported or empty, or has no finite bounds to squash into.
    """
    if math.prod(space.shape or ()) == 0:
        raise ValueError(f"the action space {getattr(space, 'original', space)} holds no values")
    if isinstance(space, PackedActions):
        return Product(tuple(make_distribution(part, squash) for part in space.parts))
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical(tuple(int(n) for n in space.nvec.flatten()))
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(math.prod(space.shape))
    if isinstance(space, spaces.Box):
        if squash and not _has_a_span(space):
            raise ValueError(f"squash_actions=true needs finite bounds, given {space}; set it to false")
        return (SquashedGaussian if squash else DiagonalGaussian)(math.prod(space.shape))
    raise unsupported(space, "action", ["Discrete", "MultiDiscrete", "MultiBinary", "Box", "Dict", "Tuple"])


def _has_a_span(space: spaces.Box) -> bool:
    """Whether bounds are finite, and no further apart than the space's numbers reach."""
    with np.errstate(over="ignore", invalid="ignore"):
        return space.is_bounded() and bool(np.isfinite(space.high - space.low).all())


def is_squashed(distribution: Distribution) -> bool:
    """Whether its Box actions go through a tanh."""
    parts = distribution.parts if isinstance(distribution, Product) else (distribution,)
    return any(isinstance(part, SquashedGaussian) for part in parts)
