"""The update of a minibatch, in one piece, or in parts: the gradient of each shard's by itself.

They are added in the order of the shards: the same bits whichever processes compute them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import normalize_advantages
from ppo_cli.collective import Collective
from ppo_cli.compiled_step import Compiled, compile_step
from ppo_cli.distributions import Distribution
from ppo_cli.rollout import Batch, Sequences, minibatches
from ppo_cli.update import (
    Hyperparameters,
    TrainState,
    make_descent,
    make_part,
    make_step,
    parameter_shapes,
)

Minibatch = Sequence[tuple[Tensor, Tensor]]  # each shard's indices of rows, int64 [B], and weights [B]
NOTHING = torch.zeros(0, dtype=torch.int64), torch.zeros(0)  # the part of a shard that has no more rows


class Data(NamedTuple):
    """What the minibatches of an iteration are drawn from.

    Attributes:
        batches: The rollouts of the shards of this process, in their order.
        advantages: The advantages of all shards in their order, [T*N] each.
    """

    batches: Sequence[Batch]
    advantages: Sequence[Tensor]


def gathered(
    batches: Sequence[Batch], valid: Sequence[Tensor], collective: Collective
) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    """What all processes need of all shards.

    Args:
        batches: The rollouts of the shards of this process.
        valid: Whether a row is a transition, of all shards in their order, bool [T, N] each.
        collective: The processes of the run.

    Returns:
        The advantages [T*N] of each shard, and the values [M] and value targets [M] of the transitions.
    """
    columns = [torch.stack([each.advantages, each.values, each.returns]) for each in batches]
    rows = [each.flatten().nonzero().squeeze(1) for each in valid]
    advantages, *others = zip(*collective.gather(columns), strict=True)
    values, targets = (
        torch.cat([column[chosen] for column, chosen in zip(each, rows, strict=True)]) for each in others
    )
    return advantages, values, targets


def sharded_minibatches(
    cuts: Sequence[Sequences], size: int, generators: Sequence[Generator]
) -> Iterator[Minibatch]:
    """One epoch's minibatches, of a part for each shard.

    Where backends leave rows that are no transitions, some shards have fewer parts than others.

    Args:
        cuts: The sequences of each shard.
        size: The rows of a part, as `minibatches` takes it.
        generators: Each draws a shard's permutation.
    """
    parts = (minibatches(cut, size, generator) for cut, generator in zip(cuts, generators, strict=True))
    yield from zip_longest(*parts, fillvalue=NOTHING)


class WholeStep:
    """The update of one minibatch of a run that isn't cut, in one piece: which is faster."""

    def __init__(
        self,
        model: ActorCritic,
        distribution: Distribution,
        hyper: Hyperparameters,
        knobs: Sequence[str],
        cache: Path | None = None,
    ) -> None:
        """Takes what it works with; the arguments are those of `ShardedStep`."""
        step = make_step(model, distribution, hyper, knobs)
        self._step = step if cache is None else compile_step(step, cache, hyper.sequence_length)

    def __call__(self, state: TrainState, data: Data, minibatch: Minibatch, values: Tensor) -> TrainState:
        """The state after the minibatch."""
        (batch,), ((indices, weights),) = data.batches, minibatch
        return self._step(state, batch, indices.to(values.device), weights.to(values.device), values)

    def compile_ahead(
        self, state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> None:
        """Has it compiled, where it is, beside what is done until the first call, of values of any kind."""
        if isinstance(self._step, Compiled):
            self._step.compile_ahead(state, batch, indices, weights, values)


class ShardedStep:
    """The update of one minibatch in parts.

    Advantages are normalised over the whole minibatch. The gradient is Σ_s (W_s / W) g_s, with the sums W_s
    of the weights of each part's rows, as that of a weighted mean is; and so are the metrics.
    """

    def __init__(
        self,
        model: ActorCritic,
        distribution: Distribution,
        hyper: Hyperparameters,
        knobs: Sequence[str],
        collective: Collective,
        cache: Path | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            model: The network whose parameters the vector holds.
            distribution: The distribution of the actions.
            hyper: The constant knobs.
            knobs: The names of the annealed ones, as `ppo_cli.update.make_step` takes them.
            collective: The processes of the run.
            cache: The folder of compiled libraries, one for the gradient of a part and one for what is done
                with the sum; None runs both as they are.
        """
        self._collective, self._normalizes = collective, hyper.normalize_advantage
        params = sum(shape.numel() for shape in parameter_shapes(model))
        self._size = params + len(hyper.metrics) - 1  # without the norm of the gradient
        self._gradient = _make_gradient(model, distribution, hyper, knobs)
        self._descend = _make_descent(model, hyper, knobs)
        if cache is not None:
            self._gradient = Compiled(self._gradient, cache, (2, 3, 4), hyper.sequence_length)
            self._descend = Compiled(self._descend, cache, ())

    def __call__(self, state: TrainState, data: Data, minibatch: Minibatch, values: Tensor) -> TrainState:
        """The state after the minibatch."""
        device, shares = values.device, [weights.sum().item() for _, weights in minibatch]
        chosen = [(indices.to(device), weights.to(device)) for indices, weights in minibatch]
        pairs = zip(data.advantages, chosen, strict=True)
        advantages = torch.cat([column[indices] for column, (indices, _) in pairs])
        if self._normalizes:
            advantages = normalize_advantages(advantages, torch.cat([weights for _, weights in chosen]))
        of_shards = advantages.split([len(indices) for indices, _ in chosen])
        parts = []
        for shard, batch in enumerate(data.batches, self._collective.rank * len(data.batches)):
            inputs = (*chosen[shard], of_shards[shard], values)
            has_rows = shares[shard] > 0
            part = self._gradient(state.params, batch, *inputs) if has_rows else values.new_zeros(self._size)
            parts.append(part)
        whole = self._collective.combine(parts, partial(weighted_sum, shares=shares))
        return self._descend(state, whole, values)

    def compile_ahead(
        self, state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> None:
        """Has it compiled, where it is, beside what is done until the first call, of values of any kind."""
        if isinstance(self._gradient, Compiled) and isinstance(self._descend, Compiled):
            self._gradient.compile_ahead(state.params, batch, indices, weights, weights, values)
            self._descend.compile_ahead(state, values.new_zeros(self._size), values)


def weighted_sum(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Σ_s (w_s / Σw) x_s in the order of the parts; what has no share does not count.

    Args:
        parts: The vectors x_s.
        shares: The weights w_s, of which one at least is above 0.
    """
    total = sum(shares)
    (first, share), *others = [pair for pair in zip(parts, shares, strict=True) if pair[1]]
    result = first * (share / total)
    for part, share in others:
        result.add_(part, alpha=share / total)
    return result


Gradient = Callable[[Tensor, Batch, Tensor, Tensor, Tensor, Tensor], Tensor]
Descent = Callable[[TrainState, Tensor, Tensor], TrainState]


def _make_gradient(
    model: ActorCritic, distribution: Distribution, hyper: Hyperparameters, knobs: Sequence[str]
) -> Gradient:
    """A part's gradient and metrics as one vector [P + M]."""
    part, names = make_part(model, distribution, hyper), hyper.metrics[:-1]

    def gradient(
        params: Tensor, batch: Batch, indices: Tensor, weights: Tensor, advantages: Tensor, values: Tensor
    ) -> Tensor:
        coefs = dict(zip(knobs, values.unbind(), strict=True))
        rows = batch.with_columns(column[indices] for column in batch.columns)  # [T*N, ...] -> [B, ...]
        grad, metrics = part(params, rows._replace(advantages=advantages), weights, coefs)
        return torch.cat([grad, torch.stack([metrics[name] for name in names]).detach()])

    return gradient


def _make_descent(model: ActorCritic, hyper: Hyperparameters, knobs: Sequence[str]) -> Descent:
    """The step that follows from the sum of such vectors."""
    shapes, names = parameter_shapes(model), hyper.metrics[:-1]
    descend = make_descent(hyper, shapes)
    size = sum(shape.numel() for shape in shapes)

    def follow(state: TrainState, vector: Tensor, values: Tensor) -> TrainState:
        coefs = dict(zip(knobs, values.unbind(), strict=True))
        grad, told = vector.split([size, len(names)])
        return descend(state, grad, dict(zip(names, told.unbind(), strict=True)), coefs)

    return follow
