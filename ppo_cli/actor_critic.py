"""ActorCritic: encoder, memory, trunk, policy head and value head."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from ppo_cli.distributions import (
    Categorical,
    DiagonalGaussian,
    Distribution,
    MultiCategorical,
    Product,
    is_squashed,
    make_distribution,
)
from ppo_cli.encoders import Encoder, EncoderChoice, PackedEncoder, UserEncoder, make_encoder
from ppo_cli.memory import Memory

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}
ILLEGAL = -1e8  # logit of an action that the mask forbids: probability 0 without an infinity
LOG_STD_RANGE = (-20.0, 2.0)  # of deviations that depend on the state, which nothing else bounds


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


class StateStdHead(nn.Module):
    """Policy head of Box: mean and log-deviation both linear in the features (``network.log_std=state``)."""

    def __init__(self, features: int, actions: int, log_std_init: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * actions)
        self.log_std_init = log_std_init

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, 2A]: means, then log-deviations."""
        mean, log_std = self.linear(features).chunk(2, dim=-1)
        return torch.cat([mean, torch.clamp(log_std + self.log_std_init, *LOG_STD_RANGE)], dim=-1)


class ProductHead(nn.Module):
    """Policy heads of a Dict or Tuple action space, side by side."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] -> [B, P]."""
        return torch.cat([head(features) for head in self.heads], dim=-1)


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


PolicyHead = nn.Linear | GaussianHead | StateStdHead | StateDependentHead | ProductHead


class MLP(nn.Module):
    """Linear layers, with layer norm if that is asked for and an activation behind each.

    `nn.Sequential` without a module's call for each layer, which acting for a few environments would feel.
    """

    def __init__(self, sizes: Sequence[int], activation: str, layer_norm: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[1:]) if layer_norm else None
        self.activation_name = activation
        self.activation = ACTIVATIONS[activation]

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, typed as what they are."""
        return cast("list[nn.Linear]", list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, sizes[0]] -> [B, sizes[-1]]."""
        for i, layer in enumerate(cast("list[nn.Linear]", self.layers)):
            x = functional.linear(x, layer.weight, layer.bias)
            x = self.activation(x if self.norms is None else self.norms[i](x))
        return x


class ActorCritic(nn.Module):
    """Policy and value networks over one encoder and, where there is one, one memory.

    With ``shared`` one trunk extracts the features of both heads; without it the value head has a trunk of
    its own (the published settings).

    Methods take the memory's states as ``state``, [B, S]; without a memory it is None.
    """

    def __init__(
        self,
        encoder: Encoder,
        make_head: Callable[[int], PolicyHead],
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        shared: bool = True,
        ortho_init: bool = True,
        layer_norm: bool = False,
        make_memory: Callable[[int], Memory] | None = None,
    ) -> None:
        """Builds and initialises the network with torch's global generator.

        Args:
            encoder: turns observations into vectors.
            make_head: builds the policy head for a number of features.
            hidden_sizes: widths of the hidden layers; may be empty.
            activation: a key of `ACTIVATIONS`.
            shared: whether the two heads share the hidden layers.
            ortho_init: orthogonal weights with gain sqrt(2) in encoder and trunk, 1 in the memory, 0.01 in
                the policy head and 1 in the value head, and zero biases (37 details, no. 2); else PyTorch's
                own initialisation.
            layer_norm: normalise each hidden layer before its activation.
            make_memory: builds the recurrent cell for a number of inputs.
        """
        super().__init__()
        self.encoder = encoder
        self.memory = None if make_memory is None else make_memory(encoder.size)
        sizes = [encoder.size if self.memory is None else self.memory.size, *hidden_sizes]
        self.trunk = MLP(sizes, activation, layer_norm)
        self.value_trunk = None if shared else MLP(sizes, activation, layer_norm)
        self.policy_head = make_head(sizes[-1])
        self.value_head = nn.Linear(sizes[-1], 1)
        if ortho_init:
            gains: dict[nn.Module | None, float] = {
                self.trunk: math.sqrt(2),
                self.policy_head: 0.01,
                self.value_head: 1.0,
                self.value_trunk: math.sqrt(2),
                self.encoder: math.sqrt(2),
                self.memory: 1.0,
            }
            for module, gain in gains.items():
                if module is not None:
                    _orthogonal_init(module, gain)

    @property
    def state_size(self) -> int:
        """Length S of a memory's state; 0 without one."""
        return 0 if self.memory is None else self.memory.state_size

    @property
    def is_heavy(self) -> bool:
        """Whether encoding costs so much that what acting computes is worth keeping."""
        heavy = (nn.Conv2d, UserEncoder)
        return self.memory is not None or any(isinstance(module, heavy) for module in self.modules())

    def forward(
        self, obs: Tensor, state: Tensor | None = None, starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, P] and values [B] of observations [B, *shape].

        Args:
            obs: with a memory, K sequences of length L one after the other, B = K*L.
            state: of each sequence before its first step, [K, S].
            starts: whether a row is an episode's first, float [B].
        """
        encoded = self.encoder(obs)
        if self.memory is not None:
            encoded = self.memory.sequence(encoded, cast("Tensor", state), cast("Tensor", starts))
        return self.heads(encoded, obs)

    def encode(self, obs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What trunk and heads work on, [B, E], and the memory's next state."""
        encoded = self.encoder(obs)
        return (encoded, None) if self.memory is None else self.memory(encoded, state)

    def heads(self, encoded: Tensor, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, P] and values [B] from what `encode` gave; a shared trunk runs once."""
        features = self.trunk(encoded)
        value_features = features if self.value_trunk is None else self.value_trunk(encoded)
        return self._masked(self.policy_head(features), obs), self.value_head(value_features).squeeze(-1)

    def logits(self, encoded: Tensor, obs: Tensor) -> Tensor:
        """Logits [B, P] alone, from what `encode` gave."""
        return self._masked(self.policy_head(self.trunk(encoded)), obs)

    def values(self, encoded: Tensor) -> Tensor:
        """Values [B] alone, from what `encode` gave."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        values: Tensor = self.value_head(trunk(encoded))
        return values.squeeze(-1)  # [B, 1] -> [B]

    def explore(self, encoded: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, P], and the noise for the distribution's `sample` (gSDE's depends on the state)."""
        features = self.trunk(encoded)
        if isinstance(self.policy_head, StateDependentHead):
            noise = self.policy_head.exploration(features, noise)
        return self._masked(self.policy_head(features), obs), noise

    def policy(self, obs: Tensor, state: Tensor | None = None) -> Tensor:
        """Logits [B, P] of observations."""
        return self.logits(self.encode(obs, state)[0], obs)

    def value(self, obs: Tensor, state: Tensor | None = None) -> Tensor:
        """Values [B] of observations."""
        return self.values(self.encode(obs, state)[0])

    def _masked(self, logits: Tensor, obs: Tensor) -> Tensor:
        return masked(logits, self.encoder.mask(obs) if isinstance(self.encoder, PackedEncoder) else None)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits [B, P], those outside the mask, bool [B, P], so low that they are never drawn."""
    return logits if mask is None else torch.where(mask, logits, ILLEGAL)


def _orthogonal_init(module: nn.Module, gain: float) -> None:
    if isinstance(module, UserEncoder):  # it may come with weights of its own
        return
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.orthogonal_(module.weight, gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for part in module.children():
        _orthogonal_init(part, gain)


def make_actor_critic(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    use_sde: bool = False,
    squash_actions: bool = False,
    encoders: EncoderChoice | None = None,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    layer_norm: bool = False,
    shared: bool = True,
    ortho_init: bool = True,
    log_std: str = "free",
    log_std_init: float = 0.0,
    memory: str = "none",
    memory_size: int = 128,
) -> ActorCritic:
    """The network for a single environment's spaces.

    Raises:
        ValueError: an unsupported space, an encoder that does not fit, or gSDE without a Box action space.
    """
    distribution = make_distribution(action_space, squash_actions)
    if use_sde and not isinstance(distribution, DiagonalGaussian):
        raise ValueError(f"use_sde=true needs a Box action space, given {action_space}; set use_sde=false")
    if squash_actions and not is_squashed(distribution):
        raise ValueError(f"squash_actions=true needs Box actions, given {action_space}; set it to false")

    def make_head(features: int, part: Distribution = distribution) -> PolicyHead:
        if isinstance(part, Product):
            return ProductHead([make_head(features, inner) for inner in part.parts])
        if not isinstance(part, DiagonalGaussian):
            return nn.Linear(features, part.logits_size)
        if use_sde:
            return StateDependentHead(features, part.n, log_std_init)
        return (StateStdHead if log_std == "state" else GaussianHead)(features, part.n, log_std_init)

    maskable = isinstance(distribution, (Categorical, MultiCategorical))
    mask_size = distribution.logits_size if maskable else None
    model = ActorCritic(
        make_encoder(observation_space, encoders, mask_size),
        make_head,
        hidden_sizes,
        activation,
        shared,
        ortho_init,
        layer_norm,
        None if memory == "none" else lambda inputs: Memory(memory, inputs, memory_size),
    )
    return model.eval()  # dropout in a user's encoder would make two policies of one, and their ratio noise
