"""Knobs that are set and do nothing, because of what others are set to: each in a line at the start."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import yaml
from gymnasium import spaces

from ppo_cli.config.schema import KL, KNOBS, AnnealConfig, Config, conf_dir
from ppo_cli.files import read_yaml
from ppo_cli.spaces import PackedActions, PackedObservations, image_layout
from ppo_cli.text import flat


class _Rule(NamedTuple):
    """Knobs that do nothing where something holds, and why."""

    knobs: tuple[str, ...]
    is_idle: Callable[[Config], bool]
    why: str


LOG_STD = tuple(f"network.{name}" for name in ("log_std", "log_std_init", "log_std_min", "log_std_max"))


def _is_shapeless(curve: AnnealConfig) -> bool:
    """Whether a knob goes nowhere, so that no shape says how."""
    return curve.final is None and curve.shape != KL


_RULES = (
    _Rule(("sde_sample_freq",), lambda c: not c.use_sde, "use_sde=false"),
    _Rule(
        ("network.memory_size", "network.sequence_length"),
        lambda c: c.network.memory == "none",
        "network.memory=none",
    ),
    _Rule(
        ("normalize.clip",),
        lambda c: not (c.normalize.observations or c.normalize.rewards),
        "normalize.observations=false and normalize.rewards=false",
    ),
    _Rule(LOG_STD, lambda c: c.box_policy != "gaussian", "only box_policy=gaussian has deviations"),
    _Rule(("action_bins",), lambda c: c.box_policy != "categorical", "box_policy is not categorical"),
    _Rule(
        ("network.layer_norm",),
        lambda c: not (c.network.hidden_sizes or c.network.critic.hidden_sizes),
        "network.hidden_sizes=[]",
    ),
    _Rule(("network.layer_norm",), lambda c: c.network.trunk == "simba", "simba's blocks have their own"),
    _Rule(
        ("clip_ratio", "anneal.clip_ratio.final", "anneal.clip_ratio.warmup"),
        lambda c: c.objective == "kl_penalty",
        "objective=kl_penalty has no clip range (losses/clipfrac alone is counted by it)",
    ),
    _Rule(
        (
            "intrinsic_kwargs",
            "intrinsic_coef",
            "intrinsic_gamma",
            "anneal.intrinsic_coef.final",
            "anneal.intrinsic_coef.warmup",
            "anneal.intrinsic_gamma.final",
            "anneal.intrinsic_gamma.warmup",
        ),
        lambda c: not c.has_intrinsic,
        "intrinsic=none",
    ),
    _Rule(
        ("vf_clip_ratio", "value_loss", "value_lambda", "normalize.values"),
        lambda c: not (c.vf_coef or c.anneal.vf_coef.final),
        "vf_coef=0",
    ),
    _Rule(
        ("desired_kl", "learning_rate_min", "learning_rate_max"),
        lambda c: not c.adapts_learning_rate,
        f"anneal.learning_rate.shape is not {KL}",
    ),
    _Rule(
        ("anneal.learning_rate.final",),
        lambda c: c.adapts_learning_rate,
        f"anneal.learning_rate.shape={KL} ends where it leads",
    ),
    _Rule(
        ("anneal.learning_rate.shape",),
        lambda c: c.adapts_learning_rate and c.n_epochs * c.minibatches == 1,
        "n_epochs=1 with one minibatch, which is taken before the policy has moved",
    ),
    _Rule(("stop.window",), lambda c: getattr(c.stop, "return") is None, "stop.return=null"),
    _Rule(("init_from_partial", "init_parts"), lambda c: c.init_from is None, "init_from=null"),
    *(
        _Rule(
            (f"anneal.{knob}.shape",),
            lambda c, knob=knob: _is_shapeless(getattr(c.anneal, knob)),  # type: ignore[misc]
            f"anneal.{knob}.final=null",
        )
        for knob, known in KNOBS.items()
        if known.annealed
    ),
)


def idle_notices(config: Config, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> list[str]:
    """Lines on the knobs that have another value than by default, and no effect.

    Args:
        config: The config of the run.
        observations: The space of its environment's observations, packed where they are nested.
        actions: The space of its actions, likewise.
    """
    rules = list(_RULES)
    parts = actions.parts if isinstance(actions, PackedActions) else (actions,)
    if not any(isinstance(part, spaces.Box) for part in parts):
        shown = flat(getattr(actions, "original", actions))
        why = f"no Box among the actions {shown}"
        rules.append(_Rule(LOG_STD, lambda _: True, why))
    leaves = (
        [leaf.space for leaf in observations.leaves]
        if isinstance(observations, PackedObservations)
        else [observations]
    )
    if all(image_layout(leaf) is None for leaf in leaves):
        rules.append(_Rule(("network.image_encoder",), lambda _: True, "no image among the observations"))
    return list(_lines(config, rules))


def _lines(config: Config, rules: list[_Rule]) -> Iterator[str]:
    for rule in rules:
        for knob in rule.knobs:
            value = _value(config, knob)
            if value != _value(default_values(), knob) and rule.is_idle(config):
                yield f"{knob}={value} does nothing: {rule.why}"


@functools.cache
def default_values() -> Any:  # noqa: ANN401
    """What conf/config.yaml says, read by the loader in C, which takes a tenth of OmegaConf's time."""
    found = yaml.load(read_yaml(conf_dir() / "config.yaml"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    of_curves = {each.name: each.default for each in fields(AnnealConfig)}  # which it need not give to each
    found["anneal"] = {knob: {**of_curves, **curve} for knob, curve in found["anneal"].items()}
    return found


def _value(section: Any, knob: str) -> Any:  # noqa: ANN401
    for name in knob.split("."):
        section = section[name] if isinstance(section, dict) else getattr(section, name)
    return section
