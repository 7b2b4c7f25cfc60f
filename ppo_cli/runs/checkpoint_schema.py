"""What a run's checkpoint holds: its fields, and their types and ranges before anything of it is used."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, get_args

import torch
from torch import Tensor

from ppo_cli.envs.infos import LONGEST_KEY, MOST_FOLLOWED
from ppo_cli.envs.snapshot import SnapshotKind

EVENT_FILE = re.compile(r"events\.out\.tfevents\.[\w.@+-]{1,200}")  # a name in the run's own folder


class SchemaError(ValueError):
    """A field is missing, or of another type or range; the message names it, in a few words."""


@dataclass(frozen=True)
class Maybe:
    """What may be missing or None: older versions did not write it, or a setting leaves it out."""

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


def _positive(value: Any) -> bool:  # noqa: ANN401
    """A finite number above 0."""
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


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


def _plain_mapping(value: Any) -> bool:  # noqa: ANN401
    """A mapping of plain values, without tensors."""
    return isinstance(value, dict) and all(map(_plain, value.values()))


def _plain(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, (dict, list)):
        return all(map(_plain, value.values() if isinstance(value, dict) else value))
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
_KINDS = ("replay", "seed", "anew", "none")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at the end of an iteration, as its file holds it: tensors and plain values.

    Attributes:
        iteration: The number of iterations that have ended.
        steps: The number of environment steps so far.
        best: The highest mean return of an evaluation so far.
        model: The weights by name.
        optimizer: The optimiser's state by name.
        action_generator: The state of the generator that actions are drawn with.
        minibatch_generator: The state of the generator that minibatches are drawn with.
        generators: The states of the global generators, which environments may share.
        observations: The observations that the next actions are of.
        memory: The network's memory states there; older versions wrote none.
        episodes: The running episodes' returns and lengths.
        environments: The snapshots of the environments, or None where they can't be brought back.
        snapshot_kind: The way in which the environments are brought back.
        observation_statistics: The observation normaliser's statistics, where there is one.
        reward_statistics: The reward normaliser's statistics, where there is one.
        discounted_returns: The reward normaliser's running returns, where there is one.
        log: The names and the lengths of the log's files.
        config: The run's config.
        versions: The versions of what computed it.
        steered: The values of the knobs that the update steers itself; older versions wrote none.
        hooks: The names and the states of the user's hooks, in the order in which they are told.
        stopped: Why a hook stopped the run; empty where none did.
        own_hooks: The states of the run's own hooks that keep one, by name.
    """

    iteration: Annotated[int, _count]
    steps: Annotated[int, _count]
    best: Annotated[float, _number]
    model: Annotated[Mapping[str, Tensor], Each(_finite)]
    optimizer: Annotated[Mapping[str, Tensor], Each(_finite)]
    action_generator: Annotated[Tensor, Tensor]
    minibatch_generator: Annotated[Tensor, Tensor]
    generators: Annotated[
        Mapping[str, Any], {"python": list, "numpy": list, "torch": Tensor, "cuda": [Tensor]}
    ]
    observations: Annotated[Tensor, Tensor]
    memory: Annotated[Tensor | None, _finite] = None
    episodes: Annotated[Mapping[str, Any], {"returns": _finite, "lengths": Tensor, "cut": Maybe(_count)}]
    environments: Annotated[Mapping[str, Any] | None, Maybe(_ENVIRONMENTS)]
    snapshot_kind: Annotated[SnapshotKind, _KINDS]
    observation_statistics: Annotated[Mapping[str, Any] | None, _STATISTICS] = None
    reward_statistics: Annotated[Mapping[str, Any] | None, _STATISTICS] = None
    discounted_returns: Annotated[Tensor | None, _finite] = None
    log: Annotated[
        Mapping[str, Any],
        {
            "event_file": _event_file,
            "events": _count,
            "csv": _count,
            "columns": Maybe(_count),
            "infos": Maybe(_count),
        },
    ]
    config: Annotated[Mapping[str, Any], _plain_mapping]
    versions: Annotated[Mapping[str, str], Each(str)]
    steered: Annotated[Mapping[str, float], Each(_positive)] = field(default_factory=dict)
    hooks: Annotated[Sequence[Mapping[str, Any]], [{"name": str, "state": dict}]] = field(
        default_factory=list
    )
    stopped: Annotated[str, str] = field(default_factory=str)
    own_hooks: Annotated[Mapping[str, Any], Each(dict)] = field(default_factory=dict)

    @classmethod
    def checked(cls, payload: Mapping[str, Any]) -> "Checkpoint":
        """The checkpoint that a file holds; what is none of its fields is left out.

        Raises:
            SchemaError: the first field that is missing, of another type or out of range.
        """
        found = {each.name: payload[each.name] for each in fields(cls) if each.name in payload}
        for each in fields(cls):
            if each.name in found:
                _check(found[each.name], get_args(each.type)[1], each.name)
            elif each.default is MISSING and each.default_factory is MISSING:
                raise SchemaError(f"it has no {each.name}")
        _check_lengths(found["environments"] or {})
        return cls(**found)

    def payload(self) -> dict[str, Any]:
        """The fields by name, as a file holds them: without those that have their default."""
        held = ((each, getattr(self, each.name)) for each in fields(self))
        return {each.name: value for each, value in held if not _is_default(each, value)}


def _is_default(each: "Field[Any]", value: Any) -> bool:  # noqa: ANN401
    return not value if each.default_factory is not MISSING else value is None and each.default is None


def _check_lengths(environments: Mapping[str, Any]) -> None:
    lists = [name for name in ("starts", "actions", "seeds", "infos") if name in environments]
    lengths = {name: len(environments[name]) for name in lists}
    if len(set(lengths.values())) > 1:
        raise SchemaError(f"environments has different numbers of {', '.join(lengths)}")


def _check(value: Any, rule: Any, where: str) -> None:  # noqa: ANN401
    if isinstance(rule, Maybe):
        if value is not None:
            _check(value, rule.rule, where)
    elif isinstance(rule, Mapping):
        _check_fields(value, rule, where)
    elif isinstance(rule, Each):
        _check_type(value, dict, where)
        for name, item in value.items():
            _check(item, rule.rule, f"{where}.{name}")
    elif isinstance(rule, list):
        _check_type(value, list, where)
        for number, item in enumerate(value):
            _check(item, rule[0], f"{where}.{number}")
    else:
        _check_leaf(value, rule, where)


def _check_leaf(value: Any, rule: Any, where: str) -> None:  # noqa: ANN401
    if isinstance(rule, tuple):
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
        place = f"{where}.{name}"
        if name in value:
            _check(value[name], rule.rule if isinstance(rule, Maybe) else rule, place)
        elif not isinstance(rule, Maybe):
            raise SchemaError(f"it has no {place}")


def _check_type(value: Any, expected: type, where: str) -> None:  # noqa: ANN401
    if not isinstance(value, expected):
        raise SchemaError(f"its {where} is no {expected.__name__}")
