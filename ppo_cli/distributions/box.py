"""Box actions: what all their distributions share, and Gaussians, squashed or not."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import softplus

from ppo_cli.distributions.base import Array, Distribution, HeadChoice, ToEnv
from ppo_cli.distributions.deviations import log_std_bounds
from ppo_cli.distributions.heads import GaussianHead, PolicyHead, StateDependentHead, StateStdHead


class BoxDistribution(Distribution):
    """Box: real components, stored flat, [B, n], clipped or squashed on the way to the environment."""

    space: spaces.Box
    action_dtype = torch.float32

    def __init__(self, space: spaces.Box) -> None:
        self.space = space
        self.n = math.prod(space.shape)
        self.action_shape = (self.n,)
        self.logits_size = 2 * self.n  # where a component lies, and how widely it varies
        self._is_integral = np.issubdtype(space.dtype, np.integer)

    def to_env(self, actions: Array) -> Array:
        """Values clipped to the bounds, and rounded where the space holds integers, [N, *shape]."""
        space = self.space
        values = actions.reshape(-1, *space.shape)
        values = self._stretched(values) if self.is_squashed else values
        values = np.rint(values) if self._is_integral else values
        return np.clip(values, space.low, space.high).astype(space.dtype)

    def _stretched(self, values: Array) -> Array:
        """The tanh of values, stretched to the bounds."""
        # the bounds of small integers may lie further apart than they count
        wide = np.float64 if self._is_integral else self.space.dtype
        low, high = self.space.low, self.space.high
        stretched: Array = low + (np.tanh(values) + 1) / 2 * np.subtract(high, low, dtype=wide)
        return stretched

    def to_env_module(self) -> ToEnv:
        """`to_env` as a module."""
        return _ToBounds(self.space, self.is_squashed)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """``relative`` of the values' size, and 1 where an integer was rounded from close to a half."""
        low, high = self.space.low.astype(np.float64), self.space.high.astype(np.float64)
        exact = type(self)(spaces.Box(low, high, dtype=np.float64)).to_env(stored.reshape(len(stored), -1))
        scale = np.maximum(1, np.maximum(np.abs(exact), high - low if self.is_squashed else 0))
        if not self._is_integral:
            return [relative * scale]
        return [np.where(np.abs(exact - np.floor(exact) - 0.5) <= relative * scale, 1.0, 0.0)]


class DiagonalGaussian(BoxDistribution):
    """Box: independent normal components, stored unclipped, [B, n].

    The logits are the means followed by the logarithms of the standard deviations, [B, 2n]. gSDE is this
    distribution too: its deviations depend on the state and its noise is correlated in time, both of
    which are the policy head's business.
    """

    noise_kind = "normal"

    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.noise_size = self.n

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

    def make_head(self, features: int, choice: HeadChoice) -> PolicyHead:
        """The head that the config asks for."""
        init = choice.log_std_init
        if choice.use_sde:
            return StateDependentHead(features, self, init)
        bounds = log_std_bounds(choice.log_std, init, choice.log_std_min, choice.log_std_max)
        if choice.log_std == "free":
            return GaussianHead(features, self, init, bounds)
        return StateStdHead(features, self, init, bounds, softplus=choice.log_std == "softplus")


class SquashedGaussian(DiagonalGaussian):
    """Box with finite bounds: tanh of a Gaussian, stretched to the bounds on the way to the environment.

    What is stored is u, before the tanh. Probabilities and entropies are those of tanh(u) in [-1, 1]
    (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290, appendix C).
    """

    is_squashed = True

    def __init__(self, space: spaces.Box) -> None:
        """Takes the space.

        Raises:
            ValueError: it has no finite bounds to squash into.
        """
        check_span(space, "squash_actions=true", "false")
        super().__init__(space)

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


def check_span(space: spaces.Box, knob: str, instead: str) -> None:
    """Raises ValueError where bounds are infinite, or further apart than the space's numbers reach.

    Args:
        space: The space.
        knob: What needs the bounds, with its value.
        instead: The value with which none are needed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if space.is_bounded() and np.isfinite(space.high - space.low).all():
            return
    raise ValueError(f"{knob} needs finite bounds, given {space}; set it to {instead}")


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


class _ToBounds(ToEnv):
    low: Tensor
    high: Tensor

    def __init__(self, space: spaces.Box, squash: bool) -> None:
        super().__init__(space)
        self.squash = squash
        self.is_integral = np.issubdtype(space.dtype, np.integer)
        wide = np.result_type(np.float32, space.dtype)  # what NumPy computes in
        self.register_buffer("low", torch.from_numpy(space.low.astype(wide)))
        self.register_buffer("high", torch.from_numpy(space.high.astype(wide)))

    def convert(self, values: Tensor) -> Tensor:
        """Values within the bounds."""
        if self.squash:
            share = ((torch.tanh(values) + 1) / 2).to(self.low.dtype)
            values = self.low + share * (self.high - self.low)
        values = torch.round(values) if self.is_integral else values
        return torch.minimum(torch.maximum(values.to(self.low.dtype), self.low), self.high)
