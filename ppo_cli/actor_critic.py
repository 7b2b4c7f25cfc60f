"""ActorCritic: encoder, memory, trunk, policy head and value head."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.distributions import DiagonalGaussian, Distribution, HeadChoice, make_distribution
from ppo_cli.distributions.heads import PolicyHead
from ppo_cli.encoders import (
    Encoder,
    EncoderChoice,
    PackedEncoder,
    UserEncoder,
    is_heavy,
    make_critic_encoder,
    make_encoder,
)
from ppo_cli.memory import EMPTY, Memory, NoMemory, RecurrentMemory
from ppo_cli.trunks import DEFAULT_TRUNK, SimBa, TrunkChoice, make_trunk
from ppo_cli.value_heads import ValueHead, head_maker

NONE = torch.zeros(0)  # values of intrinsic returns where there are none
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
        intrinsic: bool = False,
    ) -> None:
        """Builds and initialises the network with torch's global generator.

        Args:
            encoder: What turns observations into vectors.
            make_head: A function from a number of features to a policy head.
            trunk: The hidden layers.
            shared: Whether the two heads share the hidden layers.
            ortho_init: Orthogonal weights with gain sqrt(2) in encoder and trunk, 1 in the memory, 0.01 in
                the policy head and 1 in the value head (0 for `TwoHotHead`), and zero biases (37 details,
                no. 2); a SimBa trunk has its published weights; else PyTorch's own initialisation.
            make_memory: A function from a number of inputs to a memory.
            make_value_head: A function from a number of features to a value head.
            critic_encoder: The critic's own encoder, where nothing is shared; None for the actor's.
            critic_trunk: The critic's own hidden layers, likewise; None for those of ``trunk``.
            intrinsic: Whether intrinsic returns have a value head, too.
        """
        super().__init__()
        self.encoder = encoder
        self.memory = make_memory(encoder.size)
        self.value_encoder = critic_encoder
        self.value_memory = None if critic_encoder is None else make_memory(critic_encoder.size)
        self.trunk = make_trunk(self.memory.size, trunk)
        self.value_trunk = None if shared else make_trunk(self.critic.memory.size, critic_trunk or trunk)
        self.policy_head = make_head(self.trunk.size)
        value_features = (self.value_trunk or self.trunk).size
        self.value_head = make_value_head(value_features)
        self.intrinsic_head = nn.Linear(value_features, 1) if intrinsic else None
        if ortho_init:
            gains: dict[nn.Module | None, float] = {
                self.trunk: math.sqrt(2),
                self.policy_head: 0.01,
                self.value_head: self.value_head.gain,
                self.intrinsic_head: 1.0,
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
    def actor(self) -> Eyes:
        """What the policy sees by."""
        return Eyes(self.encoder, self.memory, slice(self.actor_state_size) if self.has_own_critic else None)

    @property
    def critic(self) -> Eyes:
        """What the value sees by: the same, or its own."""
        if self.value_encoder is None or self.value_memory is None:
            return self.actor
        return Eyes(self.value_encoder, self.value_memory, slice(self.actor_state_size, None))

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
        return self.state_size > 0 or is_heavy(self.encoder)

    def forward(
        self, obs: Tensor, state: Tensor = EMPTY, episode_starts: Tensor = EMPTY
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, P] and outputs of the value heads [B, K] for B rows; see `split`.

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
        return self.logits(features, obs), self._outputs(value_features)

    def encode(self, obs: Tensor, state: Tensor = EMPTY) -> tuple[Tensor, Tensor]:
        """What the policy's trunk works on, [B, E], and the actor's next state, [B, A].

        Args:
            obs: The observations, [B, *shape].
            state: The state, [B, S], or the actor's part of it, [B, A].
        """
        return self.actor.step(obs, state)

    def judge(
        self, obs: Tensor, state: Tensor, encoded: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B], the whole next state [B, S], and intrinsic values, [B] or none [0].

        Args:
            obs: The observations, [B, *shape].
            state: The state, [B, S].
            encoded: What `encode` gave for them, [B, E].
            after: The actor's next state, which it gave too.
        """
        if self.has_own_critic:
            encoded, critics = self.critic.step(obs, state)
            after = torch.cat([after, critics], dim=1)
        values, intrinsic_values = self.all_values(encoded)
        return values, after, intrinsic_values

    def logits(self, features: Tensor, obs: Tensor) -> Tensor:
        """Logits [B, P] of the trunk's features."""
        return self._masked(self.policy_head(features), obs)

    def values(self, encoded: Tensor) -> Tensor:
        """Values [B] of what the critic's trunk works on."""
        return self.all_values(encoded)[0]

    def all_values(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B] of what the critic's trunk works on, and those of intrinsic returns, [B] or none [0]."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        outputs, intrinsic_values = self.split(self._outputs(trunk(encoded)))
        return self.value_head.values(outputs), intrinsic_values

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the value head [B, K], and intrinsic values [B] or none [0], of what `forward` gave."""
        if self.intrinsic_head is None:
            return outputs, NONE
        return outputs[:, :-1], outputs[:, -1]

    def policy(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
        """Logits [B, P] of observations."""
        return self.logits(self.trunk(self.encode(obs, state)[0]), obs)

    def value(self, obs: Tensor, state: Tensor = EMPTY) -> Tensor:
        """Values [B] of observations."""
        return self.values(self.critic.step(obs, state)[0])

    def _outputs(self, value_features: Tensor) -> Tensor:
        outputs: Tensor = self.value_head(value_features)
        if self.intrinsic_head is None:
            return outputs
        return torch.cat([outputs, self.intrinsic_head(value_features)], 1)

    def _masked(self, logits: Tensor, obs: Tensor) -> Tensor:
        return masked(logits, self.encoder.mask(obs) if isinstance(self.encoder, PackedEncoder) else None)


def masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Logits [B, P], those outside the mask, bool [B, P], so low that they are never drawn."""
    return logits if mask is None else torch.where(mask, logits, ILLEGAL)


def _orthogonal_init(module: nn.Module, gain: float) -> None:
    if isinstance(module, UserEncoder):  # it may come with weights of its own
        return
    if isinstance(module, SimBa):
        module.init_published()
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
    squash_actions: bool = False,
    box_policy: str = "gaussian",
    action_bins: int = 41,
    encoders: EncoderChoice | None = None,
    shared: bool = True,
    ortho_init: bool = True,
    memory: str = "none",
    memory_size: int = 128,
    value_loss: str = "mse",
    normalize_values: bool = False,
    critic_hidden_sizes: Sequence[int] | None = None,
    intrinsic: bool = False,
    **choices: Any,  # noqa: ANN401
) -> ActorCritic:
    """The network for a single environment's spaces; names are those of the config.

    Args:
        observation_space: The space of the observations.
        action_space: The space of the actions.
        squash_actions: Whether Gaussian Box actions go through a tanh.
        box_policy: The distribution of Box actions.
        action_bins: The number of values of a component, where they are categorical.
        encoders: The encoders, and who sees what; None for those that fit, and all that there is to see.
        shared: Whether the two heads share the hidden layers.
        ortho_init: Whether weights are orthogonal at the start.
        memory: The memory's cell, or none.
        memory_size: The memory's width.
        value_loss: The loss of the values, on which the value head depends.
        normalize_values: Whether values are normalised by running statistics of their targets.
        critic_hidden_sizes: The widths of the critic's hidden layers; None for those of the policy.
        intrinsic: Whether intrinsic returns have a value head, too.
        **choices: The policy head and the hidden layers: the fields of `HeadChoice` and `TrunkChoice`.

    Raises:
        ValueError: an unsupported space, an encoder that does not fit, or a policy of Boxes without one.
    """
    distribution = make_distribution(action_space, squash_actions, box_policy, action_bins)
    head, trunk = _choices(choices)
    _check_boxes(distribution, head.use_sde, squash_actions, box_policy)
    encoder, critic_encoder = _encoders(observation_space, encoders or EncoderChoice(), distribution, shared)
    model = ActorCritic(
        encoder,
        lambda features: distribution.make_head(features, head),
        trunk,
        shared,
        ortho_init,
        NoMemory if memory == "none" else lambda inputs: RecurrentMemory(memory, inputs, memory_size),
        head_maker(value_loss, normalize_values),
        critic_encoder=critic_encoder,
        critic_trunk=None
        if critic_hidden_sizes is None
        else replace(trunk, hidden_sizes=critic_hidden_sizes),
        intrinsic=intrinsic,
    )
    return model.eval()  # dropout in a user's encoder would make two policies of one, and their ratio noise


def _choices(choices: Mapping[str, Any]) -> tuple[HeadChoice, TrunkChoice]:
    """What is chosen of the policy head, and of the hidden layers."""
    of_head = {each.name for each in fields(HeadChoice)}
    head = {name: value for name, value in choices.items() if name in of_head}
    return HeadChoice(**head), TrunkChoice(**{name: choices[name] for name in choices if name not in of_head})


def _check_boxes(distribution: Distribution, use_sde: bool, squash_actions: bool, box_policy: str) -> None:
    """Raises ValueError where the actions are none that the knobs of Box actions are for."""
    space = getattr(distribution.space, "original", distribution.space)
    if use_sde and not isinstance(distribution, DiagonalGaussian):
        raise ValueError(f"use_sde=true needs a Box action space, given {space}; set use_sde=false")
    if any(isinstance(part.space, spaces.Box) for part in distribution.parts):
        return
    for is_set, knob, value, default in (
        (squash_actions, "squash_actions", "true", "false"),
        (box_policy != "gaussian", "box_policy", box_policy, "gaussian"),
    ):
        if is_set:
            raise ValueError(f"{knob}={value} needs Box actions, given {space}; set it to {default}")


def _encoders(
    space: spaces.Space[Any], choice: EncoderChoice, distribution: Distribution, shared: bool
) -> tuple[Encoder, Encoder | None]:
    """The actor's encoder, and the critic's own, where it has one."""
    mask_size = distribution.logits_size if distribution.choices else None
    encoder = make_encoder(space, choice, mask_size)
    critic_encoder = make_critic_encoder(space, choice, mask_size)
    if shared and critic_encoder is not None:
        raise ValueError(
            "network.shared=true: one trunk can't serve an actor and a critic of different observations or "
            "encoders; set network.shared=false"
        )
    return encoder, critic_encoder
