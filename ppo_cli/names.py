"""Short names for what is listed side by side: what all share is left out, and no two become one."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

MARK = "…"  # stands where a name is cut
LEAST_KEY, LEAST_VALUE = 2, 5  # characters that are left of a knob's name, and then of its value
HEADS = (0.5, 0.25, 0.75, 0.0, 1.0)  # shares of a whole name that stand before the mark, in this order

Parts = Sequence[str]  # of a name, each with the separator before it, as ``,seed=0`` or ``/run``


def split_name(text: str) -> list[str]:
    """The parts of a run's path: folders, the time in a folder's name, and overrides."""
    return re.split(r"(?<!^)(?:(?=/)|(?=,[+~]*[\w.@/]+=)|(?<=_\d\d-\d\d-\d\d)(?=_))", text)


def shared_parts(names: Sequence[Parts]) -> list[str]:
    """What is in every one of several names, without the separators; nothing of a single one."""
    if len(names) < 2:
        return []
    every = set.intersection(*({_bare(part) for part in name} for name in names))
    return [_bare(part) for part in names[0] if _bare(part) in every]


def short_names(
    names: Sequence[Parts],
    width: int | None = None,
    mark: str = MARK,
    shared: Collection[str] | None = None,
) -> list[str]:
    """Names without what all share, at most ``width`` long; of names that differ no two become the same.

    What is too long loses the knobs' sections, then the middle of their names, alike in all rows, then the
    names; then values are cut in the middle, then the whole. Where that leaves two alike, they are numbered.

    Args:
        names: The names of the rows, in parts.
        width: The width in characters, at least the digits of the number of names; None is no bound.
        mark: The mark that stands where a name is cut.
        shared: The parts, without separators, to leave out: None for those that all share. Where only some
            of the rows are named, those that the others share too.
    """
    different = len({tuple(name) for name in names})
    for shown in _candidates(names, width, mark, set(shared_parts(names) if shared is None else shared)):
        if len(set(shown)) == different and (width is None or max(map(len, shown), default=0) <= width):
            return shown
    return _numbered(names, width, mark)


def middle_cut(text: str, width: int, mark: str = MARK, head: float = 0.5) -> str:
    """A text of at most ``width`` characters, with a mark for what is left out of its middle."""
    if len(text) <= width:
        return text
    if width <= len(mark):
        return mark[:width]
    before = math.ceil((width - len(mark)) * head)
    after = width - len(mark) - before
    return text[:before] + mark + text[len(text) - after :]


def alike(names: Sequence[str]) -> int:
    """Number of letters that all begin with."""
    different = (i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1)
    return next(different, min(map(len, names)))


def _candidates(
    names: Sequence[Parts], width: int | None, mark: str, shared: set[str]
) -> Iterator[list[str]]:
    """Ways to name the rows, from the longest to the shortest."""
    own = [[part for part in name if _bare(part) not in shared] or list(name[-1:]) for name in names]
    yield [_join(name) for name in own]
    if width is None:
        return
    own = _without_sections(own)
    yield [_join(name) for name in own]
    parts = {part for name in own for part in name}
    knobs = {_bare(part).partition("=")[0] for part in parts if "=" in part}
    longest = max(map(len, parts), default=0)
    for key in (*range(max(map(len, knobs), default=0) - 1, LEAST_KEY - 1, -1), 0):
        if not key or len({middle_cut(knob, key, mark) for knob in knobs}) == len(knobs):
            yield [_join([_cut(part, key, longest, mark) for part in name]) for name in own]
    for value in range(longest - 1, LEAST_VALUE - 1, -1):
        yield [_join([_cut(part, 0, value, mark) for part in name]) for name in own]
    if own:
        yield _around([_join(name) for name in own], width, mark)
    for head in HEADS:
        yield [middle_cut(_join(name), width, mark, head) for name in own]


def _without_sections(names: Sequence[Parts]) -> list[list[str]]:
    """Names in which knobs stand without their sections, where no two knobs become the same."""
    knobs = {_bare(part).partition("=")[0] for name in names for part in name if "=" in part}
    short = {knob: re.split(r"[+~.]", knob)[-1] for knob in knobs}
    if len(set(short.values())) < len(knobs):
        return [list(name) for name in names]
    return [[_with_knob(part, short) for part in name] for name in names]


def _with_knob(part: str, short: Mapping[str, str]) -> str:
    knob, equals, value = _bare(part).partition("=")
    return f"{_separator(part)}{short[knob]}={value}" if equals else part


def _around(names: Sequence[str], width: int, mark: str) -> list[str]:
    """Names without most of what all begin and end with, between marks."""
    begin = alike(names)
    end = alike([name[begin:][::-1] for name in names])
    room = width - 2 * len(mark) - max(len(name) - begin - end for name in names)
    before = min(begin, max(0, room) // 2)
    after = min(end, max(0, room) - before)
    return [f"{mark}{name[begin - before : len(name) - end + after]}{mark}" for name in names]


def _cut(part: str, key: int, value: int, mark: str) -> str:
    """A part whose knob has at most ``key`` characters (0: none) and whose value, or the whole, ``value``."""
    separator = _separator(part)
    name, equals, rest = _bare(part).partition("=")
    if not (equals and key):
        return separator + middle_cut(rest if equals else name, value, mark)
    return f"{separator}{middle_cut(name, key, mark)}={middle_cut(rest, value, mark)}"


def _numbered(names: Sequence[Parts], width: int | None, mark: str) -> list[str]:
    """Whole names, each behind a number of its own; the same name has the same one."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(map(tuple, names)), 1)}
    digits = len(str(len(numbers)))
    shown = []
    for name in names:
        number, text = f"{numbers[tuple(name)]:{digits}}", _join(name)
        room = len(text) if width is None else width - digits - 1
        shown.append(f"{number} {middle_cut(text, room, mark)}" if room > 0 else number)
    return shown


def _separator(part: str) -> str:
    return part[: len(part) - len(_bare(part))]


def _bare(part: str) -> str:
    return part.lstrip("/,_")


def _join(parts: Parts) -> str:
    return _bare("".join(parts))
