"""ActorCritic: encoder, trunk, policy head and value head."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.distributions import DiagonalGaussian, make_distribution

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


class FlattenEncoder(nn.Module):
    """Box and MultiBinary observations as float vectors; full-range bytes are scaled to [0, 1]."""

    def __init__(self, space: spaces.Box | spaces.MultiBinary) -> None:
        super().__init__()
        self.size = math.prod(space.shape)
        self.is_vector = len(space.shape) == 1
        self.full_bytes = isinstance(space, spaces.Box) and bool((space.high == 255).all())

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] -> [B, size]."""
        if self.is_vector and obs.dtype == torch.float32:
            return obs
        flat = obs.reshape(len(obs), self.size).to(torch.float32)
        return flat / 255 if self.full_bytes and obs.dtype == torch.uint8 else flat


class OneHotEncoder(nn.Module):
    """Discrete and MultiDiscrete observations as one-hot vectors, side by side."""

    starts: Tensor

    def __init__(self, space: spaces.Discrete[Any] | spaces.MultiDiscrete[Any]) -> None:
        super().__init__()
        if isinstance(space, spaces.Discrete):
            self.nvec, starts = [int(space.n)], [int(space.start)]
        else:
            self.nvec, starts = space.nvec.flatten().tolist(), space.start.flatten().tolist()
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.size = sum(self.nvec)

    def forward(self, obs: Tensor) -> Tensor:
        """[B, *shape] integers -> [B, size]."""
        indices = obs.reshape(len(obs), len(self.nvec)).to(torch.int64) - self.starts
        columns = zip(indices.unbind(1), self.nvec, strict=True)
        return torch.cat([functional.one_hot(index, n) for index, n in columns], dim=1).to(torch.float32)


def make_encoder(space: spaces.Space[Any]) -> FlattenEncoder | OneHotEncoder:
    """The encoder of a single environment's observation space.

    Raises:
        ValueError: the space is not Box, Discrete, MultiDiscrete or MultiBinary.
    """
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return FlattenEncoder(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return OneHotEncoder(space)
    shown = " ".join(str(space).split())
    raise ValueError(
        f"unsupported observation space {shown}: expected Box, Discrete, MultiDiscrete or MultiBinary"
    )


class GaussianHead(nn.Module):
    """Policy head of Box: a mean from the features, a log-deviation that is free of the state."""

    def __init__(self, features: int, actions: int, log_std_init: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, actions)
        self.log_std = nn.Parameter(torch.full((actions,), log_std_init))

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        mean = self.linear(features)
        return torch.cat([mean, self.log_std.expand_as(mean)], dim=-1)


class StateDependentHead(nn.Module):
    """Policy head of Box with gSDE (Raffin et al. 2021, https://arxiv.org/abs/2005.05719).

    The exploration noise is a linear function of the features, θ_ε f(s) with θ_ε ~ N(0, σ²), and θ_ε is kept
    over several steps. Seen from one state that is a Gaussian with variance Σ_f f(s)² σ_f² (eq. 8); gradients
    of the deviation do not reach the features.
    """

    def __init__(self, features: int, actions: int, log_std_init: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, actions)
        self.log_std = nn.Parameter(torch.full((features, actions), log_std_init))

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        variance = (features.detach() ** 2) @ (2 * self.log_std).exp()
        return torch.cat([self.linear(features), 0.5 * torch.log(variance + 1e-6)], dim=-1)

    def exploration(self, features: Tensor, epsilon: Tensor) -> Tensor:
        """Standardised action noise of the exploration matrices σ ε.

        Args:
            features: f(s), [B, F].
            epsilon: standard normal, one matrix a row, [B, F, A].

        Returns:
            Noise for `DiagonalGaussian.sample`, [B, A].
        """
        perturbation = torch.einsum("bf,bfa->ba", features, self.log_std.exp() * epsilon)
        log_std = self.forward(features).chunk(2, dim=-1)[1]
        return perturbation * (-log_std).exp()


PolicyHead = nn.Linear | GaussianHead | StateDependentHead


class MLP(nn.Module):
    """Linear layers with an activation behind each.

    `nn.Sequential` without a module's call for each layer, which acting for a few environments would feel.
    """

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, typed as what they are."""
        return cast("list[nn.Linear]", list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, sizes[0]] -> [B, sizes[-1]]."""
        for layer in cast("list[nn.Linear]", self.layers):
            x = self.activation(functional.linear(x, layer.weight, layer.bias))
        return x


class ActorCritic(nn.Module):
    """Policy and value networks over one encoder.

    With ``shared`` one trunk extracts the features of both heads (the document this project is built
    from); without it the value head has a trunk of its own (the published settings).
    """

    def __init__(
        self,
        encoder: FlattenEncoder | OneHotEncoder,
        make_head: Callable[[int], PolicyHead],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        shared: bool = True,
        ortho_init: bool = True,
    ) -> None:
        """Builds and initialises the network with torch's global generator.

        Args:
            encoder: turns observations into vectors.
            make_head: builds the policy head for a number of features.
            hidden_sizes: widths of the hidden layers; may be empty.
            activation: a key of `ACTIVATIONS`.
            shared: whether the two heads share the hidden layers.
            ortho_init: orthogonal weights with gain sqrt(2) in the trunk, 0.01 in the policy head and 1 in
                the value head, and zero biases (37 details, no. 2); else PyTorch's own initialisation.
        """
        super().__init__()
        sizes = [encoder.size, *hidden_sizes]
        self.encoder = encoder
        self.trunk = MLP(sizes, activation)
        self.value_trunk = None if shared else MLP(sizes, activation)
        self.policy_head = make_head(sizes[-1])
        self.value_head = nn.Linear(sizes[-1], 1)
        if ortho_init:
            gains = {self.trunk: math.sqrt(2), self.policy_head: 0.01, self.value_head: 1.0}
            if self.value_trunk is not None:
                gains[self.value_trunk] = math.sqrt(2)
            for module, gain in gains.items():
                _orthogonal_init(module, gain)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Observations [B, *shape] -> logits [B, P] and values [B]."""
        encoded = self.encoder(obs)
        features = self.trunk(encoded)
        value_features = features if self.value_trunk is None else self.value_trunk(encoded)
        return self.policy_head(features), self.value_head(value_features).squeeze(-1)

    def policy(self, obs: Tensor) -> Tensor:
        """Logits [B, P] alone."""
        logits: Tensor = self.policy_head(self.trunk(self.encoder(obs)))
        return logits

    def explore(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, P], and the noise for the distribution's `sample` (gSDE's depends on the state)."""
        features = self.trunk(self.encoder(obs))
        if isinstance(self.policy_head, StateDependentHead):
            noise = self.policy_head.exploration(features, noise)
        return self.policy_head(features), noise

    def value(self, obs: Tensor) -> Tensor:
        """Values [B] alone."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        values: Tensor = self.value_head(trunk(self.encoder(obs)))
        return values.squeeze(-1)  # [B, 1] -> [B]


def _orthogonal_init(module: nn.Module, gain: float) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)


def make_actor_critic(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    use_sde: bool = False,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    shared: bool = True,
    ortho_init: bool = True,
    log_std_init: float = 0.0,
) -> ActorCritic:
    """The network for a single environment's spaces.

    Raises:
        ValueError: an unsupported space, or gSDE without a Box action space.
    """
    distribution = make_distribution(action_space)

    def make_head(features: int) -> PolicyHead:
        if not isinstance(distribution, DiagonalGaussian):
            return nn.Linear(features, distribution.logits_size)
        head = StateDependentHead if use_sde else GaussianHead
        return head(features, distribution.n, log_std_init)

    if use_sde and not isinstance(distribution, DiagonalGaussian):
        raise ValueError(f"use_sde=true needs a Box action space, given {action_space}; set use_sde=false")
    encoder = make_encoder(observation_space)
    return ActorCritic(encoder, make_head, hidden_sizes, activation, shared, ortho_init)
