"""ActorCritic: encoder, memory, trunk, policy head and value head."""

import math
from collections.abc import Callable
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.distributions import DiagonalGaussian, HeadChoice, make_distribution
from ppo_cli.distributions.heads import PolicyHead
from ppo_cli.encoders import Encoder, EncoderChoice, PackedEncoder, UserEncoder, make_encoder
from ppo_cli.memory import EMPTY, Memory, NoMemory, RecurrentMemory
from ppo_cli.trunks import DEFAULT_TRUNK, MLP, TrunkChoice
from ppo_cli.value_heads import ValueHead

ILLEGAL = -1e8  # logit of an action that the mask forbids: probability 0 without an infinity


class ActorCritic(nn.Module):
    """Policy and value networks over one encoder and one memory.

    With ``shared`` one trunk extracts the features of both heads; without it the value head has a trunk of
    its own (the published settings).

    Methods take the memory's states as ``state``, [B, S]; without a memory S is 0, and they read none.
    """

    def __init__(
        self,
        encoder: Encoder,
        make_head: Callable[[int], PolicyHead],
        trunk: TrunkChoice = DEFAULT_TRUNK,
        shared: bool = True,
        ortho_init: bool = True,
        make_memory: Callable[[int], Memory] = NoMemory,
        make_value_head: Callable[[int], ValueHead] = ValueHead,
    ) -> None:
        """Builds and initialises the network with torch's global generator.

        Args:
            encoder: What turns observations into vectors.
            make_head: A function from a number of features to a policy head.
            trunk: The hidden layers.
            shared: Whether the two heads share the hidden layers.
            ortho_init: Orthogonal weights with gain sqrt(2) in encoder and trunk, 1 in the memory, 0.01 in
                the policy head and 1 in the value head, and zero biases (37 details, no. 2); else PyTorch's
                own initialisation.
            make_memory: A function from a number of inputs to a memory.
            make_value_head: A function from a number of features to a value head.
        """
        super().__init__()
        self.encoder = encoder
        self.memory = make_memory(encoder.size)
        self.trunk = MLP(self.memory.size, trunk)
        self.value_trunk = None if shared else MLP(self.memory.size, trunk)
        self.policy_head = make_head(self.trunk.size)
        self.value_head = make_value_head(self.trunk.size)
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
        """Length S of a memory's state."""
        return self.memory.state_size

    @property
    def is_heavy(self) -> bool:
        """Whether encoding costs so much that what acting computes is worth keeping."""
        heavy = (nn.Conv2d, UserEncoder)
        return self.state_size > 0 or any(isinstance(module, heavy) for module in self.modules())

    def forward(
        self, obs: Tensor, state: Tensor = EMPTY, episode_starts: Tensor = EMPTY
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, P] and outputs of the value head [B, K] for B rows.

        The rows are sequences of length L, one after the other.

        Args:
            obs: The observations, [B, *shape].
            state: The memory's state before the first step of each sequence, [B / L, S].
            episode_starts: Whether a row is an episode's first, float [B, 1]; [B, 0] where S is 0.
        """
        encoded = self.memory.sequence(self.encoder(obs), state, episode_starts)
        features = self.trunk(encoded)
        value_features = features if self.value_trunk is None else self.value_trunk(encoded)
        return self.logits(features, obs), self.value_head(value_features)

    def encode(self, obs: Tensor, state: Tensor = EMPTY) -> tuple[Tensor, Tensor]:
        """What the trunks work on, [B, E], and the memory's next state."""
        encoded: tuple[Tensor, Tensor] = self.memory(self.encoder(obs), state)
        return encoded

    def logits(self, features: Tensor, obs: Tensor) -> Tensor:
        """Logits [B, P] of the trunk's features."""
        return self._masked(self.policy_head(features), obs)

    def values(self, encoded: Tensor) -> Tensor:
        """Values [B] of what `encode` gave."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        return self.value_head.decode(self.value_head(trunk(encoded)))

    def policy(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
        """Logits [B, P] of observations."""
        return self.logits(self.trunk(self.encode(obs, state)[0]), obs)

    def value(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
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
    shared: bool = True,
    ortho_init: bool = True,
    log_std: str = "free",
    log_std_init: float = 0.0,
    memory: str = "none",
    memory_size: int = 128,
    **trunk: Any,  # noqa: ANN401
) -> ActorCritic:
    """The network for a single environment's spaces; names are those of the config.

    Args:
        observation_space: The space of the observations.
        action_space: The space of the actions.
        use_sde: Whether Box actions are explored by gSDE.
        squash_actions: Whether Box actions go through a tanh.
        encoders: The encoders; None for those that fit the observations.
        shared: Whether the two heads share the hidden layers.
        ortho_init: Whether weights are orthogonal at the start.
        log_std: On what the deviation of Box actions depends.
        log_std_init: The initial log standard deviation of Box actions.
        memory: The memory's cell, or none.
        memory_size: The memory's width.
        **trunk: The hidden layers, see `TrunkChoice`.

    Raises:
        ValueError: an unsupported space, an encoder that does not fit, or gSDE without a Box action space.
    """
    distribution = make_distribution(action_space, squash_actions)
    if use_sde and not isinstance(distribution, DiagonalGaussian):
        raise ValueError(f"use_sde=true needs a Box action space, given {action_space}; set use_sde=false")
    if squash_actions and not distribution.is_squashed:
        raise ValueError(f"squash_actions=true needs Box actions, given {action_space}; set it to false")
    head = HeadChoice(use_sde, log_std, log_std_init)
    model = ActorCritic(
        make_encoder(observation_space, encoders, distribution.logits_size if distribution.choices else None),
        lambda features: distribution.make_head(features, head),
        TrunkChoice(**trunk),
        shared,
        ortho_init,
        NoMemory if memory == "none" else lambda inputs: RecurrentMemory(memory, inputs, memory_size),
    )
    return model.eval()  # dropout in a user's encoder would make two policies of one, and their ratio noise
