"""What an action space needs, and what those of single numbers share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from ppo_cli.distributions.heads import LinearHead, PolicyHead

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class HeadChoice:
    """Which policy head of Box actions the config asks for; names are those of the config."""

    use_sde: bool = False
    log_std: str = "free"
    log_std_init: float = 0.0
    log_std_min: float | None = None
    log_std_max: float | None = None


class Distribution(ABC):
    """Actions of one space: from the policy's logits to what the environment takes.

    It is stateless. Randomness enters as a noise tensor drawn beforehand (`noise`), so that `sample` is a
    pure function of the logits and that noise. ``B`` stands for any leading batch shape.

    Attributes:
        space: A single environment's action space.
        logits_size: The number of values P that the policy head gives: logits are [B, P].
        noise_size: The number of values of the noise for one action.
        noise_kind: The distribution of one of them, in a word, where they all have the same.
        zero_noise: The action that noise of zeros gives, in words.
        action_shape: The shape of one action as it is stored, behind the batch axes.
        action_dtype: The dtype of a stored action.
        choices: The number of alternatives of each component, where a mask can forbid some; else empty.
        is_squashed: Whether stored actions go through a tanh on the way to the environment.
    """

    space: spaces.Space[Any]
    logits_size: int
    noise_size: int
    noise_kind: ClassVar[str] = "gumbel"
    zero_noise: ClassVar[str] = "the most probable action"
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype
    choices: tuple[int, ...] = ()
    is_squashed: bool = False

    @property
    def parts(self) -> tuple["Distribution", ...]:
        """The distributions of a nested space's leaves; of a simple space itself."""
        return (self,)

    @property
    def noise_kinds(self) -> tuple[tuple[str, int], ...]:
        """The kinds of noise, each with how many values of it there are, in their order."""
        return ((self.noise_kind, self.noise_size),)

    @property
    def form(self) -> tuple[object, ...]:
        """What the logits stand for: equal where one network serves two spaces."""
        return type(self), self.logits_size, self.action_shape, self.choices

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space})"

    @abstractmethod
    def noise(self, batch_shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Noise for one `sample` of logits of that batch shape, on the CPU."""

    @abstractmethod
    def sample(self, logits: Tensor, noise: Tensor) -> Tensor:
        """Action drawn with that noise, [B, *action_shape]."""

    @abstractmethod
    def mode(self, logits: Tensor) -> Tensor:
        """The most probable action, [B, *action_shape]."""

    @abstractmethod
    def log_prob(self, logits: Tensor, actions: Tensor) -> Tensor:
        """Log-probability log π(a | s), [B]."""

    @abstractmethod
    def entropy(self, logits: Tensor) -> Tensor:
        """S[π] in nats, [B]."""

    @abstractmethod
    def to_env(self, actions: Array) -> Array:
        """Stored actions [N, ...] as the vector environment takes them, [N, *space.shape]; a new array."""

    @abstractmethod
    def to_env_module(self) -> nn.Module:
        """`to_env` as a module for exported graphs."""

    @abstractmethod
    def tolerance(self, logits: Tensor, noise: Tensor | None, stored: Array, relative: float) -> list[Array]:
        """How much rounding may change actions on the way to the environment, for each of the parts.

        Args:
            logits: The logits of the actions, [B, P].
            noise: The noise with which they were drawn; None for the most probable ones.
            stored: The actions, [B, *action_shape].
            relative: The difference that numbers of size 1 may have.

        Returns:
            For each part, what each component may differ by, [B, components]; infinite, or 1, where two
            choices are as good.
        """

    def make_head(self, features: int, choice: HeadChoice) -> PolicyHead:
        """The policy head for a number of features."""
        return LinearHead(features, self)

    def numpy_sample(self, logits: Array, noise: Array) -> Array:
        """`sample` in NumPy, of logits that a `LinearHead` gives."""
        raise NotImplementedError


def gumbel(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard Gumbel noise: argmax(logits + noise) is a draw from softmax(logits)."""
    return torch.empty(shape).exponential_(generator=generator).log_().neg_()


def ties(margins: Array, sizes: Array, relative: float) -> Array:
    """The tolerance of choices made by a margin between numbers of some size: infinite where it's a tie."""
    return np.where(margins <= relative * sizes, np.inf, 0.0)


class ToEnv(nn.Module):
    """`Distribution.to_env` as a module, for a space whose stored actions need another shape and dtype."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.shape = tuple(space.shape or ())
        self.dtype = torch.from_numpy(np.zeros(0, space.dtype)).dtype

    def forward(self, stored: Tensor) -> Tensor:
        """Stored actions [B, ...] -> the environment's, [B, *shape]."""
        return self.convert(stored.reshape(stored.shape[0], *self.shape)).to(self.dtype)

    def convert(self, values: Tensor) -> Tensor:
        """Values [B, *shape] that only need the space's dtype."""
        return values
