"""Boxes with finite bounds: Beta distributions stretched to them."""

import math

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor
from torch.nn.functional import softplus

from ppo_cli.distributions.base import Array, ties
from ppo_cli.distributions.box import BoxDistribution, check_span

# Proposals of a gamma draw. Each is taken with a probability of 0.951 or more, so that no more than 1 in 7e7
# draws is left without: what that changes of the distribution, float32 does not tell apart.
PROPOSALS = 6
LEAST_ROOT = 1e-9  # of a proposal whose logarithm is taken before it is looked at


class Beta(BoxDistribution):
    """Box with finite bounds: independent Beta(α, β) components stretched to them, α and β 1 + softplus(.).

    Chou et al. 2017 (https://proceedings.mlr.press/v70/chou17a.html): nothing lies outside the bounds, so
    that no clipping biases the policy's gradient; α, β > 1 give one mode, between them. The logits are what
    the α come from, then what the β do, [B, 2n]. As a `SquashedGaussian` it stores u, of which tanh(u) is
    stretched to the bounds (near them u has the digits that x = (tanh(u) + 1) / 2 has not), and has
    the probabilities and entropies of tanh(u) in [-1, 1].

    A sharp policy's α and β are in the thousands, where log Γ(α) and its like cancel: they are computed with
    double precision.
    """

    is_squashed = True
    zero_noise = "an action near the median"  # x = (α - 1/3) / (α + β - 2/3)

    def __init__(self, space: spaces.Box) -> None:
        """Takes the space.

        Raises:
            ValueError: it has no finite bounds.
        """
        check_span(space, "box_policy=beta", "gaussian")
        super().__init__(space)
        self.noise_size = 2 * PROPOSALS * self.logits_size  # two numbers a proposal of a gamma draw

    @property
    def noise_kinds(self) -> tuple[tuple[str, int], ...]:
        """As many normal as exponential numbers."""
        return ("normal", self.noise_size // 2), ("exponential", self.noise_size // 2)

    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Normal, then exponential noise, [B, noise_size]."""
        shape = (*batch_shape, self.noise_size // 2)
        exponential = torch.empty(shape).exponential_(generator=generator)
        return torch.cat([torch.randn(shape, generator=generator), exponential], dim=-1)

    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """With x = g / (g + h), g ~ Gamma(α) and h ~ Gamma(β), u = log(x / (1 - x)) / 2, [B, n]."""
        concentrations = 1 + softplus(logits.double())
        log_cubes, _ = self._proposals(concentrations, noise)
        log_gammas = torch.log(concentrations - 1 / 3) + log_cubes
        return self._stored(log_gammas)

    def mode(self, logits: Tensor) -> Tensor:
        """The u of x = (α - 1) / (α + β - 2), [B, n]."""
        above_one = softplus(logits.double()).clamp(min=torch.finfo(torch.float64).tiny)
        return self._stored(torch.log(above_one))

    def _stored(self, logs: Tensor) -> Tensor:
        """atanh(2 g / (g + h) - 1) of log g and log h, [B, 2n] -> [B, n]."""
        log_g, log_h = logs.chunk(2, dim=-1)
        return ((log_g - log_h) / 2).to(self.action_dtype)

    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Σ (α - 1) log x + (β - 1) log(1 - x) - log B(α, β) - log 2, [B], with x = (tanh(u) + 1) / 2."""
        p, q = softplus(logits.double()).chunk(2, dim=-1)  # α - 1 and β - 1
        u = 2 * actions.double()
        density = -p * softplus(-u) - q * softplus(u) - _log_beta(1 + p, 1 + q) - math.log(2)
        return density.sum(-1).to(logits.dtype)

    def entropy(self, logits: Tensor) -> Tensor:
        """Σ log B(α, β) - (α - 1) ψ(α) - (β - 1) ψ(β) + (α + β - 2) ψ(α + β) + log 2, [B]."""
        p, q = softplus(logits.double()).chunk(2, dim=-1)
        own = p * torch.digamma(1 + p) + q * torch.digamma(1 + q) - (p + q) * torch.digamma(2 + p + q)
        return (_log_beta(1 + p, 1 + q) - own + math.log(2)).sum(-1).to(logits.dtype)

    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """That of any Box, and any value where a proposal was taken or rejected by a margin of about 0."""
        (allowed,) = super().tolerance(logits, noise, stored, relative)
        if noise is None:
            return [allowed]
        _, margins = self._proposals(1 + softplus(logits.double()), noise)
        narrow = margins.abs().amin(-2).view(len(logits), 2, self.n).amin(1).numpy()
        return [np.maximum(allowed, ties(narrow, np.ones_like(narrow), relative).reshape(allowed.shape))]

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy."""
        d = np.logaddexp(0, logits.astype(np.float64)) + 2 / 3  # α - 1/3
        shape = (-1, 2, PROPOSALS, self.logits_size)
        z, exponential = noise.astype(np.float64).reshape(shape).swapaxes(0, 1)
        root = 1 + z / np.sqrt(9 * d)[:, None]
        log_v = 3 * np.log(np.maximum(root, LEAST_ROOT))
        margins = exponential + z * z / 2 + d[:, None] * (1 - root**3 + log_v)
        is_taken = (margins >= 0) & (root > 0)
        first = is_taken.argmax(1)[:, None]
        chosen = np.where(np.take_along_axis(is_taken, first, 1), np.take_along_axis(log_v, first, 1), 0)
        log_g, log_h = np.split(np.log(d) + chosen[:, 0], 2, axis=-1)
        drawn: Array = ((log_g - log_h) / 2).astype(np.float32)
        return drawn

    def _proposals(self, concentrations: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma draws by Marsaglia and Tsang 2000 (https://doi.org/10.1145/358407.358414).

        With d = α - 1/3, c = 1 / √(9 d) and a normal z the proposal is d v, v = (1 + c z)³. It is taken where
        v > 0 and, for a uniform U, log U < z² / 2 + d - d v + d log v. The first one that is taken counts.

        Args:
            concentrations: The α, above 1, then the β, double [B, 2n].
            noise: The z, then the -log U of `PROPOSALS` proposals each, [B, noise_size].

        Returns:
            log v, [B, 2n]; and the margins by which proposals are taken, [B, PROPOSALS, 2n].
        """
        z, exponential = noise.double().unflatten(-1, (2, PROPOSALS, self.logits_size)).unbind(-3)
        d = (concentrations - 1 / 3).unsqueeze(-2)
        root = 1 + z / (9 * d).sqrt()
        log_v = 3 * torch.log(root.clamp(min=LEAST_ROOT))
        margins = exponential + z * z / 2 + d * (1 - root**3 + log_v)
        is_taken = (margins >= 0) & (root > 0)
        first = is_taken.to(torch.int32).argmax(-2, keepdim=True)
        none = torch.zeros_like(log_v[..., :1, :])
        chosen = torch.where(is_taken.gather(-2, first), log_v.gather(-2, first), none)
        return chosen.squeeze(-2), margins


def _log_beta(alpha: Tensor, beta: Tensor) -> Tensor:
    """The logarithm of the beta function, log B(α, β) = log Γ(α) + log Γ(β) - log Γ(α + β)."""
    return torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
