"""The update that a config asks for: its constants, what may be annealed, and the functions that it names."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
from gymnasium import spaces

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.adaptive import KLAdaptive
from ppo_cli.agent import flatten_parameters
from ppo_cli.config.convert import same_named
from ppo_cli.config.schema import KNOBS, Config
from ppo_cli.distributions import Distribution, make_distribution
from ppo_cli.errors import ConfigError, UserCodeError
from ppo_cli.import_path import check_options, load_object
from ppo_cli.normalize import stored_observation
from ppo_cli.objectives import OBJECTIVES, Loss, metric_name
from ppo_cli.optimizers import OPTIMIZERS
from ppo_cli.optimizers.optimizer import Optimizer
from ppo_cli.rollout import Batch
from ppo_cli.schedules import Schedule
from ppo_cli.seeding import are_drawn_from, global_states
from ppo_cli.spaces import fill_blank
from ppo_cli.text import flat
from ppo_cli.update import Hyperparameters, first_state, make_step, parameter_shapes
from ppo_cli.value_losses import VALUE_LOSSES

ANNEALED = [name for name, known in KNOBS.items() if known.annealed]
ANNEALING = ("coef", "final", "shape", "warmup")  # of an extra loss's entry, beside its name and its options
INIT = ("params", "shapes")  # what an optimizer's functions take
STEP = ("params", "grad", "state", "learning_rate", "shapes")


class Spaces(Protocol):
    """An environment, or its spaces alone."""

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """Of the observations."""

    @property
    def action_space(self) -> spaces.Space[Any]:
        """Of the actions."""


def build_hyperparameters(config: Config) -> Hyperparameters:
    """What stays constant in the update, with the functions that the config names.

    Raises:
        ConfigError: a name is nobody's, two are logged as the same, or an option is none that is taken.
    """
    functions = {
        "objective": _loss("objective", config.objective, config.objective_kwargs, OBJECTIVES),
        "value_loss": _loss("value_loss", config.value_loss, config.value_loss_kwargs, VALUE_LOSSES),
        "extra_losses": tuple(
            _loss("extra_losses", entry["name"], _options(entry), {}) for entry in config.extra_losses
        ),
        "optimizer": _optimizer(config),
        "has_intrinsic": config.has_intrinsic,
        "adaptive": KLAdaptive(**same_named(config, KLAdaptive)) if config.adapts_learning_rate else None,
    }
    hyper = Hyperparameters(**(same_named(config, Hyperparameters) | functions))
    _check_metrics(hyper)
    return hyper


def build_distribution(config: Config, space: spaces.Space[Any]) -> Distribution:
    """The distribution over a single environment's actions."""
    return make_distribution(space, config.squash_actions, config.box_policy, config.action_bins)


def build_schedules(config: Config) -> dict[str, Schedule]:
    """The schedule of every number of the update, extra losses' among them, but of those that are off."""
    found = {}
    for name in ANNEALED:
        start, curve = getattr(config, name), getattr(config.anneal, name)
        if start is not None and (config.has_intrinsic or not name.startswith("intrinsic_")):
            found[name] = Schedule(start, **vars(curve))
    if config.adapts_learning_rate:  # from there on by itself
        found["learning_rate"] = Schedule(config.learning_rate)
    for entry in config.extra_losses:
        curve = {key: entry[key] for key in ("final", "shape", "warmup") if key in entry}
        found[f"{metric_name(entry['name'])}_coef"] = Schedule(entry["coef"], **curve)
    return found


def try_update(config: Config, env: Spaces, model: ActorCritic) -> None:
    """Steps once with a fresh model, where somebody's own functions or options are to be tried.

    Raises:
        ConfigError: they can't be used; one line that says why.
    """
    hyper, schedules = build_hyperparameters(config), build_schedules(config)
    chosen = (hyper.objective, hyper.value_loss, hyper.optimizer)
    is_ours = hyper.objective.name in OBJECTIVES and hyper.value_loss.name in VALUE_LOSSES
    is_ours = is_ours and hyper.optimizer.name in OPTIMIZERS
    is_ours = is_ours and not hyper.extra_losses and not any(each.options for each in chosen)
    if is_ours and config.shards == 1:
        return
    distribution = build_distribution(config, env.action_space)
    shape, dtype = stored_observation(env.observation_space, config.normalize.observations)
    rows = 2 * hyper.sequence_length
    action = distribution.action_shape, distribution.action_dtype
    batch = Batch.blank(rows, (shape, dtype), action, model.state_size, hyper.has_intrinsic)
    fill_blank(batch.observations.numpy(), env.observation_space)
    step = make_step(model, distribution, hyper, tuple(schedules))
    knobs = torch.tensor([schedule.initial for schedule in schedules.values()])
    try:
        params = flatten_parameters(model)
        moments = hyper.optimizer.init(params, parameter_shapes(model))
        state = first_state(params, moments, hyper, config.learning_rate)
        before = global_states()
        step(state, batch, torch.arange(rows), torch.ones(rows), knobs)
        if config.shards > 1 and are_drawn_from(before):
            raise ConfigError(
                f"shards={config.shards}: the network or a loss draws random numbers in the update, which "
                "would depend on who computes it; use shards=1, or leave them out"
            )
    except UserCodeError as error:
        raise ConfigError(str(error)) from error
    except RuntimeError as error:  # of a backward pass
        raise ConfigError(f"the gradient of the loss can't be computed: {flat(error)}") from error


def _loss(knob: str, name: str, options: Mapping[str, Any], known: Mapping[str, Callable[..., Any]]) -> Loss:
    try:
        function = known[name] if name in known else load_object(name, list(known), "loss", "function")
        if not callable(function):
            raise ValueError(f"{name} is no function")
        check_options(function, name, ["terms"], options)
    except ValueError as error:
        raise ConfigError(f"{knob}={name}: {error}") from error
    return Loss(name, function, options)


def _options(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("name", *ANNEALING)}


def _optimizer(config: Config) -> Optimizer:
    name, options = config.optimizer, config.optimizer_kwargs
    try:
        rule: Any = OPTIMIZERS.get(name) or load_object(name, list(OPTIMIZERS), "optimizer", "Thing")
        for part in ("init", "step"):
            if not callable(getattr(rule, part, None)):
                raise ValueError(f"{name} has no function {part}: expected init and step")
        if isinstance(rule, type):
            rule = _instance(rule, name)
        check_options(rule.init, f"{name}.init", INIT, ())
        check_options(rule.step, f"{name}.step", STEP, options)
    except ValueError as error:
        raise ConfigError(f"optimizer={name}: {error}") from error
    return Optimizer(name, rule, options)


def _instance(kind: type[Any], name: str) -> Any:  # noqa: ANN401
    try:
        return kind()
    except Exception as error:  # whatever a class of the user's raises
        raise ValueError(f"{name}() raised {type(error).__name__}: {error}") from error


def _check_metrics(hyper: Hyperparameters) -> None:
    """Raises ConfigError where two losses, or their coefficients, are logged by the same name."""
    ours: Collection[str] = {*Hyperparameters(has_intrinsic=True).metrics, "explained_variance"}
    seen: dict[str, str] = {}
    for loss in hyper.extra_losses:
        taken = f"losses/{loss.metric}" if loss.metric in ours else ""
        taken = taken or (f"charts/{loss.metric}_coef" if f"{loss.metric}_coef" in ANNEALED else "")
        if taken or loss.metric in seen:
            other = f"ppo-cli logs a {taken} of its own" if taken else f"{seen[loss.metric]} is, too"
            raise ConfigError(
                f"extra_losses: {loss.name} is logged as losses/{loss.metric}, but {other}: "
                "give the function another name"
            )
        seen[loss.metric] = loss.name
