"""What is done with a minibatch, compiled."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Generator, Tensor

from ppo_cli.compile import Axis, Library, compile_ahead, compile_function, explain_failure
from ppo_cli.rollout import Batch, Rollout, minibatches, sequences
from ppo_cli.seeding import other_generators
from ppo_cli.update import Hyperparameters, Step, TrainState, state_leaves, state_of_leaves

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Rows from which one library serves any number: below, PyTorch chooses other convolutions.
FEW = 16


def blank_minibatch(
    rollout: Rollout, hyper: Hyperparameters, state_size: int
) -> tuple[Batch, Tensor, Tensor]:
    """A batch, and indices and weights of a minibatch, of the shapes that a rollout gives.

    Args:
        rollout: The rollout, of which the last row's first observation is in its space.
        hyper: The constant knobs.
        state_size: The size of a memory's state.
    """
    obs, acts = rollout.observations, rollout.actions
    cut = sequences(torch.ones(rollout.n_steps, rollout.n_envs, dtype=torch.bool), hyper.sequence_length)
    batch = Batch.blank(
        cut.total, (obs.shape[2:], obs.dtype), (acts.shape[2:], acts.dtype), state_size, hyper.has_intrinsic
    )
    batch.observations.copy_(obs[-1, 0])
    indices, weights = next(minibatches(cut, min(hyper.batch_size, cut.total), Generator()))
    return batch, indices, weights


class Compiled(Generic[T]):
    """A function of tensors, batches and states as one library, without Python between its operations.

    What it gives is of the kind of its first argument: a state, or a vector. It is compiled, or found in a
    folder, at the first call; where that fails it runs as it is, after a warning. One library serves any
    number of rows in a rollout, and in a minibatch.
    """

    def __init__(
        self, function: Callable[..., T], cache: Path, minibatch: Sequence[int], length: int = 1
    ) -> None:
        """Compiles nothing yet.

        Args:
            function: The function.
            cache: The folder of compiled libraries.
            minibatch: The numbers of the arguments that have a minibatch's rows, [K*L].
            length: The length L of the sequences of which minibatches are made.
        """
        self._function, self._cache = function, cache
        self._minibatch, self._length = minibatch, length
        self._library: Library | None = None

    def __call__(self, *arguments: Any) -> T:  # noqa: ANN401
        """What the function gives."""
        inputs = self._inputs(arguments)
        if self._library is None:
            self._library = self._compiled(arguments, inputs)
        result: T = _alike(arguments[0], self._library(inputs))
        return result

    def compile_ahead(self, *arguments: Any) -> None:  # noqa: ANN401
        """Has it compiled beside what is done until the first call; the tensors' values do not matter."""
        with contextlib.suppress(Exception), other_generators(0):  # the first call says what is wrong
            compile_ahead(self._flat(arguments), self._inputs(arguments), self._cache, self._axes(arguments))

    def _compiled(self, arguments: Sequence[Any], inputs: Sequence[Tensor]) -> Library:
        """The library; the function as it is, after a warning, where that fails."""
        flat = self._flat(arguments)
        try:
            with other_generators(0):  # for what a loss draws while it is looked at
                return compile_function(
                    flat, [each.clone() for each in inputs], self._cache, self._axes(arguments)
                )
        except Exception as error:  # a broken toolchain fails in many ways
            reason = explain_failure(error)
            logger.warning("the update can't be compiled and runs uncompiled: %s", reason)
            return lambda tensors: flat(*tensors)

    def _inputs(self, arguments: Sequence[Any]) -> list[Tensor]:
        """What the library is given."""
        cut = list(arguments)
        if self._length > 1:  # as many sequences as there are: [K*L] -> [K, L]
            for number in self._minibatch:
                cut[number] = cut[number].view(-1, self._length)
        return [tensor for each in cut for tensor in _tensors(each)]

    def _flat(self, arguments: Sequence[Any]) -> Callable[..., tuple[Tensor, ...]]:
        """The function of what the library is given."""

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            rest = iter(inputs)
            taken = [_alike(each, [next(rest) for _ in _tensors(each)]) for each in arguments]
            for number in self._minibatch:
                taken[number] = taken[number].flatten()
            return tuple(_tensors(self._function(*taken)))

        return flat

    def _axes(self, arguments: Sequence[Any]) -> list[Axis | None]:
        """Which of what it is given may be of another length at each call."""
        rows, sequences = Axis("rows", FEW, repeats=True), Axis("minibatch", max(2, -(-FEW // self._length)))
        axes = [
            rows if isinstance(each, Batch) else sequences if number in self._minibatch else None
            for number, each in enumerate(arguments)
        ]
        return [axis for each, axis in zip(arguments, axes, strict=True) for _ in _tensors(each)]


def _tensors(argument: Any) -> Sequence[Tensor]:  # noqa: ANN401
    """The tensors of a state or a batch, but for its empty ones; or a tensor alone."""
    if isinstance(argument, TrainState):
        return state_leaves(argument)
    return argument.columns if isinstance(argument, Batch) else (argument,)


def _alike(like: Any, tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """What is of the same kind and has these tensors."""
    if isinstance(like, TrainState):
        return state_of_leaves(like, tensors)
    return like.with_columns(tensors) if isinstance(like, Batch) else tensors[0]


def compile_step(step: Step, cache: Path, sequence_length: int = 1) -> Compiled[TrainState]:
    """The step as one library, from the gathering of rows to the optimizer's step.

    Args:
        step: The step.
        cache: The folder of compiled libraries.
        sequence_length: The length L of the sequences of which minibatches are made.
    """
    return Compiled(step, cache, (2, 3), sequence_length)
