"""The update of one minibatch as one pure function."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from ppo_cli import losses
from ppo_cli.actor_critic import ActorCritic
from ppo_cli.adaptive import KLAdaptive
from ppo_cli.advantages import normalize_advantages
from ppo_cli.distributions import Distribution
from ppo_cli.objectives import CLIP, Loss, Terms
from ppo_cli.optimizers import ADAM
from ppo_cli.optimizers.optimizer import Optimizer, OptimizerState
from ppo_cli.optimizers.rules import clip_by_norm
from ppo_cli.rollout import Batch
from ppo_cli.value_losses import MSE

# What is logged of every minibatch beside the parts of its loss, by name.
DIAGNOSTICS: dict[str, Callable[[Terms], Tensor]] = {
    "approx_kl": lambda terms: losses.approximate_kl(
        terms.new_logprobs.detach(), terms.old_logprobs, terms.weights
    ),
    "clipfrac": lambda terms: losses.clip_fraction(terms.ratio.detach(), terms.clip_ratio, terms.weights),
}

INTRINSIC_LOSS = "intrinsic_value_loss"  # what that of the intrinsic returns is logged as


@dataclass(frozen=True)
class Hyperparameters:
    """What stays constant over a run; names are those of the config.

    The numbers that may change are `ppo_cli.schedules.Schedules`.

    Attributes:
        adaptive: What steers the learning rate in place of its schedule, if anything does.
    """

    batch_size: int = 64
    n_epochs: int = 10
    normalize_advantage: bool = True
    sde_sample_freq: int = -1
    sequence_length: int = 1
    has_intrinsic: bool = False
    objective: Loss = CLIP
    value_loss: Loss = MSE
    extra_losses: tuple[Loss, ...] = ()
    optimizer: Optimizer = ADAM
    adaptive: KLAdaptive | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what a minibatch step tells."""
        extra = (loss.metric for loss in self.extra_losses)
        intrinsic = (INTRINSIC_LOSS,) if self.has_intrinsic else ()
        return (*LossParts._fields, *intrinsic, *extra, *DIAGNOSTICS, "grad_norm")


class LossParts(NamedTuple):
    """The loss of one minibatch and the parts that every run has; scalars."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    total_loss: Tensor


class TrainState(NamedTuple):
    """Everything that a minibatch step changes.

    ``active`` is 1.0 until the KL stop, then 0.0: it freezes the rest. ``sums`` adds up the metrics of the
    ``seen`` minibatches, in the order of `Hyperparameters.metrics`. ``learning_rate`` is that of the last
    step where `Hyperparameters.adaptive` steers it; elsewhere there is none.
    """

    params: Tensor
    optimizer: OptimizerState
    active: Tensor
    sums: Tensor
    seen: Tensor
    learning_rate: Tensor | None = None


Data = TypeVar("Data")  # what was collected, as a step takes it
Minibatch = TypeVar("Minibatch")  # what is drawn of it, likewise
Forward = Callable[[Tensor, Batch, Tensor, dict[str, Tensor]], Terms]
Step = Callable[[TrainState, Batch, Tensor, Tensor, Tensor], TrainState]
Part = Callable[[Tensor, Batch, Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
Descent = Callable[[TrainState, Tensor, dict[str, Tensor], dict[str, Tensor]], TrainState]


def first_state(
    params: Tensor, optimizer: OptimizerState, hyper: Hyperparameters, learning_rate: float = 0.0
) -> TrainState:
    """The state with which the minibatches of an iteration begin.

    Args:
        params: The flat vector of parameters [P].
        optimizer: The optimizer's state.
        hyper: The constant knobs.
        learning_rate: The learning rate so far, where `Hyperparameters.adaptive` steers it.
    """
    one = torch.ones((), device=params.device)
    sums = torch.zeros(len(hyper.metrics), device=params.device)
    rate = None if hyper.adaptive is None else one * learning_rate
    return TrainState(params, optimizer, one, sums, torch.zeros_like(one), rate)


def parameter_shapes(model: ActorCritic) -> list[torch.Size]:
    """Shapes of the parameters that are trained, in the order in which the flat vector has them."""
    return [parameter.shape for parameter in model.parameters() if parameter.requires_grad]


def ppo_loss(
    terms: Terms, coefs: dict[str, Tensor], distribution: Distribution, hyper: Hyperparameters
) -> dict[str, Tensor]:
    """The parts of the loss of a minibatch, scalars by name; ``total_loss`` is what the update descends.

    Args:
        terms: The tensors that the losses are functions of.
        coefs: The values of the annealed knobs by name.
        distribution: The distribution of the actions.
        hyper: The constant knobs.
    """
    policy_loss = hyper.objective(terms)
    value_loss = hyper.value_loss(terms)
    entropy = losses.weighted_mean(distribution.entropy(terms.logits), terms.weights)
    total = losses.total_loss(policy_loss, value_loss, entropy, coefs["vf_coef"], coefs["ent_coef"])
    further = {}
    if hyper.has_intrinsic:
        values, returns = terms.intrinsic_values, terms.intrinsic_returns
        further[INTRINSIC_LOSS] = losses.value_loss(values, returns, terms.weights)
        total = total + coefs["vf_coef"] * further[INTRINSIC_LOSS]
    for each in hyper.extra_losses:
        further[each.metric] = each(terms)
        total = total + coefs[f"{each.metric}_coef"] * further[each.metric]
    return LossParts(policy_loss, value_loss, entropy, total)._asdict() | further


def make_forward(model: ActorCritic, distribution: Distribution, hyper: Hyperparameters) -> Forward:
    """What the losses of a minibatch are made of, as a pure function of one flat parameter vector.

    Args:
        model: The network whose parameters the vector holds.
        distribution: The distribution of the actions.
        hyper: The constant knobs.

    Returns:
        A function of the parameters [P], a minibatch whose advantages are as the loss takes them, the weights
        of its rows [B] and the annealed knobs.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    shapes = parameter_shapes(model)
    sizes = [shape.numel() for shape in shapes]

    def forward(params: Tensor, batch: Batch, weights: Tensor, coefs: dict[str, Tensor]) -> Terms:
        pieces = zip(names, shapes, params.split(sizes), strict=True)
        tree = {name: piece.view(shape) for name, shape, piece in pieces}
        states = batch.states
        if hyper.sequence_length > 1:  # of each sequence's first row, [K*L, S] -> [K, S]
            states = states.unflatten(0, (-1, hyper.sequence_length))[:, 0]
        inputs = (batch.observations, states, batch.episode_starts)
        logits, value_outputs = functional_call(model, tree, inputs)
        value_outputs, intrinsic_values = model.split(value_outputs)
        values_pred = model.value_head.decode(value_outputs)
        new_logprobs = distribution.log_prob(logits, batch.actions)
        ratio = losses.probability_ratio(new_logprobs, batch.logprobs)
        return Terms(
            logits, value_outputs, values_pred, new_logprobs, batch.logprobs, ratio, batch.advantages,
            batch.returns, batch.values, batch.actions, weights, coefs["clip_ratio"],
            coefs.get("vf_clip_ratio"),
            intrinsic_values, batch.intrinsic_returns,
        )  # fmt: skip

    return forward


def make_part(model: ActorCritic, distribution: Distribution, hyper: Hyperparameters) -> Part:
    """The gradient and the metrics of a minibatch's rows, as a pure function of one flat parameter vector.

    Args:
        model: The network whose parameters the vector holds.
        distribution: The distribution of the actions.
        hyper: The constant knobs.

    Returns:
        A function of the parameters [P], the rows, whose advantages are as the loss takes them, their weights
        [B] and the annealed knobs. It gives the gradient [P] and scalars by name, all but ``grad_norm`` of
        `Hyperparameters.metrics`: each a mean over the rows.
    """
    forward = make_forward(model, distribution, hyper)

    def part(
        params: Tensor, rows: Batch, weights: Tensor, coefs: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        params = params.detach().requires_grad_()
        terms = forward(params, rows, weights, coefs)
        metrics = ppo_loss(terms, coefs, distribution, hyper)
        metrics |= {name: metric(terms) for name, metric in DIAGNOSTICS.items()}
        (grad,) = torch.autograd.grad(metrics["total_loss"], params)
        return grad, metrics

    return part


def make_descent(hyper: Hyperparameters, shapes: Sequence[torch.Size]) -> Descent:
    """One step down a minibatch's gradient, as a pure function of the state.

    Args:
        hyper: The constant knobs.
        shapes: The shapes of the parameters in the flat vector.

    Returns:
        A function of the state, what `make_part`'s function gave, and the annealed knobs. Without
        ``target_kl`` among these nothing stops.
    """

    def descend(
        state: TrainState, grad: Tensor, metrics: dict[str, Tensor], coefs: dict[str, Tensor]
    ) -> TrainState:
        rate, steered = coefs["learning_rate"], state.learning_rate
        if hyper.adaptive is not None and steered is not None:
            rate = steered = hyper.adaptive(steered, metrics["approx_kl"])
        grad, norm = clip_by_norm(grad, coefs["max_grad_norm"])
        new_params, optimizer = hyper.optimizer.step(state.params, grad, state.optimizer, rate, shapes)
        told = {**metrics, "grad_norm": norm}
        sums = state.sums + torch.stack([told[name] for name in hyper.metrics]).detach()
        after = TrainState(new_params, optimizer, state.active, sums, state.seen + 1, steered)
        if "target_kl" not in coefs:
            return after
        active = state.active * (metrics["approx_kl"] <= 1.5 * coefs["target_kl"])
        return _gated(state, after, active)

    return descend


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
    part = make_part(model, distribution, hyper)
    descend = make_descent(hyper, parameter_shapes(model))

    def step(state: TrainState, batch: Batch, indices: Tensor, weights: Tensor, values: Tensor) -> TrainState:
        coefs = dict(zip(knobs, values.unbind(), strict=True))
        minibatch = batch.with_columns(rows[indices] for rows in batch.columns)  # [T*N, ...] -> [B, ...]
        if hyper.normalize_advantage:
            advantages = normalize_advantages(minibatch.advantages, weights)
            minibatch = minibatch._replace(advantages=advantages)
        grad, metrics = part(state.params, minibatch, weights, coefs)
        return descend(state, grad, metrics, coefs)

    return step


def _gated(before: TrainState, after: TrainState, active: Tensor) -> TrainState:
    """The state after a minibatch whose step counts only where ``active`` is 1.

    A minibatch whose KL is too large counts in the means, and in a learning rate that is steered, but takes
    no step, nor does any after it.
    """
    moments = zip(after.optimizer, before.optimizer, strict=True)
    steered = None
    if after.learning_rate is not None and before.learning_rate is not None:
        steered = torch.where(before.active > 0, after.learning_rate, before.learning_rate)
    return TrainState(
        torch.where(active > 0, after.params, before.params),
        after.optimizer._make(torch.where(active > 0, new, old) for new, old in moments),
        active,
        torch.where(before.active > 0, after.sums, before.sums),
        before.seen + before.active,
        steered,
    )


def run_epochs(
    step: Callable[[TrainState, Data, Minibatch, Tensor], TrainState],
    state: TrainState,
    data: Data,
    epochs: Iterable[Iterable[Minibatch]],
    knobs: Tensor,
) -> TrainState:
    """Steps through the minibatches of several epochs, or of fewer where the KL stop ends them.

    Args:
        step: The step.
        state: The state that `first_state` made.
        data: What was collected.
        epochs: Which of its rows are in each minibatch.
        knobs: The values of the annealed ones, [K].
    """
    for minibatches in epochs:
        for minibatch in minibatches:
            state = step(state, data, minibatch, knobs)
        if not state.active.item():
            break
    return state


def mean_metrics(state: TrainState, hyper: Hyperparameters) -> dict[str, float]:
    """What the minibatches told, by name: means over those that were seen."""
    return dict(zip(hyper.metrics, (state.sums / state.seen).tolist(), strict=True))


def state_leaves(state: TrainState) -> list[Tensor]:
    """The tensors of a state, those of its optimizer among them."""
    adapted = [] if state.learning_rate is None else [state.learning_rate]
    return [state.params, state.active, state.sums, state.seen, *adapted, *state.optimizer]


def state_of_leaves(like: TrainState, leaves: Sequence[Tensor]) -> TrainState:
    """The state of the same kind that has these tensors."""
    params, active, sums, seen, *rest = leaves
    adapted = None if like.learning_rate is None else rest.pop(0)
    return TrainState(params, like.optimizer._make(rest), active, sums, seen, adapted)
