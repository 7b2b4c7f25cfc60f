"""Knobs that are set and do nothing, because of what others are set to: each in a line at the start."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml
from gymnasium import spaces

from ppo_cli.config.schema import KNOBS, Config, conf_dir
from ppo_cli.files import read_yaml
from ppo_cli.spaces import PackedActions, PackedObservations, image_layout
from ppo_cli.text import flat


class _Rule(NamedTuple):
    """Knobs that do nothing where something holds, and why."""

    knobs: tuple[str, ...]
    is_idle: Callable[[Config], bool]
    why: str


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
    _Rule(
        ("eval.seed", "eval.deterministic", "eval.max_steps"),
        lambda c: not c.eval.episodes,
        "eval.episodes=0",
    ),
    _Rule(("network.layer_norm",), lambda c: not c.network.hidden_sizes, "network.hidden_sizes=[]"),
    _Rule(
        ("clip_ratio", "anneal.clip_ratio.final"),
        lambda c: c.objective == "kl_penalty",
        "objective=kl_penalty has no clip range (losses/clipfrac alone is counted by it)",
    ),
    _Rule(("init_from_partial", "init_parts"), lambda c: c.init_from is None, "init_from=null"),
    _Rule(("vf_clip_ratio",), lambda c: not (c.vf_coef or c.anneal.vf_coef.final), "vf_coef=0"),
    *(
        _Rule(
            (f"anneal.{knob}.shape",),
            lambda c, knob=knob: getattr(c.anneal, knob).final is None,  # type: ignore[misc]
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
        rules.append(_Rule(("network.log_std", "network.log_std_init"), lambda _: True, why))
    leaves = (
        [leaf.space for leaf in observations.leaves]
        if isinstance(observations, PackedObservations)
        else [observations]
    )
    if all(image_layout(leaf) is None for leaf in leaves):
        rules.append(_Rule(("network.image_encoder",), lambda _: True, "no image among the observations"))
    return list(_lines(config, rules))


def _lines(config: Config, rules: list[_Rule]) -> Iterator[str]:
    defaults = _defaults()
    for rule in rules:
        for knob in rule.knobs:
            value = _value(config, knob)
            if value != _value(defaults, knob) and rule.is_idle(config):
                yield f"{knob}={value} does nothing: {rule.why}"


@functools.cache
def _defaults() -> Any:  # noqa: ANN401
    """What conf/config.yaml says, read by the loader in C, which takes a tenth of OmegaConf's time."""
    return yaml.load(read_yaml(conf_dir() / "config.yaml"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _value(section: Any, knob: str) -> Any:  # noqa: ANN401
    for name in knob.split("."):
        section = section[name] if isinstance(section, dict) else getattr(section, name)
    return section
