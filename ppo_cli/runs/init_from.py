"""A run that begins with the weights and statistics of an earlier one: what fits, and putting it in place.

All else of the run is fresh: optimizer, schedules, environments and counters. Its first checkpoint holds what
was taken, so that going on needs the source no more.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.config.convert import to_dict
from ppo_cli.config.schema import Config
from ppo_cli.encoders import FlattenEncoder
from ppo_cli.errors import ConfigError
from ppo_cli.files import printable
from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer, RunningMeanStd
from ppo_cli.parts import chosen_parts
from ppo_cli.runs.sources import SETTINGS, TASK, Source, settings_in
from ppo_cli.shards import Shards
from ppo_cli.text import flat
from ppo_cli.value_heads import HEADS

NAMED = 3  # of the differences of two networks, in a line
# The parts that compute something else with the same weights where a knob differs: a trunk, too, what stands
# behind an encoder, which may have no weights itself.
_BEHIND_EYES = ("encoder", "memory", "trunk")
_BEHIND_CRITICS = ("value_encoder", "value_memory", "value_trunk")
_MEANINGS = {
    "network.activation": ("trunk", "value_trunk"),
    "network.memory": ("memory", "value_memory"),
    "network.encoders": (*_BEHIND_EYES, *_BEHIND_CRITICS),
    "network.actor.observations": _BEHIND_EYES,
    "network.critic.observations": _BEHIND_CRITICS,
    "network.critic.encoders": _BEHIND_CRITICS,
    "network.log_std": ("policy_head",),
    "network.log_std_init": ("policy_head",),
    "network.log_std_min": ("policy_head",),
    "network.log_std_max": ("policy_head",),
    "squash_actions": ("policy_head",),
    "box_policy": ("policy_head",),
    "value_loss": ("value_head",),
    "normalize.values": ("value_head",),
}
_DEVIATIONS = ("network.log_std_init", "network.log_std_min", "network.log_std_max")
# What has the places of a Dict's or Tuple's leaves in the names of its weights.
_LISTS = ("encoder.encoders.", "value_encoder.encoders.", "policy_head.heads.")
Normalizers = tuple[ObservationNormalizer | None, RewardNormalizer | None]


@dataclass(frozen=True)
class Beginning:
    """What a run begins with, of which everything fits its network.

    Attributes:
        name: What the run's config calls its source.
        weights: The weights by name.
        left_out: The names of the network's own that the loading decides on, of what older versions lack.
        observations: The observation normaliser's statistics; None for fresh ones.
        rewards: The reward normaliser's statistics; None for fresh ones.
        notices: Lines on what was taken, and what was not.
    """

    name: str
    weights: Mapping[str, Tensor]
    left_out: frozenset[str] = frozenset()
    observations: Mapping[str, Any] | None = None
    rewards: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()

    def put(self, model: ActorCritic, shards: Shards) -> None:
        """Puts it in place of a network's own, and of the statistics of what has collected nothing yet."""
        kept = {name: value for name, value in model.state_dict().items() if name not in self.left_out}
        model.load_state_dict({**kept, **self.weights}, strict=False)
        for collector in shards.collectors:
            collector.take_statistics(self.observations, self.rewards)


@dataclass
class _Fit:
    """How a source fits a network: what is taken by name, and in words what is not.

    Attributes:
        taken: The weights that fit.
        left_out: The network's own that the source lacks, because its version had none.
        differences: Names of weights that do not fit, with why.
        meanings: Knobs by which the same weights compute something else, with why.
    """

    taken: dict[str, Tensor] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    differences: list[str] = field(default_factory=list)
    meanings: list[str] = field(default_factory=list)


def plan_beginning(config: Config, model: ActorCritic, source: Source, normalizers: Normalizers) -> Beginning:
    """What a run takes of a source.

    Args:
        config: The config of the run.
        model: A network as the run will have it.
        source: The source.
        normalizers: Normalisers as the run will have them, for observations and rewards.

    Raises:
        ConfigError: the source does not fit; one line.
    """
    parts = chosen_parts(model, config.init_parts)
    fit = _fit(config, model, source, parts)
    observations = _statistics(source.observations, normalizers[0])
    statistics = _of_observations(config, source, normalizers[0], observations)
    problems = [*fit.meanings, *fit.differences, *statistics]
    if problems and not config.init_from_partial:
        knobs = _differing(config, source) if fit.differences else []
        raise ConfigError(
            f"init_from={config.init_from} does not fit this run: {_some(knobs or problems)}; the same "
            "spaces and network are taken whole, and init_from_partial=true takes what fits"
        )
    if not fit.taken:
        why = _some(fit.differences) if fit.differences else "this network has no weights there"
        raise ConfigError(
            f"init_from={config.init_from} has nothing to take (init_parts={config.init_parts}): {why}"
        )
    rewards = None
    if config.init_parts in ("all", "value"):
        rewards = _statistics(source.rewards, normalizers[1])
    lines = [_taken_words(config, source, fit, observations, rewards)]
    if problems:
        lines.append(f"not taken, or taken for something else: {_some(problems, 8)}")
    lines += _fresh_words(config, source, normalizers, rewards)
    left = frozenset(fit.left_out)
    return Beginning(source.name, fit.taken, left, observations, rewards, tuple(lines))


def whole_beginning(source: Source) -> Beginning:
    """A run's own first checkpoint, to begin with again."""
    return Beginning(source.name, source.weights, frozenset(), source.observations, source.rewards)


def _fit(config: Config, model: ActorCritic, source: Source, parts: Sequence[str]) -> _Fit:
    """Compares weights by name, shape and type, and the knobs that decide what they mean."""
    fit, settings = _Fit(), settings_in(to_dict(config))
    different = _compare(fit, model, source, parts, config.init_parts == "all")
    fit.differences += [f"{printable(name)[:80]} {why}" for name, why in different.items()]
    if not _is_same_task(settings, source):
        _leave_unknown_leaves(fit, different)
    for knob, meant in _MEANINGS.items():
        concerned = [part for part in meant if any(name.split(".")[0] == part for name in fit.taken)]
        if knob == "normalize.values" and not source.settings.get(knob):
            continue  # what is not normalised yet means the same
        if concerned and _differs(knob, settings, source):
            fit.meanings.append(_knob_words(knob, settings, source))
    if not source.is_ours and _reads_bytes(model):
        fit.meanings.append("bytes without a CNN are divided by 255 here, and not there")
    return fit


def _compare(
    fit: _Fit, model: ActorCritic, source: Source, parts: Sequence[str], whole: bool
) -> dict[str, str]:
    """Puts what has the same shape and type into a fit, and gives the names of all else, with why."""
    different, lacking = {}, set()
    parameters = {name for name, _ in model.named_parameters()}
    ours = {name: value for name, value in model.state_dict().items() if name.split(".")[0] in parts}
    for name, own in ours.items():
        given = source.weights.get(name)
        if given is None and name in parameters:
            different[name] = "is missing there"
        elif given is None:
            lacking.add(name)
        elif given.shape != own.shape or given.dtype != own.dtype:
            different[name] = f"is {_form(given)} there and {_form(own)} here"
        else:
            fit.taken[name] = given
    for name in source.weights:
        if name not in ours and (whole or name.split(".")[0] in parts):
            different[name] = "is there alone"
    if not different:  # or else it is another network, rather than an older one
        fit.left_out |= lacking
    return different


def _is_same_task(own: Mapping[str, Any], source: Source) -> bool:
    """Whether the leaves are those there, as far as the two configs say."""
    return all(own[knob] == source.settings.get(knob) for knob in TASK)


def _leave_unknown_leaves(fit: _Fit, different: Collection[str]) -> None:
    """Takes no weights of leaves that may be others: names have their places, and some leaf differs."""
    for prefix in _LISTS:
        named = [name for name in (*fit.taken, *different) if name.startswith(prefix)]
        places = {name.removeprefix(prefix).partition(".")[0] for name in named}
        if len(places) > 1 and any(name in different for name in named):
            for name in named:
                fit.taken.pop(name, None)
            fit.differences.append(f"which leaf of the spaces each of {prefix}* belongs to is not known")


def _reads_bytes(model: ActorCritic) -> bool:
    """Whether a flat encoder scales bytes, or floats in their range, which Stable-Baselines3 does not."""
    encoder = model.encoder
    return isinstance(encoder, FlattenEncoder) and (encoder.full_bytes or encoder.float_scale is not None)


def _differs(knob: str, own: Mapping[str, Any], source: Source) -> bool:
    """Whether a knob that says something of this run's network has another value there."""
    idle = dict.fromkeys(_DEVIATIONS, own["box_policy"] != "gaussian")
    idle["network.log_std_init"] |= own["network.log_std"] == "free"  # which was only where it began
    idle["network.memory_size"] = own["network.memory"] == "none"
    idle["value_loss"] = {own["value_loss"], str(source.settings.get("value_loss"))}.isdisjoint(HEADS)
    if knob not in source.settings or idle.get(knob, False):
        return False
    return bool(own[knob] != source.settings[knob])


def _differing(config: Config, source: Source) -> list[str]:
    """The knobs of the network in which two runs differ."""
    own = settings_in(to_dict(config))
    return [_knob_words(knob, own, source) for knob in SETTINGS if _differs(knob, own, source)]


def _knob_words(knob: str, own: Mapping[str, Any], source: Source) -> str:
    there = printable(flat(_typed(source.settings[knob])))[:80]
    return f"{knob}={there} there and {_typed(own[knob])} here"


def _typed(value: Any) -> str:  # noqa: ANN401
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value).replace(" ", "")


def _form(tensor: Tensor) -> str:
    kind = "" if tensor.dtype == torch.float32 else f" {tensor.dtype}".replace("torch.", "")
    return f"{list(tensor.shape)}{kind}"


def _of_observations(
    config: Config, source: Source, normalizer: ObservationNormalizer | None, taken: Mapping[str, Any] | None
) -> list[str]:
    """What is wrong with the statistics of observations, in words."""
    if not source.is_ours or taken is not None:
        return []
    if source.observations is None:
        return [] if normalizer is None else ["normalize.observations=false there and true here"]
    if normalizer is None:
        return ["normalize.observations=true there and false here"]
    return ["the statistics of observations are of another shape, or damaged"]


def _statistics(
    given: Mapping[str, Any] | None, normalizer: ObservationNormalizer | RewardNormalizer | None
) -> Mapping[str, Any] | None:
    """Statistics that a normaliser can take; None where it can't, or there is none of both."""
    if given is None or normalizer is None:
        return None
    trial = RunningMeanStd(normalizer.statistics.mean.shape)
    try:
        trial.load_state_dict(dict(given))
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None
    return given if 0 < trial.count < float("inf") else None


def _taken_words(
    config: Config,
    source: Source,
    fit: _Fit,
    observations: Mapping[str, Any] | None,
    rewards: Mapping[str, Any] | None,
) -> str:
    kinds = ("observations", observations), ("rewards", rewards)
    statistics = " and ".join(name for name, found in kinds if found is not None)
    parts = dict.fromkeys(name.split(".")[0] for name in fit.taken)
    more = f", statistics of {statistics}" if statistics else ""
    there = source.settings.get("env.id")
    of = f" of {printable(str(there))[:80]}" if there not in (None, config.env.id) else ""
    trained = f" ({source.steps:,} steps{of})" if source.steps else ""
    return f"begins with {printable(source.name)}{trained}: {', '.join(parts)}{more}"


def _fresh_words(
    config: Config, source: Source, normalizers: Normalizers, rewards: Mapping[str, Any] | None
) -> list[str]:
    """Lines on what begins anew although weights do not: statistics, and what gives intrinsic rewards."""
    fresh = ["observations"] if not source.is_ours and normalizers[0] is not None else []
    if normalizers[1] is not None and rewards is None and config.init_parts in ("all", "value"):
        fresh.append("rewards")
    why = "" if source.is_ours else " (those of VecNormalize are a pickle, which is not read)"
    lines = [f"statistics of {' and '.join(fresh)} begin anew{why}"] if fresh else []
    if config.has_intrinsic:
        lines.append(f"intrinsic={config.intrinsic} begins anew: all is new to it")
    return lines


def _some(items: Sequence[str], most: int = NAMED) -> str:
    """The first of several things in words, and how many more there are."""
    more = f", and {len(items) - most:,} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"
