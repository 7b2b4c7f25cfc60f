"""What was trained: the knobs in a run's config.yaml by dotted name, as they are typed."""

import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from ppo_cli.config.convert import dotted, from_stored, to_dict
from ppo_cli.config.schema import KL, find_knob
from ppo_cli.envs.backends import backend
from ppo_cli.files import printable, read_yaml
from ppo_cli.report.broken import LARGEST, MOST_KNOBS, MOST_STEPS, BrokenRunError

ARROW = "→"
NUMBER = re.compile(r"((?:(?<![\w.])-)?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")
ANNEALS = "anneal."  # the section of how knobs change over a run: anneal.KNOB.final, .shape and .warmup
LONGEST_NAME = 200  # characters of a value, and of a group's name, as it is shown


def read_config(path: Path) -> dict[str, str]:
    """Every knob of a config.yaml by dotted name, as it is typed."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:  # a ValueError is also what a date or a number raises that is none
        config = yaml.load(read_yaml(path), loader)
    except OSError:
        raise
    except Exception as error:  # a tag of YAML's may lead to anything
        raise BrokenRunError("config.yaml is no YAML") from error
    if not isinstance(config, dict) or not isinstance(config.get("env"), dict):
        raise BrokenRunError("config.yaml is not that of a run")
    given = config.get("vectorization")
    if given is not None and backend(str(given)).steps == backend("auto").steps:  # to the same bits
        config["vectorization"] = "auto"
    if isinstance(source := config.get("init_from"), str):  # where it lies says nothing of what was taken
        config["init_from"] = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    if isinstance(hooks := config.get("hooks"), list):  # those of a user's own may change what is learned
        config["hooks"] = [hook for hook in hooks if _is_own(hook)]
    knobs = {shown(name): shown(_typed(value)) for name, value in dotted(config)}
    if len(knobs) > MOST_KNOBS:
        raise BrokenRunError(f"config.yaml has {len(knobs):,} values, more than any run's")
    return knobs


def _is_own(hook: Any) -> bool:  # noqa: ANN401
    """Whether a hook goes by an import path, and not by the word of a tracker that comes with us."""
    return not isinstance(hook, dict) or bool(re.search(r"[.:]", str(hook.get("name"))))


def shown(text: str) -> str:
    """A text as it can be printed and drawn; a long one ends in a hash."""
    plain = printable(text)
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}_{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _typed(value: Any) -> str:  # noqa: ANN401
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(_typed(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_typed(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(value)


def learned(knobs: Mapping[str, str]) -> dict[str, str]:
    """The knobs that matter; not the shape of an annealing that there is none of.

    A config of an older version has the knobs that are younger at their defaults, as where it goes on.
    """
    every = {**_defaults(), **knobs}
    idle = {shape for shape in every if shape.endswith(".shape") and _is_idle(every, shape)}
    return {name: value for name, value in every.items() if _is_learned(name) and name not in idle}


@functools.cache
def _defaults() -> dict[str, str]:
    """Every knob's default, as it is typed."""
    return {name: _typed(value) for name, value in dotted(to_dict(from_stored({"env": {"id": "any"}})))}


def _is_idle(knobs: Mapping[str, str], shape: str) -> bool:
    """Whether an ``anneal.KNOB.shape`` is that of no annealing: it has no end, and needs one."""
    ends = f"{shape.removesuffix('.shape')}.final"
    return shape.startswith(ANNEALS) and knobs.get(ends) == "null" and knobs[shape] != KL


def _is_learned(name: str) -> bool:
    return name != "env.id" and find_knob(name).learned


def needed(knobs: Mapping[str, str], name: str) -> str:
    """A knob that every run's config has."""
    if name not in knobs:
        raise BrokenRunError(f"config.yaml has no {name}")
    return knobs[name]


def whole(knobs: Mapping[str, str], name: str) -> int:
    """A knob that is a whole number in every run's config."""
    value = number(needed(knobs, name))
    if value is None or not abs(value) < MOST_STEPS:
        raise BrokenRunError(f"{name} in config.yaml is no number: {knobs[name]}")
    return int(value)


def number(value: str) -> float | None:
    """A knob's value as a number that can be drawn, or None."""
    try:
        parsed = float(value)
    except ValueError:
        return None
    return parsed if parsed == 0 or 1 / LARGEST <= abs(parsed) <= LARGEST else None


def annealed(knobs: Mapping[str, str], name: str) -> str:
    """How a knob changes over a run: ``→0``, ``→0 cosine warmup 0.1``, ``→kl``, or nothing."""
    final, shape, warmup = (
        knobs.get(f"{ANNEALS}{name}.{what}", default)
        for what, default in (("final", "null"), ("shape", "linear"), ("warmup", "0.0"))
    )
    words = [final, *([] if shape == "linear" else [shape])] if final != "null" else []
    words = [KL] if shape == KL else words
    words += [] if number(warmup) == 0 else [f"warmup {warmup}"]
    return f"{ARROW}{' '.join(words)}" if words else ""


def annealed_knob(name: str, names: Collection[str]) -> str | None:
    """The knob that a ``anneal.KNOB.final``, ``.shape`` or ``.warmup`` is of, if there is one."""
    section, _, rest = name.partition(".")
    knob, _, what = rest.rpartition(".")
    return (
        knob if f"{section}." == ANNEALS and what in ("final", "shape", "warmup") and knob in names else None
    )


def order_of(value: str) -> list[tuple[bool, float, str]]:
    """A key by which values sort: the numbers in them as numbers, before what is none."""
    parts = []
    for part in filter(None, (part.strip("[]") for part in re.split(NUMBER, value))):
        parsed = number(part)
        parts.append((parsed is None, 0.0 if parsed is None else parsed, part))
    return parts
