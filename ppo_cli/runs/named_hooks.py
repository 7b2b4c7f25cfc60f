"""The hooks of a user's: those that a config names, and objects that come from Python."""

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from ppo_cli.config.schema import Config, ConfigError
from ppo_cli.hooks import Hook, UserHook, guarded
from ppo_cli.import_path import load_class
from ppo_cli.text import flat


class Ready(NamedTuple):
    """A hook that comes with this package.

    Attributes:
        path: Its import path.
        module: The module that it needs, which an extra of the same name as the hook brings.
    """

    path: str
    module: str


READY: dict[str, Ready] = {}


def check_hooks(config: Config) -> None:
    """Holds the hooks that a config names against their classes, which are imported for it.

    Raises:
        ConfigError: One can't be made so; one line that says why.
    """
    for entry in config.hooks:
        name, options = _parts(entry)
        try:
            inspect.signature(_class(name)).bind(**options)
        except TypeError as error:
            raise ConfigError(f"hooks: {name}: {flat(error)}; it takes {_signature(name)}") from None


def make_hooks(config: Config, objects: Sequence[Hook]) -> list[UserHook]:
    """The hooks of a user's, those that the config names first.

    Args:
        config: The run's.
        objects: Hooks from Python.

    Raises:
        ConfigError: One can't be made, or is none.
        HookError: A constructor raises.
    """
    hooks = []
    for number, entry in enumerate(config.hooks):
        name, options = _parts(entry)
        hook = guarded(_class(name), (), options, name, "__init__", (config.seed, 0, number))
        hooks.append(UserHook(hook, name, config.seed, number))
    for number, hook in enumerate(objects, len(hooks)):
        if not isinstance(hook, Hook):
            raise ConfigError(
                f"hooks: expected objects of subclasses of ppo_cli.Hook, given {flat(repr(hook))}"
            )
        hooks.append(UserHook(hook, _path_of(type(hook)), config.seed, number))
    return hooks


def hook_names(config: Config, objects: Sequence[Hook]) -> list[str]:
    """What a checkpoint calls the hooks that `make_hooks` would make."""
    return [_parts(entry)[0] for entry in config.hooks] + [_path_of(type(hook)) for hook in objects]


def _path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _parts(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a hook, with dots, and its options."""
    return str(entry["name"]).replace(":", "."), {key: v for key, v in entry.items() if key != "name"}


def _class(name: str) -> type[Hook]:
    ready = READY.get(name)
    if ready is not None and find_spec(ready.module) is None:
        raise ConfigError(f"hooks: {name} needs a package: pip install 'ppo-cli[{name}]'")
    try:
        return load_class(ready.path if ready else name, Hook, list(READY), "hook")
    except ValueError as error:
        raise ConfigError(f"hooks: {flat(error)}") from None


def _signature(name: str) -> str:
    """The options that a hook takes, in words."""
    parameters = inspect.signature(_class(name)).parameters.values()
    return ", ".join(map(str, parameters)) or "no options"
