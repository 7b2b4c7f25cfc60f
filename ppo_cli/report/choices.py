"""What a user chooses of a comparison: thresholds, the baseline, the groups' names and their order."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from gymnasium import registry

from ppo_cli.errors import ConfigError
from ppo_cli.report.comparison import Comparison, Summary, compare
from ppo_cli.report.groups import RunGroup
from ppo_cli.report.knobs import ARROW, shown
from ppo_cli.report.statistics import WINDOW

BY_VALUE, BY_IQM = "value", "iqm"


class ChoiceError(ConfigError):
    """A choice names no environment or no group, or two alike; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is compared, and how it is called.

    Attributes:
        baseline: The group that the others are held against; None for the first.
        thresholds: The return to reach, by environment; of None, for all that have none of their own.
        scales: The returns whose scores are 0 and 1, by environment.
        window: The number of logged returns that are averaged.
        labels: New names of groups, of ``GROUP=NAME``.
        order: The order of the groups, as `order_of` takes it.
    """

    baseline: str | None = None
    thresholds: Mapping[str | None, float] = dataclasses.field(default_factory=dict)
    scales: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    window: int = WINDOW
    labels: Sequence[str] = ()
    order: str = BY_VALUE

    def check(self, environments: Collection[str]) -> None:
        """Raises ChoiceError where an environment is named that there are no runs on."""
        named = [("--threshold", env_id) for env_id in self.thresholds if env_id is not None]
        for option, env_id in [*named, *(("--normalize", env_id) for env_id in self.scales)]:
            if env_id not in environments:
                raise ChoiceError(
                    f"{option} {env_id}=: no run on {env_id}; there are runs on {', '.join(environments)}"
                )


def compare_groups(environments: Mapping[str, Sequence[RunGroup]], choices: Choices) -> list[Comparison]:
    """A comparison of each environment's groups, named and ordered as chosen.

    Raises:
        ChoiceError: A choice names no group, or two alike.
    """
    groups = [group for members in environments.values() for group in members]
    labels = labels_of(choices.labels, groups)
    baseline = choices.baseline
    if baseline is not None:
        baseline = name_of("--baseline", baseline, groups, labels)
    order = order_of(choices.order, groups, labels)
    found = []
    for env_id, members in environments.items():
        all_of_them = choices.thresholds.get(None, reward_threshold(env_id))
        threshold = choices.thresholds.get(env_id, all_of_them)
        comparison = compare(env_id, relabelled(members, labels), threshold, baseline, choices.window)
        found.append(ordered(comparison, order))
    return found


def reward_threshold(env_id: str) -> float | None:
    """What Gymnasium's registry calls solved; an environment of another package is not imported to ask."""
    return registry[env_id].reward_threshold if env_id in registry else None


def labels_of(typed: Sequence[str], groups: Sequence[RunGroup]) -> dict[str, str]:
    """New names by the names that groups have, of ``GROUP=NAME``, where both may hold further ``=``.

    Raises:
        ChoiceError: there is no such group, or two of one environment would have one name.
    """
    labels: dict[str, str] = {}
    for text in typed:
        places = [place for place, letter in enumerate(text) if letter == "="]
        splits = ((text[:place], text[place + 1 :].strip()) for place in reversed(places))
        label, called = next(
            ((label, called) for head, label in splits if (called := _called(head, groups))), ("", [])
        )
        if not called:
            raise ChoiceError(f"--labels {text}: expected GROUP=NAME; there are {_names(groups)}")
        if not label:
            raise ChoiceError(f"--labels {text}: the new name is empty")
        labels |= dict.fromkeys(called, shown(label.replace("->", ARROW)))
    return labels


def relabelled(groups: Sequence[RunGroup], labels: Mapping[str, str]) -> list[RunGroup]:
    """The groups of an environment with their new names.

    Raises:
        ChoiceError: two would have one name.
    """
    found = [dataclasses.replace(group, name=labels.get(group.name, group.name)) for group in groups]
    names = [group.name for group in found]
    if twins := [name for name in names if names.count(name) > 1]:
        raise ChoiceError(f"--labels: two groups would be called {twins[0]}")
    return found


def name_of(option: str, typed: str, groups: Sequence[RunGroup], labels: Mapping[str, str]) -> str:
    """The name, new where it has one, of the group that is called as typed.

    Raises:
        ChoiceError: there is no such group.
    """
    called = _called(typed, groups)
    if called:
        return labels.get(called[0], called[0])
    if typed in labels.values():
        return typed
    raise ChoiceError(f"{option} {typed}: no such group; there are {_names(groups)}")


def order_of(typed: str, groups: Sequence[RunGroup], labels: Mapping[str, str]) -> str | list[str]:
    """`BY_VALUE`, `BY_IQM`, or the names of a list with semicolons.

    Raises:
        ChoiceError: it names no group.
    """
    if typed in (BY_VALUE, BY_IQM):
        return typed
    names = [name.strip() for name in typed.split(";") if name.strip()]
    if not names:
        raise ChoiceError(f"--order {typed}: expected value, iqm, or names of groups with ; between them")
    return [name_of("--order", name, groups, labels) for name in names]


def ordered(comparison: Comparison, order: str | Sequence[str]) -> Comparison:
    """A comparison with its groups in an order: by IQM the highest first; named ones before all others."""
    if order == BY_VALUE:
        return comparison

    def place(summary: Summary) -> float:
        if order == BY_IQM:
            return -float(summary.iqm.value)
        return order.index(summary.group.name) if summary.group.name in order else len(order)

    return dataclasses.replace(comparison, summaries=tuple(sorted(comparison.summaries, key=place)))


def _called(typed: str, groups: Iterable[RunGroup]) -> list[str]:
    return list(dict.fromkeys(group.name for group in groups if group.is_called(typed)))


def _names(groups: Iterable[RunGroup]) -> str:
    return "; ".join(dict.fromkeys(group.name for group in groups))
