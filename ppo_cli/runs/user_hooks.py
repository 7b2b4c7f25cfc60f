"""The hooks of a user's: those that a config names, and objects that come from Python."""

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError
from ppo_cli.hooks import Hook, UserHook, guarded
from ppo_cli.import_path import load_class
from ppo_cli.text import flat, nearest


class Ready(NamedTuple):
    """A hook that comes with this package.

    Attributes:
        path: The import path of it.
        modules: The modules that it needs, which an extra of the same name as the hook brings.
    """

    path: str
    modules: tuple[str, ...]


READY = {
    "wandb": Ready("ppo_cli.runs.trackers.WandbHook", ("wandb",)),
    "mlflow": Ready("ppo_cli.runs.trackers.MlflowHook", ("mlflow", "sqlalchemy", "alembic")),
}


def check_hooks(config: Config) -> None:
    """Holds the hooks that a config names against their classes, which are imported for it.

    Raises:
        ConfigError: One can't be made so; one line that says why.
    """
    for entry in config.hooks:
        name, options = _parts(entry)
        _check_shards(_class(name), name, config.shards)
        try:
            inspect.signature(_class(name)).bind(**options)
        except TypeError as error:
            takes = list(inspect.signature(_class(name)).parameters)
            hint = "".join(nearest(each, takes) for each in options if each not in takes)
            raise ConfigError(
                f"hooks: {name}: {flat(error)}; it takes {', '.join(takes) or 'no options'}{hint}"
            ) from None


def make_hooks(config: Config, objects: Sequence[Hook]) -> list[UserHook]:
    """The hooks of a user's: those that the config names, objects, and those that come with this package.

    The last ones log, and what the others add to the scalars too.

    Args:
        config: The config of the run.
        objects: Hooks from Python.

    Raises:
        ConfigError: One can't be made, or is none.
        UserCodeError: A constructor raises.
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
        _check_shards(type(hook), _name_of(type(hook)), config.shards)
        hooks.append(UserHook(hook, _name_of(type(hook)), config.seed, number))
    return sorted(hooks, key=lambda hook: hook.name in READY)


def _check_shards(kind: type[Hook], name: str, shards: int) -> None:
    """Raises ConfigError for a hook that is to be told of whole rollouts, where a run has parts of one."""
    for method in ("after_rollout", "before_update"):
        if shards > 1 and getattr(kind, method) is not getattr(Hook, method):
            raise ConfigError(
                f"hooks: {name} has {method}, and shards={shards} has no rollout in one piece; use shards=1"
            )


def hook_names(config: Config, objects: Sequence[Hook]) -> list[str]:
    """What a checkpoint calls the hooks that `make_hooks` would make."""
    names = [_parts(entry)[0] for entry in config.hooks] + [_name_of(type(hook)) for hook in objects]
    return sorted(names, key=lambda name: name in READY)


def _name_of(kind: type) -> str:
    """The import path of a class, or the word for one of ours."""
    path = f"{kind.__module__}.{kind.__qualname__}"
    return next((word for word, ready in READY.items() if ready.path == path), path)


def _parts(entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a hook, with dots, and its options."""
    return str(entry["name"]).replace(":", "."), {key: v for key, v in entry.items() if key != "name"}


def _class(name: str) -> type[Hook]:
    ready = READY.get(name)
    if ready is not None and not all(map(find_spec, ready.modules)):
        raise ConfigError(f"hooks: {name} needs a package: pip install 'ppo-cli[{name}]'")
    try:
        return load_class(ready.path if ready else name, Hook, list(READY), "hook")
    except ValueError as error:
        raise ConfigError(f"hooks: {flat(error)}") from None
