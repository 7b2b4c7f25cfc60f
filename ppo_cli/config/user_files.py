"""A folder of the user's own config files: where Hydra looks for it, and what would be misread in it."""

import codecs
import difflib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ppo_cli.config.convert import register_schema
from ppo_cli.config.overrides import GROUPS
from ppo_cli.config.quoting import hydra_quoted, typed_path
from ppo_cli.config.schema import conf_dir
from ppo_cli.errors import ConfigError
from ppo_cli.files import read_bytes


def with_folder(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Overrides, and the one that makes Hydra look into a user's folder too."""
    return [*overrides, *search_path(overrides, config_dir)]


def search_path(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The override that makes Hydra look into a user's folder too, where there is one.

    Args:
        overrides: The others, which may name such folders themselves.
        config_dir: The folder, as it is typed, or None.

    Raises:
        ConfigError: A folder is none, or one of its files would not be taken for what it is.
    """
    register_schema()
    for override in overrides:
        if override.startswith("hydra.searchpath="):
            _check_search_path(override)
    if config_dir is None:
        return []
    directory = typed_path(config_dir).resolve()
    if not directory.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder")
    _check_folder(directory)
    return [f"hydra.searchpath=[{hydra_quoted(f'file://{directory}')}]"]


def _check_search_path(override: str) -> None:
    """Raises ConfigError where a folder is none, of which Hydra only warns, again and again."""
    with suppress(HydraException):  # parsing it says what is wrong with it
        folders = OverridesParser.create().parse_override(override).value()
        for folder in folders if isinstance(folders, list) else ():
            scheme, separator, path = str(folder).strip("'\"").rpartition("://")
            if (not separator or scheme == "file") and path and not typed_path(path).is_dir():
                raise ConfigError(f"{override}: {path}: no such folder")


def _check_text(file: Path) -> None:
    """Raises ConfigError for what Hydra would take for something else, without a word."""
    data = read_bytes(file)
    if data.startswith(codecs.BOM_UTF8):
        raise ConfigError(f"{file} begins with a byte order mark: save it as UTF-8 without one")
    dotted = re.search(rb"^(?P<section>\w+)\.(?P<key>[\w.]+)\s*:", data, re.MULTILINE)
    if dotted is not None:
        section, key = dotted["section"].decode(), dotted["key"].decode()
        raise ConfigError(f"{file}: a key has no dots; write {section}: and below it, indented, {key}:")


def _near(folder: str) -> str | None:
    """The group of configs whose name a folder's is, or begins with, or nearly is."""
    begun = (known for known in GROUPS if folder.startswith(known))
    return next(begun, next(iter(difflib.get_close_matches(folder, GROUPS, 1, 0.8)), None))


def _check_folder(directory: Path) -> None:
    """Raises ConfigError where files in a user's folder would not be taken."""
    for file in directory.rglob("*.y*ml"):
        name = file.relative_to(directory)
        group = name.parts[0]
        near = _near(group.lower())
        if len(name.parts) > 1 and near is not None and group != near:
            raise ConfigError(f"{file}: {group!r} is no group of configs; did you mean {near!r}?")
        if len(name.parts) > 1 and group == near and file.suffix == ".yml":
            raise ConfigError(f"{file}: a config's name ends in .yaml; rename it")
        if len(name.parts) > 1 and group in GROUPS:
            _check_text(file)
        if (conf_dir() / name).exists():
            raise ConfigError(
                f"{file}: ppo-train has a file of that name, which would be taken; give it another one"
            )
