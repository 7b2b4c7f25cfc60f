"""Policy heads: from features to the logits of a distribution, and the noise that explores."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn

from ppo_cli.distributions.deviations import Bounds, bounded, softplus_log_std

if TYPE_CHECKING:
    from ppo_cli.distributions.base import Distribution

FloatArray = npt.NDArray[Any]
Sampler = Callable[[FloatArray, FloatArray, FloatArray], npt.NDArray[Any]]


class InNumPy(NamedTuple):
    """A head that acts in NumPy: a linear layer, and what becomes of its outputs.

    Attributes:
        linear: The linear layer.
        sample: The way from features [N, F], the layer's outputs and noise to stored actions; it reads the
            live weights.
    """

    linear: nn.Linear
    sample: Sampler


class PolicyHead(nn.Module):
    """A head of the policy: `forward` gives the logits [B, P] of features [B, F].

    Attributes:
        distribution: The distribution that the logits describe.
    """

    distribution: "Distribution"

    def noise(
        self,
        n_steps: int,
        n_envs: int,
        generator: Generator,
        period: int,
        place: Callable[[Tensor], Any],
    ) -> Iterator[Any]:
        """The exploration noise of a rollout's T steps, one after the other.

        Args:
            n_steps: The number of steps T.
            n_envs: The number of environments N.
            generator: Draws it, on the CPU.
            period: The steps for which gSDE's noise is kept; -1 for a whole rollout.
            place: Brings noise to where it is used, called with as much at a time as there is.

        Yields:
            T times what `action_noise` takes, [N, ...].
        """
        yield from place(self.distribution.noise((n_steps, n_envs), generator))

    def action_noise(self, features: Tensor, noise: Tensor) -> Tensor:
        """The noise for `Distribution.sample`, of a step's item of `noise`."""
        return noise

    def in_numpy(self) -> InNumPy | None:
        """How it acts in NumPy; None where it doesn't."""
        return None


class LinearHead(PolicyHead, nn.Linear):
    """Logits that are linear in the features."""

    def __init__(self, features: int, distribution: "Distribution") -> None:
        super().__init__(features, distribution.logits_size)
        self.distribution = distribution

    def in_numpy(self) -> InNumPy:
        """The distribution's own sample of the outputs."""
        return InNumPy(self, lambda _, logits, noise: self.distribution.numpy_sample(logits, noise))


class ProductHead(PolicyHead):
    """Policy heads of a Dict or Tuple action space, side by side."""

    def __init__(self, heads: Sequence[PolicyHead], distribution: "Distribution") -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.distribution = distribution

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, P]."""
        return torch.cat([head(features) for head in self.heads], dim=-1)


class GaussianHead(PolicyHead):
    """Policy head of Box: a mean from the features, a log-deviation that is free of the state."""

    def __init__(
        self, features: int, distribution: "Distribution", log_std_init: float, bounds: Bounds
    ) -> None:
        super().__init__()
        self.distribution = distribution
        (actions,) = distribution.action_shape
        self.linear = nn.Linear(features, actions)
        self.log_std = nn.Parameter(torch.full((actions,), log_std_init))
        self.bounds = bounds

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        mean = self.linear(features)
        return torch.cat([mean, bounded(self.log_std, self.bounds).expand_as(mean)], dim=-1)

    def in_numpy(self) -> InNumPy:
        """The means, and the noise scaled by the deviations."""
        log_std, bounds = view(self.log_std), self.bounds
        if bounds == Bounds():  # not looked at in each step
            return InNumPy(self.linear, lambda _, means, noise: means + np.exp(log_std) * noise)
        return InNumPy(self.linear, lambda _, means, noise: means + np.exp(np.clip(log_std, *bounds)) * noise)


class StateStdHead(PolicyHead):
    """Policy head of Box: mean and deviation both from the features, σ being e^x of a linear layer's x.

    With ``softplus`` it is the softplus of x above a floor instead (`softplus_log_std`).
    """

    def __init__(
        self,
        features: int,
        distribution: "Distribution",
        log_std_init: float,
        bounds: Bounds,
        softplus: bool = False,
    ) -> None:
        super().__init__()
        self.distribution = distribution
        self.linear = nn.Linear(features, distribution.logits_size)
        self.log_std_init, self.bounds, self.softplus = log_std_init, bounds, softplus

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        mean, x = self.linear(features).chunk(2, dim=-1)
        if self.softplus:
            log_std = softplus_log_std(x, self.log_std_init, self.bounds)
        else:
            log_std = bounded(x + self.log_std_init, self.bounds)
        return torch.cat([mean, log_std], dim=-1)


class StateDependentHead(PolicyHead):
    """Policy head of Box with gSDE (Raffin et al. 2021, https://arxiv.org/abs/2005.05719).

    The exploration noise is a linear function of the features, θ_ε f(s) with θ_ε ~ N(0, σ²), and θ_ε is kept
    over several steps. Seen from one state that is a Gaussian with variance Σ_f f(s)² σ_f² (eq. 8); gradients
    of the deviation do not reach the features.
    """

    def __init__(self, features: int, distribution: "Distribution", log_std_init: float) -> None:
        super().__init__()
        self.distribution = distribution
        (actions,) = distribution.action_shape
        self.linear = nn.Linear(features, actions)
        self.log_std = nn.Parameter(torch.full((features, actions), log_std_init))

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        variance = (features.detach() ** 2) @ (2 * self.log_std).exp()
        return torch.cat([self.linear(features), 0.5 * torch.log(variance + 1e-6)], dim=-1)

    def noise(
        self,
        n_steps: int,
        n_envs: int,
        generator: Generator,
        period: int,
        place: Callable[[Tensor], Any],
    ) -> Iterator[Any]:
        """Exploration matrices ε, standard normal [N, F, A], each kept for ``period`` steps."""
        for t in range(n_steps):
            if t % (period if period > 0 else n_steps) == 0:
                epsilon = place(torch.randn((n_envs, *self.log_std.shape), generator=generator))
            yield epsilon

    def action_noise(self, features: Tensor, noise: Tensor) -> Tensor:
        """Standardised action noise [B, A] of the exploration matrices σ ε, one a row.

        Args:
            features: The features f(s), [B, F].
            noise: The noise ε, [B, F, A].
        """
        perturbation = torch.einsum("bf,bfa->ba", features, self.log_std.exp() * noise)
        log_std = self.forward(features).chunk(2, dim=-1)[1]
        return perturbation * (-log_std).exp()

    def in_numpy(self) -> InNumPy:
        """The means, and what the exploration matrices make of the features."""
        log_std = view(self.log_std)  # [F, A]
        return InNumPy(
            self.linear,
            lambda features, means, noise: means + np.einsum("nf,nfa->na", features, np.exp(log_std) * noise),
        )


def view(parameter: Tensor) -> FloatArray:
    """The parameter's own memory as an array."""
    array: FloatArray = parameter.detach().numpy()
    return array
