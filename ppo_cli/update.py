"""The update of one minibatch as one pure function, and that function compiled."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from ppo_cli import losses
from ppo_cli.actor_critic import ActorCritic
from ppo_cli.advantages import normalize_advantages
from ppo_cli.compile import Library, compile_function, explain_failure
from ppo_cli.distributions import Distribution
from ppo_cli.optimizers import AdamState, adam, clip_by_norm
from ppo_cli.rollout import Batch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hyperparameters:
    """The knobs of the algorithm that stay constant over a run; names are those of the config."""

    gamma: float = 0.99
    gae_lambda: float = 0.95
    batch_size: int = 64
    n_epochs: int = 10
    normalize_advantage: bool = True
    vf_clip_ratio: float | None = None
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    sde_sample_freq: int = -1
    sequence_length: int = 1


class Coefficients(NamedTuple):
    """The annealed knobs at one iteration, scalar tensors (so that one compiled step serves all values)."""

    learning_rate: Tensor
    clip_ratio: Tensor
    ent_coef: Tensor
    vf_coef: Tensor


class LossParts(NamedTuple):
    """What the loss of one minibatch is made of, and its diagnostics; scalars."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    total_loss: Tensor
    approx_kl: Tensor
    clipfrac: Tensor


class TrainState(NamedTuple):
    """Everything that a minibatch step changes.

    ``active`` is 1.0 until the KL stop, then 0.0: it freezes the rest. ``sums`` [7] adds up the `LossParts`
    and gradient norms of the ``seen`` minibatches.
    """

    params: Tensor
    optimizer: AdamState
    active: Tensor
    sums: Tensor
    seen: Tensor


@dataclass(frozen=True)
class UpdateMetrics:
    """One iteration's update: means over its minibatches, and the critic's fit to the rollout."""

    policy_loss: float
    value_loss: float
    entropy: float
    total_loss: float
    approx_kl: float
    clipfrac: float
    grad_norm: float
    explained_variance: float


Step = Callable[[TrainState, Batch, Tensor, Tensor, Coefficients], TrainState]


def make_step(model: ActorCritic, distribution: Distribution, hyper: Hyperparameters) -> Step:
    """The update of one minibatch as a pure function of the state, over one flat parameter vector."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    named = [(name, parameter.shape, parameter.numel()) for name, parameter in trained]
    sizes = [size for _, _, size in named]

    def loss(params: Tensor, batch: Batch, weights: Tensor, coefs: Coefficients) -> LossParts:
        pieces = zip(named, params.split(sizes), strict=True)
        tree = {name: piece.view(shape) for (name, shape, _), piece in pieces}
        states = batch.states[:: hyper.sequence_length]  # of a sequence's first row
        logits, values_pred = functional_call(model, tree, (batch.observations, states, batch.starts))
        new_logprobs = distribution.log_prob(logits, batch.actions)
        ratio = losses.probability_ratio(new_logprobs, batch.logprobs)
        advantages = batch.advantages
        if hyper.normalize_advantage:
            advantages = normalize_advantages(advantages, weights)
        policy_loss = losses.clipped_policy_loss(ratio, advantages, coefs.clip_ratio, weights)
        if hyper.vf_clip_ratio is None:
            value_loss = losses.value_loss(values_pred, batch.returns, weights)
        else:
            value_loss = losses.clipped_value_loss(
                values_pred, batch.values, batch.returns, hyper.vf_clip_ratio, weights
            )
        entropy = losses.weighted_mean(distribution.entropy(logits), weights)
        total = losses.total_loss(policy_loss, value_loss, entropy, coefs.vf_coef, coefs.ent_coef)
        approx_kl = losses.approximate_kl(new_logprobs.detach(), batch.logprobs, weights)
        clipfrac = losses.clip_fraction(ratio.detach(), coefs.clip_ratio, weights)
        return LossParts(policy_loss, value_loss, entropy, total, approx_kl, clipfrac)

    def step(
        state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, coefs: Coefficients
    ) -> TrainState:
        minibatch = Batch(*(rows[indices] for rows in batch.columns))  # [T*N, ...] -> [B, ...]
        params = state.params.detach().requires_grad_()
        parts = loss(params, minibatch, weights, coefs)
        (grad,) = torch.autograd.grad(parts.total_loss, params)
        grad, grad_norm = clip_by_norm(grad, hyper.max_grad_norm)
        new_params, optimizer = adam(state.params, grad, state.optimizer, coefs.learning_rate)
        sums = state.sums + torch.stack([*parts, grad_norm]).detach()
        if hyper.target_kl is None:
            return TrainState(new_params, optimizer, state.active, sums, state.seen + 1)
        # a minibatch whose KL is too large counts in the means but takes no step, nor does any after it
        active = state.active * (parts.approx_kl <= 1.5 * hyper.target_kl)
        moments = zip(optimizer, state.optimizer, strict=True)
        return TrainState(
            torch.where(active > 0, new_params, state.params),
            AdamState(*(torch.where(active > 0, new, old) for new, old in moments)),
            active,
            torch.where(state.active > 0, sums, state.sums),
            state.seen + state.active,
        )

    return step


def compile_step(step: Step, cache: Path) -> Step:
    """The step as one library: gather, forward, loss, gradient, clipping and Adam without Python between.

    It is compiled, or found in the folder ``cache``, at the first call; later calls have that one's shapes.
    Where compiling fails the step runs as it is, after a warning.
    """
    library: Library | None = None

    def flat_step(*inputs: Tensor) -> tuple[Tensor, ...]:
        params, exp_avg, exp_avg_sq, count, active, sums, seen, *rest = inputs
        state = TrainState(params, AdamState(exp_avg, exp_avg_sq, count), active, sums, seen)
        *columns, indices, weights, learning_rate, clip_ratio, ent_coef, vf_coef = rest
        batch, coefs = Batch(*columns), Coefficients(learning_rate, clip_ratio, ent_coef, vf_coef)
        new = step(state, batch, indices, weights, coefs)
        return new.params, *new.optimizer, new.active, new.sums, new.seen

    def compiled(
        state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, coefs: Coefficients
    ) -> TrainState:
        nonlocal library
        scalars = (state.active, state.sums, state.seen)
        inputs = [state.params, *state.optimizer, *scalars, *batch.columns, indices, weights, *coefs]
        if library is None:
            try:
                library = compile_function(flat_step, [tensor.clone() for tensor in inputs], cache)
            except Exception as error:  # a broken toolchain fails in many ways
                reason = explain_failure(error)
                logger.warning("the update can't be compiled and runs uncompiled: %s", reason)
                library = lambda tensors: flat_step(*tensors)  # noqa: E731
        params, exp_avg, exp_avg_sq, count, active, sums, seen = library(inputs)
        return TrainState(params, AdamState(exp_avg, exp_avg_sq, count), active, sums, seen)

    return compiled
