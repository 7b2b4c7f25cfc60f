"""ActorCritic: encoder, memory, trunk, policy head and value head."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.distributions import DiagonalGaussian, HeadChoice, make_distribution
from ppo_cli.distributions.heads import PolicyHead
from ppo_cli.encoders import (
    Encoder,
    EncoderChoice,
    PackedEncoder,
    UserEncoder,
    make_critic_encoder,
    make_encoder,
)
from ppo_cli.memory import EMPTY, Memory, NoMemory, RecurrentMemory
from ppo_cli.trunks import DEFAULT_TRUNK, MLP, TrunkChoice
from ppo_cli.value_heads import ValueHead

ILLEGAL = -1e8  # logit of an action that the mask forbids: probability 0 without an infinity


class Eyes(NamedTuple):
    """What the actor or the critic sees by: an encoder, and the memory of what it has seen.

    Attributes:
        encoder: What turns observations into vectors.
        memory: What remembers them.
        columns: The memory's own part of a state [B, S]; None for all of it.
    """

    encoder: Encoder
    memory: Memory
    columns: slice | None = None

    def step(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What a trunk works on, [B, E], and the memory's next state."""
        encoded: tuple[Tensor, Tensor] = self.memory(self.encoder(obs), self._own(state))
        return encoded

    def sequence(self, obs: Tensor, state: Tensor, episode_starts: Tensor) -> Tensor:
        """What a trunk works on, [K*L, E], of K sequences one after the other, see `Memory.sequence`."""
        return self.memory.sequence(self.encoder(obs), self._own(state), episode_starts)

    def _own(self, state: Tensor) -> Tensor:
        return state if self.columns is None else state[:, self.columns]


class ActorCritic(nn.Module):
    """Policy and value networks, over one encoder and one memory or over one each.

    With ``shared`` one trunk extracts the features of both heads; without it the value head has a trunk of
    its own (the published settings). With a ``critic_encoder`` the critic has eyes of its own, too: an
    encoder and, where there is one, a memory (Pinto et al. 2017, https://arxiv.org/abs/1710.06542).

    Methods take the memory's states as ``state``, [B, S]: first the actor's A numbers, which are all that
    acting reads, then the critic's, where it has its own. Without a memory S is 0, and they read none.

    Attributes:
        actor: What the policy sees by.
        critic: What the value sees by: the same, or its own.
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
        critic_encoder: Encoder | None = None,
        critic_trunk: TrunkChoice | None = None,
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
            critic_encoder: The critic's own encoder, where nothing is shared; None for the actor's.
            critic_trunk: The critic's own hidden layers, likewise; None for those of ``trunk``.
        """
        super().__init__()
        self.encoder = encoder
        self.memory = make_memory(encoder.size)
        self.actor = self.critic = Eyes(encoder, self.memory)
        self.value_encoder, self.value_memory = critic_encoder, None
        if critic_encoder is not None:
            first = self.memory.state_size
            self.value_memory = make_memory(critic_encoder.size)
            self.actor = Eyes(encoder, self.memory, slice(first))
            self.critic = Eyes(critic_encoder, self.value_memory, slice(first, None))
        self.trunk = MLP(self.memory.size, trunk)
        self.value_trunk = None if shared else MLP(self.critic.memory.size, critic_trunk or trunk)
        self.policy_head = make_head(self.trunk.size)
        self.value_head = make_value_head((self.value_trunk or self.trunk).size)
        if ortho_init:
            gains: dict[nn.Module | None, float] = {
                self.trunk: math.sqrt(2),
                self.policy_head: 0.01,
                self.value_head: 1.0,
                self.value_trunk: math.sqrt(2),
                self.encoder: math.sqrt(2),
                self.memory: 1.0,
                self.value_encoder: math.sqrt(2),
                self.value_memory: 1.0,
            }
            for module, gain in gains.items():
                if module is not None:
                    _orthogonal_init(module, gain)

    @property
    def has_own_critic(self) -> bool:
        """Whether the critic has eyes of its own."""
        return self.value_encoder is not None

    @property
    def actor_state_size(self) -> int:
        """Length A of the part of a state that acting reads."""
        return self.memory.state_size

    @property
    def state_size(self) -> int:
        """Length S of a state, the critic's part included."""
        return self.actor_state_size + (self.critic.memory.state_size if self.has_own_critic else 0)

    @property
    def is_heavy(self) -> bool:
        """Whether encoding costs so much that what acting computes is worth keeping."""
        heavy = (nn.Conv2d, UserEncoder)
        return self.state_size > 0 or any(isinstance(module, heavy) for module in self.encoder.modules())

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
        encoded = self.actor.sequence(obs, state, episode_starts)
        features = self.trunk(encoded)
        if self.has_own_critic:
            encoded = self.critic.sequence(obs, state, episode_starts)
        value_features = features if self.value_trunk is None else self.value_trunk(encoded)
        return self.logits(features, obs), self.value_head(value_features)

    def encode(self, obs: Tensor, state: Tensor = EMPTY) -> tuple[Tensor, Tensor]:
        """What the policy's trunk works on, [B, E], and the actor's next state, [B, A].

        Args:
            obs: The observations, [B, *shape].
            state: The state, [B, S], or the actor's part of it, [B, A].
        """
        return self.actor.step(obs, state)

    def judge(self, obs: Tensor, state: Tensor, encoded: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B], and the whole next state [B, S], where `encode` gave ``encoded`` and ``after``."""
        if self.has_own_critic:
            encoded, critics = self.critic.step(obs, state)
            after = torch.cat([after, critics], dim=1)
        return self.values(encoded), after

    def logits(self, features: Tensor, obs: Tensor) -> Tensor:
        """Logits [B, P] of the trunk's features."""
        return self._masked(self.policy_head(features), obs)

    def values(self, encoded: Tensor) -> Tensor:
        """Values [B] of what the critic's trunk works on."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        return self.value_head.decode(self.value_head(trunk(encoded)))

    def policy(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
        """Logits [B, P] of observations."""
        return self.logits(self.trunk(self.encode(obs, state)[0]), obs)

    def value(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
        """Values [B] of observations."""
        return self.values(self.critic.step(obs, state)[0])

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
    critic_hidden_sizes: Sequence[int] | None = None,
    **trunk: Any,  # noqa: ANN401
) -> ActorCritic:
    """The network for a single environment's spaces; names are those of the config.

    Args:
        observation_space: The space of the observations.
        action_space: The space of the actions.
        use_sde: Whether Box actions are explored by gSDE.
        squash_actions: Whether Box actions go through a tanh.
        encoders: The encoders, and who sees what; None for those that fit, and all that there is to see.
        shared: Whether the two heads share the hidden layers.
        ortho_init: Whether weights are orthogonal at the start.
        log_std: On what the deviation of Box actions depends.
        log_std_init: The initial log standard deviation of Box actions.
        memory: The memory's cell, or none.
        memory_size: The memory's width.
        critic_hidden_sizes: The widths of the critic's hidden layers; None for those of the policy.
        **trunk: The hidden layers, see `TrunkChoice`.

    Raises:
        ValueError: an unsupported space, an encoder that does not fit, or gSDE without a Box action space.
    """
    distribution = make_distribution(action_space, squash_actions)
    if use_sde and not isinstance(distribution, DiagonalGaussian):
        raise ValueError(f"use_sde=true needs a Box action space, given {action_space}; set use_sde=false")
    if squash_actions and not distribution.is_squashed:
        raise ValueError(f"squash_actions=true needs Box actions, given {action_space}; set it to false")
    head, hidden = HeadChoice(use_sde, log_std, log_std_init), TrunkChoice(**trunk)
    mask_size = distribution.logits_size if distribution.choices else None
    encoder, critic_encoder = _encoders(observation_space, encoders or EncoderChoice(), mask_size, shared)
    own = None if critic_hidden_sizes is None else replace(hidden, hidden_sizes=critic_hidden_sizes)
    model = ActorCritic(
        encoder,
        lambda features: distribution.make_head(features, head),
        hidden,
        shared,
        ortho_init,
        NoMemory if memory == "none" else lambda inputs: RecurrentMemory(memory, inputs, memory_size),
        critic_encoder=critic_encoder,
        critic_trunk=own,
    )
    return model.eval()  # dropout in a user's encoder would make two policies of one, and their ratio noise


def _encoders(
    space: spaces.Space[Any], choice: EncoderChoice, mask_size: int | None, shared: bool
) -> tuple[Encoder, Encoder | None]:
    """The actor's encoder, and the critic's own, where it has one."""
    encoder = make_encoder(space, choice, mask_size)
    critic_encoder = make_critic_encoder(space, choice, mask_size)
    if shared and critic_encoder is not None:
        raise ValueError(
            "network.shared=true: one trunk can't serve an actor and a critic of different observations or "
            "encoders; set network.shared=false"
        )
    return encoder, critic_encoder
