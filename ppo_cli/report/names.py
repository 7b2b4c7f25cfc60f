"""Names of groups where they have little room: what all share goes first, what differs never."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from ppo_cli.names import MARK, alike, middle_cut
from ppo_cli.runs.new_folder import folder_name

SHORTEST = 6  # letters of a knob that is cut: lea…te


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Names made shorter as far as they must be to fit; each differs from the others as before.

    Of ``knob=value`` pairs the knobs lose their sections (``network.hidden`` is ``hidden``), then their
    middle. Other names lose what all begin and end with. No value is cut: a name may still be too long.

    Args:
        names: The names of groups, no two alike.
        width: The characters that there is room for.
    """
    kept = list(names)
    for attempt in (_without_sections, _with_short_knobs, _without_shared_ends):
        if max(map(len, kept), default=0) <= width:
            break
        shorter = attempt(kept, width)
        if len(set(shorter)) == len(set(kept)):
            kept = shorter
    return kept


def keyed(names: Sequence[str], width: int) -> tuple[list[str], list[str]]:
    """`shortened` names that surely fit, and a key: lines that give a number's whole name.

    A name that is still too long is its number and its values, cut in their middle where there are too many;
    the key is empty where there is none.
    """
    found, key = shortened(names, width), []
    for position, name in enumerate(found):
        if len(name) > width:
            found[position] = _numbered(position, names[position], width)
            key.append(f"#{position + 1}: {names[position]}")
    return found, key


def in_lines(names: Sequence[str], width: int) -> list[str]:
    """`shortened` names, `wrapped`; where a line is still too long, the number that `keyed` has for it."""
    lines = [wrapped(name, width) for name in shortened(names, width)]
    return [
        text
        if max(map(len, text.splitlines()), default=0) <= width
        else _numbered(position, names[position], width)
        for position, text in enumerate(lines)
    ]


def _numbered(position: int, name: str, width: int) -> str:
    """A name's number and its values, cut in their middle."""
    number = f"#{position + 1} "
    values = ",".join(value if sign else knob for knob, sign, value in _pairs(name))
    return number + middle_cut(values, max(width - len(number), 3))


def wrapped(text: str, width: int) -> str:
    """A text in lines that end at blanks, and at commas between knobs."""
    lines = textwrap.wrap(text.replace(",", ", "), width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(", ", ",")


def _pairs(name: str) -> list[tuple[str, str, str]]:
    """``knob=value`` pairs of a name as knob, sign and value; a value may have commas in brackets."""
    return [piece.partition("=") for piece in re.split(r",(?=[\w.]+=)", name)]


def _renamed(names: Sequence[str], knobs: dict[str, str]) -> list[str]:
    return [
        ",".join(
            f"{knobs.get(knob, knob) if sign else knob}{sign}{value}" for knob, sign, value in _pairs(name)
        )
        for name in names
    ]


def _knobs(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(knob for name in names for knob, sign, _ in _pairs(name) if sign))


def _without_sections(names: Sequence[str], width: int) -> list[str]:
    knobs = _knobs(names)
    leaves = {knob: knob.rpartition(".")[2] for knob in knobs}
    return _renamed(names, leaves) if len(set(leaves.values())) == len(knobs) else list(names)


def _with_short_knobs(names: Sequence[str], width: int) -> list[str]:
    knobs = _knobs(names)
    best = list(names)
    for length in range(max(map(len, knobs), default=0) - 1, SHORTEST - 1, -1):
        short = {knob: middle_cut(knob, length) for knob in knobs}
        if len(set(short.values())) < len(knobs):
            break
        best = _renamed(names, short)
        if max(map(len, best)) <= width:
            break
    return best


def _without_shared_ends(names: Sequence[str], width: int) -> list[str]:
    """Names that are no knobs' without what all begin and end with, but for words beside what differs."""
    if len(names) < 2 or all(sign for name in names for _, sign, _ in _pairs(name)):
        return list(names)
    start = alike(names)
    end = alike([name[start:][::-1] for name in names])
    while start and names[0][start - 1].isalnum():  # not into a word or a number
        start -= 1
    while end and names[0][len(names[0]) - end].isalnum():
        end -= 1
    head, tail = MARK if start > 1 else names[0][:start], MARK if end > 1 else names[0][len(names[0]) - end :]
    return [head + name[start : len(name) - end] + tail for name in names]


def file_stems(env_ids: Iterable[str]) -> dict[str, str]:
    """Names of files for environments, of which no two are alike, and none is that of all together."""
    stems: dict[str, str] = {}
    taken = {"all"}
    for env_id in env_ids:
        stem = unique = folder_name(env_id)
        count = 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{stem}_{count}"
        taken.add(unique.casefold())
        stems[env_id] = unique
    return stems
