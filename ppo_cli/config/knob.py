"""What the config knows of one knob: its type, range, choices and roles, in the line that declares it."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from typing import TYPE_CHECKING, Any, Optional, Union, get_type_hints

if TYPE_CHECKING:
    Boolean = bool
    Integer = int
else:  # OmegaConf converts to a plain type, and takes a value of a union as it is
    Boolean = Union[bool, bytes]  # noqa: UP007 - a `bool` would take 2, "3" and "yes" for true
    Integer = Union[int, float]  # noqa: UP007 - integral floats (1e6) are welcome; the checks make them int

Duration = Optional[Union[int, float, str]]  # noqa: UP007, UP045 - for OmegaConf on 3.10

UNSET: Any = "???"  # how OmegaConf writes that a value is missing: the defaults are those of conf/config.yaml
_KNOB = "knob"  # where a field's metadata holds it


@dataclass(frozen=True)
class Range:
    """Allowed values of a number: an interval, open at an end where that is said."""

    low: float
    high: float = sys.float_info.max  # finite
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` lies in the interval (NaN does not)."""
        is_above = value > self.low if self.open_low else value >= self.low
        return is_above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        """The interval in words."""
        low = f"{'above' if self.open_low else 'from'} {self.low:.10g}"
        high = f"{'below ' if self.open_high else ''}{self.high:.10g}"
        return low if self.high >= sys.float_info.max else f"{low} to {high}"


@dataclass(frozen=True)
class Knob:
    """A knob, or a section of knobs, whose range and roles hold for every knob in it.

    Attributes:
        kind: The type of its values.
        range: The allowed values of a number, or of each number in a list.
        choices: The allowed words; empty where any is.
        annealed: Whether it can change over a run, so that ``anneal`` has a section for it.
        fixed: Whether it can't change when a run goes on: tensors, environments or schedules are made for it.
        learned: Whether what is learned depends on it, rather than how a run is run.
        searched: Whether a search can vary it, so that its trials can still be compared.
        entries: A word for a key of a user's own, in a section that takes any; nothing elsewhere.
    """

    kind: Any = Any
    range: Range | None = None
    choices: tuple[str, ...] = ()
    annealed: bool = False
    fixed: bool = False
    learned: bool = True
    searched: bool = True
    entries: str = ""


def knob(
    within: Range | None = None,
    *,
    default: Any = UNSET,  # noqa: ANN401
    above: float | None = None,
    low: float | None = None,
    high: float = sys.float_info.max,
    choices: tuple[str, ...] = (),
    annealed: bool = False,
    fixed: bool = False,
    learned: bool = True,
    searched: bool = True,
    entries: str = "",
) -> Any:  # noqa: ANN401
    """A field that is a knob.

    Args:
        within: The allowed values of a number; or they are given by their ends:
        default: The default of a knob that every section of a kind has, so that conf/config.yaml need not
            give it to each of them.
        above: The low end, which is not one of them.
        low: The low end, which is.
        high: The high end; the largest finite number where it is not given.
        choices: The values it may have, as in `Knob`.
        annealed: Whether it may be annealed, as in `Knob`.
        fixed: Whether it is fixed on resume, as in `Knob`.
        learned: Whether it changes what is learned, as in `Knob`.
        searched: Whether a search may choose it, as in `Knob`.
        entries: A word for a key of a user's own, as in `Knob`.
    """
    if above is not None:
        within = Range(above, high, open_low=True)
    elif low is not None:
        within = Range(low, high)
    own = Knob(Any, within, choices, annealed, fixed, learned, searched, entries)
    return field(default=default, metadata={_KNOB: own})


def section(kind: type, **roles: Any) -> Any:  # noqa: ANN401
    """A field that is a section of knobs, a dataclass, with what holds for all of them, as in `Knob`."""
    return field(default_factory=kind, metadata={_KNOB: Knob(**roles)})


def annealed_section(name: str, schema: type, entry: type, module: str) -> type:
    """A dataclass with a section, an ``entry``, for each annealed knob of ``schema``.

    The end of a schedule has the knob's range, and may be its open low end: what is above 0 can go to 0.
    """
    sections = []
    for item in fields(schema):
        own: Knob = item.metadata[_KNOB]
        if own.annealed and own.range is not None:
            ends = replace(own.range, open_low=False, high=min(own.range.high, sys.float_info.max))
            sections.append((item.name, entry, section(entry, range=ends)))
    return make_dataclass(name, sections, namespace={"__module__": module})


def section_of(name: str, module: str, knobs: Mapping[str, tuple[Any, Any]]) -> type:
    """A dataclass of knobs that may be called by words that Python keeps for itself, such as ``return``.

    Args:
        name: The name of the class.
        module: The name of the module that it is a part of.
        knobs: The type of each knob and its field, by the name that is typed.
    """

    def init(self: Any, **values: Any) -> None:  # noqa: ANN401
        vars(self).update({item.name: item.default for item in fields(self)} | values)

    namespace = {
        **{key: made for key, (_, made) in knobs.items()},
        "__annotations__": {key: kind for key, (kind, _) in knobs.items()},
        "__module__": module,
        "__init__": init,
        "__repr__": lambda self: f"{name}({vars(self)})",
        "__eq__": lambda self, other: type(self) is type(other) and vars(self) == vars(other),
        "__hash__": None,
    }
    # what `dataclass` would write for these, it would write with the names as variables
    return dataclass(init=False, repr=False, eq=False)(type(name, (), namespace))


def walk(schema: type, prefix: str = "", above: Knob = Knob()) -> Iterator[tuple[str, Knob]]:
    """Every knob and section of a schema by its dotted name, with what its sections hand down to it."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        own: Knob = item.metadata[_KNOB]
        known = replace(
            own,
            kind=hints[item.name],
            range=own.range or above.range,
            fixed=own.fixed or above.fixed,
            learned=own.learned and above.learned,
            searched=own.searched and above.searched,
        )
        yield f"{prefix}{item.name}", known
        if is_section(known):
            yield from walk(known.kind, f"{prefix}{item.name}.", known)


def is_section(known: Knob) -> bool:
    """Whether it is a section of knobs."""
    return is_dataclass(known.kind)


def describe_type(kind: Any) -> str:  # noqa: ANN401
    """What a knob of that type takes, in words."""
    words = {
        float: "a number",
        Boolean: "true or false",
        str: "a word",
        Integer: "an integer",
        list[Integer]: "a list of integers",
        Optional[list[Integer]]: "a list of integers or null",  # noqa: UP045
        Optional[list[str]]: "a list of words or null",  # noqa: UP045
        list[dict[str, Any]]: "a list of mappings such as {name: NAME, option: value}",
        Optional[float]: "a number or null",  # noqa: UP045
        Optional[Integer]: "an integer or null",  # noqa: UP045
        Optional[str]: "a text or null",  # noqa: UP045
        list[str]: "a list of words",
        Union[Integer, str]: "an integer or auto",  # noqa: UP007
        Union[bool, str]: "true, false or auto",  # noqa: UP007
        Duration: "seconds, a time such as 90s, 30m, 2h or 1d, or null",
        Any: "auto, null, or a list of keys such as [is_success,reward_forward:mean]",
    }
    return words.get(kind, "a mapping")
