"""Overrides as Hydra reads them: a command line's, each read once, and those of values given in Python."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ppo_cli.config.quoting import hydra_quoted, typed_path
from ppo_cli.config.schema import KNOBS
from ppo_cli.errors import ConfigError

FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "init_from")  # what has a path as its value
TARGETS = ("resume", "sweep.resume")  # what to go on with; the value is a path as it is typed, no Hydra's
AUTO = "auto"
GROUPS = ("env", "network", "experiment", "search")  # folders of conf/ of which one file is chosen
_BARE = re.compile(
    r"[A-Za-z_]([\w./-]|:(?=\w))*", re.ASCII
)  # a text that needs no quotes, if it is no number
_OTHER_THAN_TEXT = ("null", "true", "false", "inf", "nan")
_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)


@dataclass(frozen=True)
class CommandLine:
    """What is typed after a command's name, but for its options.

    Attributes:
        typed: The overrides as they are typed, but for those that name what to go on with.
        overrides: The same in Hydra's terms: what chooses a preset is rewritten by `expand_preset`.
        targets: The texts that name what to go on with, by their key, ``resume`` or ``sweep.resume``.
    """

    typed: list[Override]
    overrides: list[Override]
    targets: dict[str, list[str]]

    @property
    def goes_on(self) -> bool:
        """Whether ``resume=auto`` is typed: begin, or go on with what is there."""
        return AUTO in self.targets["resume"]

    @property
    def words(self) -> list[str]:
        """The overrides in Hydra's terms as texts."""
        return [text_of(override) for override in self.overrides]


def read_line(words: Sequence[str]) -> CommandLine:
    """Reads a command line's overrides.

    Raises:
        ConfigError: One can't be read, or ``preset`` is anything but ``none`` or ``auto``.
    """
    targets: dict[str, list[str]] = {name: [] for name in TARGETS}
    rest = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in TARGETS:
            targets[key].append(AUTO if value.strip("'\"") == AUTO else value)
        else:
            rest.append(read_override(word))
    return CommandLine(rest, expand_preset(rest), targets)


def read_override(word: str) -> Override:
    """One override; a path that Hydra's grammar would refuse (``~/x``, ``it's``) is put in its quotes.

    Raises:
        ConfigError: It can't be read.
    """
    parser = OverridesParser.create()
    key, _, value = word.partition("=")
    try:
        return parser.parse_override(word)
    except HydraException as error:
        if key in FOLDERS:
            listed = ",".join(each if each == "null" else hydra_quoted(each) for each in _listed(value))
            return parser.parse_override(f"{key}={listed}")
        raise ConfigError(
            f"can't read {word!r}: expected KEY=VALUE, in quotes where the shell would take a character; "
            f"{' '.join(str(error).split())}"
        ) from error


def _listed(value: str) -> list[str]:
    """The paths of a list with commas, which their names may have in them too; or the value alone."""
    pieces, found = value.split(","), []
    while pieces:
        ends = range(len(pieces), 0, -1)
        end = next((end for end in ends if _is_choice(",".join(pieces[:end]))), None)
        if end is None:
            return [value]
        found.append(",".join(pieces[:end]))
        pieces = pieces[end:]
    return found


def _is_choice(text: str) -> bool:
    """Whether a text is ``null``, or a path where something lies, a checkpoint's name behind it or not."""
    with suppress(OSError, ValueError):  # of what can be no path
        return text == "null" or any(
            typed_path(each).exists() for each in (text, re.sub(r":[\w@]+$", "", text)) if each
        )
    return False


def text_of(override: Override) -> str:
    """The override as Hydra takes it."""
    return str(override.input_line)


def expand_preset(overrides: Sequence[Override]) -> list[Override]:
    """Rewrites what chooses a preset into Hydra's own terms.

    ``env=ID`` is a choice of the optional group ``env``: the id, and its preset where there is a file.
    ``preset=none`` makes it ``env.id=ID``; an ``env.id=ID`` without ``env=`` loads no preset: ``~env``.

    Raises:
        ConfigError: ``preset`` is anything but ``none`` or ``auto``.
    """
    presets = [text_of(override) for override in overrides if override.key_or_group == "preset"]
    rest = [override for override in overrides if override.key_or_group != "preset"]
    for preset in presets:
        if preset not in ("preset=none", "preset=auto"):
            raise ConfigError(
                f"{preset}: expected none (plain defaults) or auto (the environment's own, if there is one); "
                "for the preset of another environment, type env=OTHER env.id=ID"
            )
    if presets and presets[-1] == "preset=none":
        rest = [_without_preset(override) for override in rest]
        if not {"env.id", "experiment"} & {override.key_or_group for override in rest}:
            rest.append(read_override("env.id=CartPole-v1"))
    keys = {override.key_or_group for override in rest if not override.is_delete()}
    if "env.id" in keys and "env" not in keys:
        rest.append(read_override("~env"))
    return rest


def _without_preset(override: Override) -> Override:
    if override.key_or_group != "env" or override.is_delete():
        return override
    return read_override(f"env.id={text_of(override).partition('=')[2]}")


def override_texts(key: str, value: object) -> list[str]:
    """The overrides that set a knob, a section or a group's choice to a value of Python's.

    A text stands for itself, ``${...}`` too. Of a knob that takes keys of a user's own, such as
    ``env.kwargs``, each entry is set on its own.

    Args:
        key: Dotted, such as ``eval.episodes``.
        value: A number, a text or path, None, or a list or mapping of such.

    Raises:
        ConfigError: The value has something else in it.
    """
    if isinstance(value, Mapping) and key in KNOBS and KNOBS[key].entries:
        return list(_entries(key, value))
    return [f"{key}={_text(key, value)}"]


def _entries(key: str, value: Mapping[Any, Any]) -> Iterator[str]:
    """An override for each entry; of a mapping with the places of a Tuple's elements, for each of its own."""
    has_places = key.startswith(("network.encoders", "network.critic.encoders"))
    for name, item in value.items():
        below = f"{key}.{name if _is_place(name) and has_places else _key(key, name)}"
        if has_places and isinstance(item, Mapping) and any(map(_is_place, item)):
            yield from _entries(below, item)
        else:
            yield f"++{below}={_text(key, item)}"


def _is_place(name: object) -> bool:
    return str(name).isdecimal()


def _text(key: str, value: Any) -> str:  # noqa: ANN401
    """A value in Hydra's grammar."""
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PathLike)):
        text = str(fspath(value))
        is_plain = _BARE.fullmatch(text) and text.lower() not in _OTHER_THAN_TEXT
        return text if is_plain else hydra_quoted(text)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_text(key, item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_key(key, name)}:{_text(key, item)}' for name, item in value.items())}}}"
    raise ConfigError(
        f"{key}: expected a number, a text, true, false or null, or a list or mapping of such, "
        f"given {type(value).__name__}"
    )


def _key(key: str, name: object) -> str:
    if isinstance(name, str) and _KEY.fullmatch(name) and name.lower() not in _OTHER_THAN_TEXT:
        return name
    raise ConfigError(
        f"{key}: expected keys of letters, digits, - and _ that begin with a letter, given {name!r}"
    )
