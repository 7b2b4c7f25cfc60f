"""What a search varies: Hydra's sweep overrides as axes, from which a trial of Optuna's draws values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from ppo_cli.config.knob import Integer
from ppo_cli.config.schema import find_knob, is_entry
from ppo_cli.errors import ConfigError

if TYPE_CHECKING:
    import optuna

INTEGERS = (Integer, Union[Integer, str])  # noqa: UP007
NUMBERS = (*INTEGERS, float, Optional[float])  # noqa: UP045
Number = TypeVar("Number", int, float)
DIGITS = 6  # significant ones of a drawn number, so that it can be typed


@dataclass(frozen=True)
class Choice:
    """One of some values, which are not ordered."""

    key: str
    values: tuple[str, ...]

    def suggest(self, trial: "optuna.trial.BaseTrial") -> str:
        """A trial's value, as typed."""
        return str(trial.suggest_categorical(self.key, self.values))

    def ends(self) -> tuple[str, ...]:
        """Every value, to be checked."""
        return self.values


@dataclass(frozen=True)
class Interval:
    """A number between two, both of which are taken; ``step`` apart where that is not None."""

    key: str
    low: float
    high: float
    step: float | None
    log: bool
    integer: bool

    def suggest(self, trial: "optuna.trial.BaseTrial") -> str:
        """A trial's value, as typed."""
        if self.integer:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return str(self._inside(trial.suggest_int(self.key, low, high, step=step, log=self.log)))
        drawn = self._inside(trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log))
        return repr(min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high))

    def _inside(self, value: Number) -> Number:
        """A value that was drawn now, or one from a stored study, which Optuna takes as it is.

        Raises:
            ValueError: it is not in the interval.
        """
        slack = 1e-9 * (self.high - self.low)  # of a stepped interval, whose values are sums of floats
        if not self.low - slack <= value <= self.high + slack:
            raise ValueError(f"{self.key}={value} is not between {self.low} and {self.high}")
        return value

    def ends(self) -> tuple[str, ...]:
        """Both ends, to be checked."""
        integral = self.integer and float(self.low).is_integer() and float(self.high).is_integer()
        return tuple(str(int(end)) if integral else repr(float(end)) for end in (self.low, self.high))


Axis = Choice | Interval


def to_axis(override: Override) -> Axis:
    """The axis of a sweep override: ``choice``, ``range``, ``interval``, ``tag(log, ...)``, or values listed.

    Raises:
        ConfigError: it has no values, has one twice, or is a range of what is no number.
    """
    typed, key, sweep = override.input_line, override.get_key_element(), override.value()
    log = _is_log(override)
    if isinstance(sweep, IntervalSweep):
        return _interval(str(typed), key, sweep, log)
    if isinstance(sweep, RangeSweep) and _may_be_number(key):
        values = list(sweep.range())
        if len(values) > 1:
            return _ordered(str(typed), key, sorted(values), log)
    if log:
        raise ConfigError(f"{typed}: tag(log, ...) needs an interval or a range of a number")
    names = tuple(str(value) for value in override.sweep_string_iterator())
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{typed}: expected values that differ, at least one")
    return Choice(key, names)


def _is_log(override: Override) -> bool:
    tags: set[str] = getattr(override.value(), "tags", set())
    if tags - {"log"}:
        raise ConfigError(f"{override.input_line}: expected tag(log, ...), the only tag that a search knows")
    return bool(tags)


def _interval(typed: str, key: str, sweep: IntervalSweep, log: bool) -> Interval:
    if not _may_be_number(key):
        raise ConfigError(f"{typed}: an interval needs a knob that is a number; list values: choice(A,B)")
    assert sweep.start is not None and sweep.end is not None  # the grammar has both
    low, high = float(sweep.start), float(sweep.end)
    if not low < high or (log and low <= 0):
        order = "0 below LOW below HIGH" if log else "LOW below HIGH"
        raise ConfigError(f"{typed}: expected interval(LOW,HIGH), {order}")
    integer = find_knob(key).kind in INTEGERS or isinstance(sweep.start, int)
    if integer and not (low.is_integer() and high.is_integer()):
        raise ConfigError(f"{typed}: expected an interval between integers")
    return Interval(key, low, high, None, log, integer)


def _may_be_number(key: str) -> bool:
    """Whether a knob is a number, or one of a user's own, such as ``+optimizer_kwargs.weight_decay``."""
    return find_knob(key).kind in NUMBERS or is_entry(key.lstrip("+"))


def _ordered(typed: str, key: str, values: list[Any], log: bool) -> Interval:
    integer = all(isinstance(value, int) for value in values)
    step = values[1] - values[0]
    if log and (step != 1 or not integer or values[0] <= 0):
        raise ConfigError(f"{typed}: a log range takes integers above 0 with a step of 1; or use an interval")
    low, high = float(values[0]), float(f"{values[-1]:.12g}")
    return Interval(key, low, high, None if log else float(f"{step:.12g}"), log, integer)


def axis_from_dict(stored: Mapping[str, Any]) -> Axis:
    """An axis from what ``asdict`` made of it.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    if "values" in stored:
        choice = Choice(stored["key"], tuple(stored["values"]))
        if not choice.values or not all(isinstance(value, str) for value in choice.values):
            raise TypeError("expected words to choose from")
        return choice
    axis = Interval(**stored)
    numbers = [axis.low, axis.high, *([] if axis.step is None else [axis.step])]
    if not (isinstance(axis.log, bool) and isinstance(axis.integer, bool)):
        raise TypeError("expected log and integer to be true or false")
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise TypeError("expected finite numbers")
    if not axis.low < axis.high or (axis.step or 1) <= 0 or (axis.log and axis.low <= 0):
        raise ValueError("expected an interval from a lower to a higher number")
    return axis
