"""The step of one minibatch, compiled."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor

from ppo_cli.compile import Axis, Library, compile_ahead, compile_function, explain_failure
from ppo_cli.rollout import Batch, Rollout, minibatches, sequences
from ppo_cli.seeding import other_generators
from ppo_cli.update import Hyperparameters, Step, TrainState, state_leaves, state_of_leaves

logger = logging.getLogger(__name__)

# Rows from which one library serves any number: below, PyTorch chooses other convolutions.
FEW = 16


def axes_of(sequence_length: int) -> tuple[Axis, Axis]:
    """The axes of a rollout's rows, and of a minibatch's sequences of that length."""
    return Axis("rows", FEW), Axis("minibatch", max(2, -(-FEW // sequence_length)))


def library_of(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    cache: Path,
    axes: Sequence[Axis | None] = (),
) -> Library:
    """A function compiled, or found in the folder ``cache``; as it is, after a warning, where that fails."""
    try:
        with other_generators(0):  # for what a loss draws while it is looked at
            return compile_function(function, [each.clone() for each in inputs], cache, axes)
    except Exception as error:  # a broken toolchain fails in many ways
        reason = explain_failure(error)
        logger.warning("the update can't be compiled and runs uncompiled: %s", reason)
        return lambda tensors: function(*tensors)


def blank_minibatch(
    rollout: Rollout, hyper: Hyperparameters, state_size: int
) -> tuple[Batch, Tensor, Tensor]:
    """A batch, and indices and weights of a minibatch, of the shapes that a rollout gives.

    Args:
        rollout: The rollout; its values do not matter.
        hyper: The constant knobs.
        state_size: The size of a memory's state.
    """
    obs, acts = rollout.observations, rollout.actions
    cut = sequences(torch.ones(rollout.n_steps, rollout.n_envs, dtype=torch.bool), hyper.sequence_length)
    batch = Batch.blank(
        cut.total, (obs.shape[2:], obs.dtype), (acts.shape[2:], acts.dtype), state_size, hyper.has_intrinsic
    )
    indices, weights = next(minibatches(cut, min(hyper.batch_size, cut.total), Generator()))
    return batch, indices, weights


class CompiledStep:
    """A step as one library: from the gathering of rows to the optimizer's step without Python between.

    It is compiled, or found in a folder, at the first call. One library serves any number of rows in a
    rollout, and in a minibatch. Where compiling fails the step runs as it is, after a warning.
    """

    def __init__(self, step: Step, cache: Path, sequence_length: int) -> None:
        """Compiles nothing yet; the arguments are those of `compile_step`."""
        self._step, self._cache, self._length = step, cache, sequence_length
        self._library: Library | None = None

    def __call__(
        self, state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> TrainState:
        """The state after a minibatch, as `Step`."""
        inputs = self._inputs(state, batch, indices, weights, values)
        if self._library is None:
            self._library = library_of(
                self._flat(state, batch), inputs, self._cache, self._axes(state, batch)
            )
        return state_of_leaves(state, self._library(inputs))

    def compile_ahead(
        self, state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> None:
        """Has it compiled beside what is done until the first call; the tensors' values do not matter."""
        examples = self._inputs(state, batch, indices, weights, values)
        with contextlib.suppress(Exception), other_generators(0):  # the first call says what is wrong
            compile_ahead(self._flat(state, batch), examples, self._cache, self._axes(state, batch))

    def _inputs(
        self, state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> list[Tensor]:
        """What the library is given."""
        if self._length > 1:  # as many sequences as there are: [K*L] -> [K, L]
            indices, weights = (rows.view(-1, self._length) for rows in (indices, weights))
        return [*state_leaves(state), *batch.columns, indices, weights, values]

    def _flat(self, like: TrainState, batch: Batch) -> Callable[..., tuple[Tensor, ...]]:
        """The step as a function of what the library is given."""
        n_leaves, of_batch = (
            len(state_leaves(like)),
            batch.with_columns(column[:1] for column in batch.columns),
        )

        def flat_step(*inputs: Tensor) -> tuple[Tensor, ...]:
            *columns, indices, weights, values = inputs[n_leaves:]
            before = state_of_leaves(like, inputs[:n_leaves])
            rows = indices.flatten(), weights.flatten()
            return tuple(state_leaves(self._step(before, of_batch.with_columns(columns), *rows, values)))

        return flat_step

    def _axes(self, state: TrainState, batch: Batch) -> list[Axis | None]:
        """Which of what it is given may be of another length at each call."""
        rows, minibatch = axes_of(self._length)
        return [*[None] * len(state_leaves(state)), *len(batch.columns) * [rows], *2 * [minibatch], None]


def compile_step(step: Step, cache: Path, sequence_length: int = 1) -> CompiledStep:
    """The step as one library.

    Args:
        step: The step.
        cache: The folder of compiled libraries.
        sequence_length: The length L of the sequences of which minibatches are made.
    """
    return CompiledStep(step, cache, sequence_length)
