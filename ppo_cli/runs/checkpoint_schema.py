"""What a run's checkpoint may say: its fields, their types and ranges, before anything of it is used."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppo_cli.envs.infos import LONGEST_KEY, MOST_FOLLOWED

EVENT_FILE = re.compile(r"events\.out\.tfevents\.[\w.@+-]{1,200}")  # a name in the run's own folder


class SchemaError(ValueError):
    """A field is missing, or of another type or range; the message names it, in a few words."""


@dataclass(frozen=True)
class Maybe:
    """A field that may be missing: older versions did not write it, or a setting leaves it out."""

    rule: Any


@dataclass(frozen=True)
class Each:
    """A mapping whose values all follow one rule."""

    rule: Any


def _count(value: Any) -> bool:  # noqa: ANN401
    """A whole number of at least 0 that a double holds."""
    return type(value) is int and 0 <= value <= 2**53


def _number(value: Any) -> bool:  # noqa: ANN401
    """A number that is not NaN."""
    return type(value) in (int, float) and value == value


def _finite(value: Any) -> bool:  # noqa: ANN401
    """A tensor without NaN or infinity."""
    return isinstance(value, Tensor) and (
        not value.dtype.is_floating_point or bool(torch.isfinite(value).all())
    )


def _event_file(value: Any) -> bool:  # noqa: ANN401
    """The name of an event file, without a folder."""
    return isinstance(value, str) and EVENT_FILE.fullmatch(value) is not None


def _start(value: Any) -> bool:  # noqa: ANN401
    """Where a snapshot of an environment starts, or None."""
    return value is None or isinstance(value, dict)


def _seed(value: Any) -> bool:  # noqa: ANN401
    """A seed of an environment, or None."""
    return value is None or _count(value)


def _tally(value: Any) -> bool:  # noqa: ANN401
    """What `ppo_cli.envs.infos.Tally.state` gives, or None."""
    if not isinstance(value, dict):
        return value is None
    series = value.get("series")
    return (
        _count(value.get("steps"))
        and isinstance(series, dict)
        and len(series) <= MOST_FOLLOWED
        and all(isinstance(name, str) and 0 < len(name) <= LONGEST_KEY for name in series)
        and all(isinstance(numbers, list) and len(numbers) == 6 for numbers in series.values())
        and all(_real(number) for numbers in series.values() for number in numbers)
    )


def _real(value: Any) -> bool:  # noqa: ANN401
    """A truth value, or a finite number that a double holds."""
    return type(value) in (bool, int, float) and abs(value) <= sys.float_info.max


def _finite_number(value: Any) -> bool:  # noqa: ANN401
    """A finite number, or a tensor of them."""
    return _finite(value) or (type(value) in (int, float) and math.isfinite(value))


def _plain(value: Any) -> bool:  # noqa: ANN401
    """A mapping of plain values, without tensors."""
    if isinstance(value, (dict, list)):
        return all(_plain(item) for item in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Tensor)


_STATISTICS = {"mean": _finite_number, "var": _finite_number, "count": _finite_number}
_ENVIRONMENTS = {
    "starts": [_start],
    "actions": [Tensor],
    "observations": Tensor,
    "seeds": [_seed],
    "faults": Tensor,
    "infos": Maybe([_tally]),
}
SCHEMA: dict[str, Any] = {
    "iteration": _count,
    "steps": _count,
    "best": _number,
    "model": Each(_finite),
    "optimizer": Each(_finite),
    "action_generator": Tensor,
    "minibatch_generator": Tensor,
    "generators": {"python": list, "numpy": list, "torch": Tensor, "cuda": [Tensor]},
    "observations": Tensor,
    "memory": Maybe(_finite),
    "episodes": {"returns": _finite, "lengths": Tensor, "cut": Maybe(_count)},
    "snapshot_kind": ("replay", "seed", "anew", "none"),
    "observation_statistics": Maybe(_STATISTICS),
    "reward_statistics": Maybe(_STATISTICS),
    "discounted_returns": Maybe(_finite),
    "log": {"event_file": _event_file, "events": _count, "csv": _count, "infos": Maybe(_count)},
    "config": _plain,
    "versions": Each(str),
}


def check_run(payload: Mapping[str, Any]) -> None:
    """Holds a payload against `SCHEMA`; fields that it does not name are never used.

    Raises:
        SchemaError: the first field that does not follow it.
    """
    _check(payload, SCHEMA, "")
    _check_type(payload["config"], dict, "config")
    environments = payload.get("environments")
    if environments is not None:
        _check(environments, _ENVIRONMENTS, "environments")
        lists = [name for name in ("starts", "actions", "seeds", "infos") if name in environments]
        lengths = {name: len(environments[name]) for name in lists}
        if len(set(lengths.values())) > 1:
            raise SchemaError(f"environments has different numbers of {', '.join(lengths)}")


def _check(value: Any, rule: Any, where: str) -> None:  # noqa: ANN401
    if isinstance(rule, Mapping):
        _check_fields(value, rule, where)
    elif isinstance(rule, Each):
        _check_type(value, dict, where)
        for name, item in value.items():
            _check(item, rule.rule, f"{where}.{name}")
    elif isinstance(rule, list):
        _check_type(value, list, where)
        for number, item in enumerate(value):
            _check(item, rule[0], f"{where}.{number}")
    elif isinstance(rule, tuple):
        if not isinstance(value, str) or value not in rule:
            raise SchemaError(f"its {where} is none of {', '.join(rule)}")
    elif isinstance(rule, type):
        _check_type(value, rule, where)
    elif not rule(value):
        expected = rule.__doc__[0].lower() + rule.__doc__[1:].rstrip(".")
        raise SchemaError(f"its {where} is not {expected}")


def _check_fields(value: Any, rules: Mapping[str, Any], where: str) -> None:  # noqa: ANN401
    _check_type(value, dict, where)
    for name, rule in rules.items():
        place = f"{where}.{name}".lstrip(".")
        if name in value:
            _check(value[name], rule.rule if isinstance(rule, Maybe) else rule, place)
        elif not isinstance(rule, Maybe):
            raise SchemaError(f"it has no {place}")


def _check_type(value: Any, expected: type, where: str) -> None:  # noqa: ANN401
    if not isinstance(value, expected):
        raise SchemaError(f"its {where} is no {expected.__name__}")
