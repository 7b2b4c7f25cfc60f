"""An optimizer with its options, a user's own too, held to what it returns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from ppo_cli.errors import UserCodeError
from ppo_cli.import_path import calling

Shapes = Sequence[torch.Size]


class OptimizerState(Protocol):
    """What every NamedTuple of tensors is."""

    def __iter__(self) -> Iterator[Tensor]:
        """The tensors."""

    def __len__(self) -> int:
        """Their number."""

    def _asdict(self) -> dict[str, Any]: ...

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self: ...


class Rule(NamedTuple):
    """An optimizer's two functions."""

    init: Callable[[Tensor, Shapes], Any]
    step: Callable[..., tuple[Tensor, Any]]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer with its options.

    Attributes:
        name: The name as it was typed.
        rule: A `Rule`, or anything else that has an ``init`` and a ``step``.
        options: The arguments that a step gets beside the rest.
    """

    name: str
    rule: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    def init(self, params: Tensor, shapes: Shapes) -> OptimizerState:
        """The state before the first step, for parameters [P].

        Raises:
            UserCodeError: it raised, or returned something else.
        """
        with calling(f"{self.name}.init", {}):
            state = self.rule.init(params, shapes)
        if not _is_state(state):
            raise UserCodeError(
                f"{self.name}.init returned {_shown(state)}: expected a NamedTuple of tensors"
            )
        found: OptimizerState = state._make(tensor.clone() for tensor in state)  # none of them is ``params``
        return found

    def step(
        self, params: Tensor, grad: Tensor, state: OptimizerState, learning_rate: Tensor, shapes: Shapes
    ) -> tuple[Tensor, OptimizerState]:
        """The parameters [P] and the state after a step along a gradient [P].

        Raises:
            UserCodeError: it raised, returned something else, or changed a tensor in place.
        """
        with calling(f"{self.name}.step", self.options, [params, grad, *state]):
            result = self.rule.step(params, grad, state, learning_rate, shapes, **self.options)
        is_pair = isinstance(result, tuple) and len(result) == 2
        if not (is_pair and type(result[1]) is type(state) and _alike([params, *state], _flat(result))):
            expected = f"expected (params, state) as given, {_shown((params, state))}"
            raise UserCodeError(f"{self.name}.step returned {_shown(result)}: {expected}")
        new_params, new_state = result
        return new_params, new_state


def restored(state: OptimizerState, stored: Mapping[str, Tensor]) -> OptimizerState:
    """The state that a mapping by name holds, as `_asdict` gave it.

    Args:
        state: A state of the same optimizer, for the same parameters.
        stored: The mapping that was kept.

    Raises:
        RuntimeError: it is that of another network or optimizer.
    """
    for name, place in state._asdict().items():
        if name not in stored or not _alike([place], [stored[name]]):
            raise RuntimeError(f"the optimizer's {name} is not that of this network")
    return state._make(stored[name].to(place.device) for name, place in state._asdict().items())


def _flat(pair: tuple[Tensor, OptimizerState]) -> list[Tensor]:
    return [pair[0], *pair[1]]


def _is_state(value: object) -> bool:
    return (
        hasattr(value, "_asdict") and isinstance(value, tuple) and all(isinstance(t, Tensor) for t in value)
    )


def _alike(places: Iterable[Tensor], values: Iterable[object]) -> bool:
    """Whether tensors have the shapes and dtypes of others."""
    return all(
        isinstance(value, Tensor) and value.shape == place.shape and value.dtype == place.dtype
        for place, value in zip(places, values, strict=True)
    )


def _shown(value: object) -> str:
    """A tensor or a tuple of them in a few words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, tuple):
        kind = type(value).__name__
        return f"{'' if kind == 'tuple' else kind}({', '.join(map(_shown, value))})"
    return type(value).__name__
