"""What a user chooses of the groups: their names, and their order."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.groups import Group
from ppo_cli.report.knobs import ARROW, shown

BY_VALUE, BY_IQM = "value", "iqm"


class ChoiceError(ValueError):
    """A choice names no group, or two alike; the message is one line."""


def labels_of(typed: Sequence[str], groups: Sequence[Group]) -> dict[str, str]:
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


def relabelled(groups: Sequence[Group], labels: Mapping[str, str]) -> list[Group]:
    """The groups of an environment with their new names.

    Raises:
        ChoiceError: two would have one name.
    """
    found = [dataclasses.replace(group, name=labels.get(group.name, group.name)) for group in groups]
    names = [group.name for group in found]
    if twins := [name for name in names if names.count(name) > 1]:
        raise ChoiceError(f"--labels: two groups would be called {twins[0]}")
    return found


def name_of(option: str, typed: str, groups: Sequence[Group], labels: Mapping[str, str]) -> str:
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


def order_of(typed: str, groups: Sequence[Group], labels: Mapping[str, str]) -> str | list[str]:
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


def _called(typed: str, groups: Iterable[Group]) -> list[str]:
    return list(dict.fromkeys(group.name for group in groups if group.is_called(typed)))


def _names(groups: Iterable[Group]) -> str:
    return "; ".join(dict.fromkeys(group.name for group in groups))
