"""What a user chooses of a comparison: thresholds, the baseline, the groups' names and their order."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gymnasium import registry

from ppo_cli.errors import ConfigError
from ppo_cli.report.comparison import Comparison, Summary, compare
from ppo_cli.report.groups import RunGroup, called
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
        order: The order of the groups, as it is typed.
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


class Members(NamedTuple):
    """The groups of one environment, and their new names by their old ones."""

    groups: Sequence[RunGroup]
    labels: Mapping[str, str]

    def relabelled(self) -> list[RunGroup]:
        """The groups with their new names.

        Raises:
            ChoiceError: two would have one name.
        """
        found = [
            dataclasses.replace(group, name=self.labels.get(group.name, group.name)) for group in self.groups
        ]
        names = [group.name for group in found]
        if twins := [name for name in names if names.count(name) > 1]:
            raise ChoiceError(f"--labels: two groups would be called {twins[0]}")
        return found

    def name_of(self, option: str, typed: str) -> str | None:
        """The name, new where it has one, of the group that is called as typed; None where none is.

        Raises:
            ChoiceError: several are.
        """
        found = [self.labels.get(group.name, group.name) for group in called(typed, self.groups)]
        if len(found) > 1:
            raise ChoiceError(f"{option} {typed}: could be {' or '.join(found)}")
        return found[0] if found else typed if typed in self.labels.values() else None


def compare_groups(environments: Mapping[str, Sequence[RunGroup]], choices: Choices) -> list[Comparison]:
    """A comparison of each environment's groups, named and ordered as chosen.

    A name is looked up among the groups of each environment: where one of them anneals, the name without it
    may be another's elsewhere.

    Raises:
        ChoiceError: A choice names no group, or two alike.
    """
    labels = [_split(text, environments.values()) for text in choices.labels]
    members = [Members(groups, _new_names(labels, groups)) for groups in environments.values()]
    baselines = _names_of("--baseline", choices.baseline, members)
    elsewhere = next((name for name in baselines if name is not None), None)  # a note says where it is not
    orders = _orders(choices.order, members)
    found = []
    for env_id, named, baseline, order in zip(environments, members, baselines, orders, strict=True):
        all_of_them = choices.thresholds.get(None, reward_threshold(env_id))
        threshold = choices.thresholds.get(env_id, all_of_them)
        comparison = compare(env_id, named.relabelled(), threshold, baseline or elsewhere, choices.window)
        found.append(ordered(comparison, order))
    return found


def reward_threshold(env_id: str) -> float | None:
    """What Gymnasium's registry calls solved; an environment of another package is not imported to ask."""
    return registry[env_id].reward_threshold if env_id in registry else None


def _split(typed: str, environments: Iterable[Sequence[RunGroup]]) -> tuple[str, str]:
    """The group and its new name, of ``GROUP=NAME``, where both may hold further ``=``.

    Raises:
        ChoiceError: there is no such group, or no new name.
    """
    environments = list(environments)
    places = [place for place, letter in enumerate(typed) if letter == "="]
    for place in reversed(places):
        head, label = typed[:place], typed[place + 1 :].strip()
        if any(called(head, groups) for groups in environments):
            if not label:
                raise ChoiceError(f"--labels {typed}: the new name is empty")
            return head, shown(label.replace("->", ARROW))
    raise ChoiceError(f"--labels {typed}: expected GROUP=NAME; there are {_names(environments)}")


def _new_names(labels: Iterable[tuple[str, str]], groups: Sequence[RunGroup]) -> dict[str, str]:
    return {group.name: label for head, label in labels for group in called(head, groups)}


def _names_of(option: str, typed: str | None, members: Sequence[Members]) -> list[str | None]:
    """The name in each environment of the group that is called as typed; None where there is none.

    Raises:
        ChoiceError: there is none in any.
    """
    if typed is None:
        return [None] * len(members)
    found = [named.name_of(option, typed) for named in members]
    if all(name is None for name in found):
        raise ChoiceError(
            f"{option} {typed}: no such group; there are {_names(named.groups for named in members)}"
        )
    return found


def _orders(typed: str, members: Sequence[Members]) -> list[str | list[str]]:
    """For each environment `BY_VALUE`, `BY_IQM`, or the names of a list with semicolons.

    Raises:
        ChoiceError: it names no group.
    """
    if typed in (BY_VALUE, BY_IQM):
        return [typed] * len(members)
    names = [name.strip() for name in typed.split(";") if name.strip()]
    if not names:
        raise ChoiceError(f"--order {typed}: expected value, iqm, or names of groups with ; between them")
    found = [_names_of("--order", name, members) for name in names]
    return [[name for name in column if name is not None] for column in zip(*found, strict=True)]


def ordered(comparison: Comparison, order: str | Sequence[str]) -> Comparison:
    """A comparison with its groups in an order: by IQM the highest first; named ones before all others."""
    if order == BY_VALUE:
        return comparison

    def place(summary: Summary) -> float:
        if order == BY_IQM:
            return -float(summary.iqm.value)
        return order.index(summary.group.name) if summary.group.name in order else len(order)

    return dataclasses.replace(comparison, summaries=tuple(sorted(comparison.summaries, key=place)))


def _names(environments: Iterable[Sequence[RunGroup]]) -> str:
    return "; ".join(dict.fromkeys(group.name for groups in environments for group in groups))
