"""Numbers that environments tell in ``info``, such as `is_success` or the parts of a reward.

They are gathered where an environment is stepped, and become one number a key when an episode ends, so that
workers send no infos. What an info holds is anybody's: nothing in it ends a run.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ppo_cli.envs.calls import let_interrupt_pass

How = Literal["auto", "last", "mean", "sum"]
Wanted = Mapping[str, How] | None  # keys, and what becomes of their values over an episode; None: found out

NOTHING: Wanted = MappingProxyType({})
MOST_FOLLOWED = 256  # keys of an environment
MOST_LOGGED = 50  # of a run
LONGEST_KEY = 100  # characters
LARGEST = 1e30  # so that sums stay within the 32 bits that TensorBoard keeps
LARGEST_SUM = 3e38  # of those 32 bits
DEEPEST = 3  # dicts in dicts
# What wrappers and libraries put there for agents and loops, or that says nothing of how well one acts.
NOT_OWN = frozenset(
    (
        "episode", "TimeLimit.truncated", "final_obs", "final_observation", "final_info",
        "terminal_observation", "bad_transition", "active_mask", "action_mask", "action_masks", "lives",
        "frame_number", "episode_frame_number", "seeds", "prob",
    )
)  # fmt: skip


def parse_keys(keys: Sequence[str]) -> Mapping[str, How]:
    """Keys as they are typed, ``key`` or ``key:mean``, which `ppo_cli.config.schema` has checked."""
    parts = [key.rpartition(":") for key in keys]
    return {key or how: how if key else "auto" for key, _, how in parts}  # type: ignore[misc]


class Series:
    """The numbers that one key had in a running episode.

    Attributes:
        total: The sum of those that count, which are finite and not beyond `LARGEST`.
        count: How many those are.
        seen: The steps that had a number at all.
        last: The newest that counts.
        at: The step that it is of.
        is_state: Whether its mean over steps says little: a truth value, or a success.
    """

    __slots__ = ("at", "count", "is_state", "last", "seen", "total")

    def __init__(self, values: Iterable[float] = (0.0, 0, 0, 0.0, 0, False)) -> None:
        self.total, self.count, self.seen, self.last, self.at, self.is_state = values

    def reduced(self, how: How, steps: int) -> float | None:
        """One number for an episode of so many steps; None where there is none."""
        if how == "auto":
            how = "mean" if self.seen == steps and not self.is_state else "last"
        value = {"last": self.last, "mean": self.total / max(self.count, 1), "sum": self.total}[how]
        return value if self.count and -LARGEST_SUM <= value <= LARGEST_SUM else None


class Tally:
    """The infos of one environment: those of the running episode, and the numbers of those that ended.

    Attributes:
        ended: The numbers of each episode that ended, by key.
    """

    def __init__(self, wanted: Wanted) -> None:
        """Follows the keys that are wanted."""
        self.ended: list[dict[str, float]] = []
        self._wanted = wanted
        self._series: dict[str, Series] = {}
        self._began: int | None = 0  # the step before the episode's first; None: not all of it was seen

    def add(self, info: Mapping[Any, Any], step: int, prefix: str = "", depth: int = 0) -> None:
        """Takes in what a step told.

        Args:
            info: The info of the step, or a mapping in it.
            step: The number of the step.
            prefix: The prefix of the keys, where it is a mapping in it.
            depth: The number of mappings it lies in.
        """
        try:
            self._add(info, step, prefix, depth)
        except BaseException as error:  # a mapping may be of any class
            let_interrupt_pass(error)

    def _add(self, info: Mapping[Any, Any], step: int, prefix: str, depth: int) -> None:
        for key, value in info.items():
            name = f"{prefix}{key}" if prefix else key
            if isinstance(value, dict):
                if depth < DEEPEST and isinstance(name, str):
                    self.add(value, step, f"{name}.", depth + 1)
                continue
            series = self._series.get(name)
            if series is None and not self._is_followed(name):
                continue
            number = value if value.__class__ is float else as_number(value)
            if number is None:
                continue
            if series is None:
                is_state = isinstance(value, (bool, np.bool_)) or "success" in name.lower()
                series = self._series[str.__str__(name)] = Series((0.0, 0, 0, 0.0, 0, is_state))
            series.seen += 1
            if -LARGEST <= number <= LARGEST:  # which a NaN is not
                series.total += number
                series.count += 1
                series.last, series.at = number, step

    def _is_followed(self, name: Any) -> bool:  # noqa: ANN401
        """Whether a key that has no series yet gets one."""
        return len(self._series) < MOST_FOLLOWED and is_wanted(name, self._wanted)

    def end(self, step: int) -> None:
        """Ends the episode with that step: its numbers wait in `ended`."""
        if self._series and self._began is not None:
            numbers = self._reduced(step)
            if numbers:
                self.ended.append(numbers)
        self.forget(step)

    def _reduced(self, step: int) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for name, series in self._series.items():
            how: How = "auto"
            if self._wanted is not None:
                if name not in self._wanted:
                    continue
                how = self._wanted[name]
            steps = step - (self._began or 0)
            if self._wanted is None and not (series.at == step or series.seen == steps):
                continue  # the last step does not tell it
            value = series.reduced(how, steps)
            if value is not None:
                numbers.setdefault(plain_key(name), value)
        return numbers

    def forget(self, step: int) -> None:
        """Drops the running episode; the next one begins after that step."""
        self._series, self._began = {}, step

    def state(self, step: int) -> dict[str, Any] | None:
        """The running episode as plain values, after that step; None where not all of it was seen."""
        if self._began is None or self._wanted == NOTHING:
            return None
        series = {
            name: [each.total, each.count, each.seen, each.last, each.at - self._began, each.is_state]
            for name, each in self._series.items()
        }
        return {"steps": step - self._began, "series": series}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Goes on from `state`; the next step is number 1."""
        self._series, self._began = {}, None
        if state is not None:
            self._began = -state["steps"]
            for name, values in state["series"].items():
                self._series[name] = each = Series(values)
                each.at += self._began


def is_wanted(name: Any, wanted: Wanted) -> bool:  # noqa: ANN401
    """Whether a key is one of those that are wanted; where none is named, one of the environment's own."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_KEY:
        return False
    if wanted is not None:
        return name in wanted
    return not (name.startswith("_") or name in NOT_OWN or name.partition(".")[0] in NOT_OWN)


def as_number(value: Any) -> float | None:  # noqa: ANN401
    """A truth value, a number or an array without axes as a float; None for anything else."""
    try:
        if isinstance(value, (float, int)):  # NumPy's usual numbers too: first, because it is quick
            return float(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return float(value) if value.ndim == 0 and value.dtype.kind in "biuf" else None
        if getattr(value, "shape", None) == ():  # of other libraries
            return float(value)
    except BaseException as error:  # an integer that is too large, or whatever a class of its own does
        let_interrupt_pass(error)
    return None


def plain_key(name: str) -> str:
    """A key as a column and a tag can have it: letters of ASCII, digits, and ``_ . - /``."""
    return re.sub(r"[^\w./-]", "_", name, flags=re.ASCII)


def mean_over(episodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each key over the episodes that have it, the keys in alphabetical order."""
    values: dict[str, list[float]] = {}
    for numbers in episodes:
        for key, value in numbers.items():
            values.setdefault(key, []).append(value)
    return {key: math.fsum(each) / len(each) for key, each in sorted(values.items())}
