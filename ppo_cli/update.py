"""The update of one minibatch as one pure function, and that function compiled."""

import logging
from collections.abc import Callable, Iterable, Sequence
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
from ppo_cli.objectives import CLIP, Loss, Terms
from ppo_cli.optimizers import ADAM
from ppo_cli.optimizers.optimizer import Optimizer, OptimizerState
from ppo_cli.optimizers.rules import clip_by_norm
from ppo_cli.rollout import Batch
from ppo_cli.seeding import other_generators

logger = logging.getLogger(__name__)

# What is logged of every minibatch beside the parts of its loss, by name.
DIAGNOSTICS: dict[str, Callable[[Terms], Tensor]] = {
    "approx_kl": lambda terms: losses.approximate_kl(
        terms.new_logprobs.detach(), terms.old_logprobs, terms.weights
    ),
    "clipfrac": lambda terms: losses.clip_fraction(terms.ratio.detach(), terms.clip_ratio, terms.weights),
}


@dataclass(frozen=True)
class Hyperparameters:
    """What stays constant over a run; names are those of the config.

    The numbers that may change are `ppo_cli.schedules.Schedules`.
    """

    batch_size: int = 64
    n_epochs: int = 10
    normalize_advantage: bool = True
    sde_sample_freq: int = -1
    sequence_length: int = 1
    objective: Loss = CLIP
    extra_losses: tuple[Loss, ...] = ()
    optimizer: Optimizer = ADAM

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what a minibatch step tells."""
        extra = (loss.metric for loss in self.extra_losses)
        return (*LossParts._fields, *extra, *DIAGNOSTICS, "grad_norm")


class LossParts(NamedTuple):
    """The loss of one minibatch and the parts that every run has; scalars."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    total_loss: Tensor


class TrainState(NamedTuple):
    """Everything that a minibatch step changes.

    ``active`` is 1.0 until the KL stop, then 0.0: it freezes the rest. ``sums`` adds up the metrics of the
    ``seen`` minibatches, in the order of `Hyperparameters.metrics`.
    """

    params: Tensor
    optimizer: OptimizerState
    active: Tensor
    sums: Tensor
    seen: Tensor


Forward = Callable[[Tensor, Batch, Tensor, dict[str, Tensor]], Terms]
Step = Callable[[TrainState, Batch, Tensor, Tensor, Tensor], TrainState]


def first_state(params: Tensor, optimizer: OptimizerState, hyper: Hyperparameters) -> TrainState:
    """The state with which the minibatches of an iteration begin."""
    one = torch.ones((), device=params.device)
    sums = torch.zeros(len(hyper.metrics), device=params.device)
    return TrainState(params, optimizer, one, sums, torch.zeros_like(one))


def parameter_shapes(model: ActorCritic) -> list[torch.Size]:
    """Shapes of the parameters that are trained, in the order in which the flat vector has them."""
    return [parameter.shape for parameter in model.parameters() if parameter.requires_grad]


def ppo_loss(
    terms: Terms, coefs: dict[str, Tensor], distribution: Distribution, hyper: Hyperparameters
) -> dict[str, Tensor]:
    """The parts of the loss of a minibatch, scalars by name; ``total_loss`` is what the update descends.

    Args:
        terms: The tensors that the losses are functions of.
        coefs: The values of the annealed knobs by name. Without ``vf_clip_ratio`` no value is clipped.
        distribution: The distribution of the actions.
        hyper: The constant knobs.
    """
    policy_loss = hyper.objective(terms)
    values_pred, mb_returns, weights = terms.values, terms.returns, terms.weights
    if "vf_clip_ratio" in coefs:
        value_loss = losses.clipped_value_loss(
            values_pred, terms.old_values, mb_returns, coefs["vf_clip_ratio"], weights
        )
    else:
        value_loss = losses.value_loss(values_pred, mb_returns, weights)
    entropy = losses.weighted_mean(distribution.entropy(terms.logits), weights)
    total = losses.total_loss(policy_loss, value_loss, entropy, coefs["vf_coef"], coefs["ent_coef"])
    extra = {each.metric: each(terms) for each in hyper.extra_losses}
    for name, value in extra.items():
        total = total + coefs[f"{name}_coef"] * value
    return LossParts(policy_loss, value_loss, entropy, total)._asdict() | extra


def make_forward(model: ActorCritic, distribution: Distribution, hyper: Hyperparameters) -> Forward:
    """What a loss is made of, as a pure function of one flat parameter vector.

    Args:
        model: The network whose parameters the vector holds.
        distribution: The distribution of the actions.
        hyper: The constant knobs.

    Returns:
        A function of the parameters [P], a minibatch, the weights of its rows [B] and the annealed knobs.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    shapes = parameter_shapes(model)
    sizes = [shape.numel() for shape in shapes]

    def forward(params: Tensor, batch: Batch, weights: Tensor, coefs: dict[str, Tensor]) -> Terms:
        pieces = zip(names, shapes, params.split(sizes), strict=True)
        tree = {name: piece.view(shape) for name, shape, piece in pieces}
        states = batch.states[:: hyper.sequence_length]  # of a sequence's first row
        logits, values_pred = functional_call(model, tree, (batch.observations, states, batch.episode_starts))
        new_logprobs = distribution.log_prob(logits, batch.actions)
        ratio = losses.probability_ratio(new_logprobs, batch.logprobs)
        advantages = batch.advantages
        if hyper.normalize_advantage:
            advantages = normalize_advantages(advantages, weights)
        return Terms(
            logits, values_pred, new_logprobs, batch.logprobs, ratio, advantages, batch.returns, batch.values,
            batch.actions, weights, coefs["clip_ratio"],
        )  # fmt: skip

    return forward


def make_step(
    model: ActorCritic, distribution: Distribution, hyper: Hyperparameters, knobs: Sequence[str]
) -> Step:
    """The update of one minibatch as a pure function of the state, over one flat parameter vector.

    Args:
        model: The network whose parameters the vector holds.
        distribution: The distribution of the actions.
        hyper: The constant knobs.
        knobs: The names of the annealed ones, whose values at one iteration a step is given as one tensor [K]
            (so that one compiled step serves all values). Without ``target_kl`` nothing stops.
    """
    forward, shapes = make_forward(model, distribution, hyper), parameter_shapes(model)

    def step(state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor) -> TrainState:
        coefs = dict(zip(knobs, values.unbind(), strict=True))
        minibatch = Batch(*(rows[indices] for rows in batch.columns))  # [T*N, ...] -> [B, ...]
        params = state.params.detach().requires_grad_()
        terms = forward(params, minibatch, weights, coefs)
        metrics = ppo_loss(terms, coefs, distribution, hyper)
        metrics |= {name: metric(terms) for name, metric in DIAGNOSTICS.items()}
        (grad,) = torch.autograd.grad(metrics["total_loss"], params)
        grad, metrics["grad_norm"] = clip_by_norm(grad, coefs["max_grad_norm"])
        new_params, optimizer = hyper.optimizer.step(
            state.params, grad, state.optimizer, coefs["learning_rate"], shapes
        )
        sums = state.sums + torch.stack([metrics[name] for name in hyper.metrics]).detach()
        if "target_kl" not in coefs:
            return TrainState(new_params, optimizer, state.active, sums, state.seen + 1)
        # a minibatch whose KL is too large counts in the means but takes no step, nor does any after it
        active = state.active * (metrics["approx_kl"] <= 1.5 * coefs["target_kl"])
        moments = zip(optimizer, state.optimizer, strict=True)
        return TrainState(
            torch.where(active > 0, new_params, state.params),
            optimizer._make(torch.where(active > 0, new, old) for new, old in moments),
            active,
            torch.where(state.active > 0, sums, state.sums),
            state.seen + state.active,
        )

    return step


def run_epochs(
    step: Step,
    state: TrainState,
    batch: Batch,
    epochs: Iterable[Iterable[tuple[Tensor, Tensor]]],
    knobs: Tensor,
) -> TrainState:
    """Steps through the minibatches of several epochs, or of fewer where the KL stop ends them.

    Args:
        step: The step that `make_step` made.
        state: The state that `first_state` made.
        batch: The batch that was collected.
        epochs: The indices of the rows of each minibatch, int64 [B], and their weights [B].
        knobs: The values of the annealed ones, [K].
    """
    device = state.params.device
    for minibatches in epochs:
        for indices, weights in minibatches:
            state = step(state, batch, indices.to(device), weights.to(device), knobs)
        if not state.active.item():
            break
    return state


def mean_metrics(state: TrainState, hyper: Hyperparameters) -> dict[str, float]:
    """What the minibatches told, by name: means over those that were seen."""
    return dict(zip(hyper.metrics, (state.sums / state.seen).tolist(), strict=True))


def compile_step(step: Step, cache: Path) -> Step:
    """The step as one library: from the gathering of rows to the optimizer's step without Python between.

    It is compiled, or found in the folder ``cache``, at the first call; later calls have that one's shapes.
    Where compiling fails the step runs as it is, after a warning.
    """
    library: Library | None = None

    def compiled(
        state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor
    ) -> TrainState:
        nonlocal library
        inputs = [*_leaves(state), *batch.columns, indices, weights, values]
        if library is None:
            n_leaves, like = len(state) - 1 + len(state.optimizer), state

            def flat_step(*inputs: Tensor) -> tuple[Tensor, ...]:
                *columns, indices, weights, values = inputs[n_leaves:]
                before = _with_leaves(like, inputs[:n_leaves])
                return tuple(_leaves(step(before, Batch(*columns), indices, weights, values)))

            try:
                with other_generators(0):  # for what a loss draws while it is looked at
                    library = compile_function(flat_step, [tensor.clone() for tensor in inputs], cache)
            except Exception as error:  # a broken toolchain fails in many ways
                reason = explain_failure(error)
                logger.warning("the update can't be compiled and runs uncompiled: %s", reason)
                library = lambda tensors: flat_step(*tensors)  # noqa: E731
        return _with_leaves(state, library(inputs))

    return compiled


def _leaves(state: TrainState) -> list[Tensor]:
    """The tensors of a state, those of its optimizer among them."""
    return [state.params, state.active, state.sums, state.seen, *state.optimizer]


def _with_leaves(like: TrainState, leaves: Sequence[Tensor]) -> TrainState:
    """The state of the same kind that has these tensors."""
    params, active, sums, seen, *moments = leaves
    return TrainState(params, like.optimizer._make(moments), active, sums, seen)
