"""What a config from a file makes this process import: said in a line, or refused (docs/trust.md)."""

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError

ADDRESSES = ("tracking_uri", "entity")  # options of hooks that say where a run is sent
WRITERS = {"RecordVideo": ("video_folder", "name_prefix")}  # wrappers that write, and what says where to


def imports(config: Config, source: object, trains: bool = True, typed: Collection[str] = ()) -> list[str]:
    """Lines on the modules that a stored config has imported, to be said before they are, and on trackers.

    Args:
        config: The config from a file that others may have written.
        source: The path of that file.
        trains: Whether the update and the hooks are built too, and not the policy alone.
        typed: The knobs that the user has typed now, beside the file: what they name is the user's word.

    Raises:
        ConfigError: it names a module of Python's own, or a wrapper that would write outside this folder.
    """
    named: dict[str, str] = {}
    training = _of_training(config) if trains else ()
    sent = [
        (entry["name"], entry[key]) for entry in config.hooks for key in ADDRESSES if key in entry and trains
    ]
    for path, knob in (*_import_paths(config), *training):
        module = _module(path, knob)
        if knob in typed or (module == "__main__" and not trains):  # the program's own, which runs already
            continue
        if _is_pythons(module) or "__main__" in module.split("."):
            raise ConfigError(
                f"{source} has {knob}={path}: {module} is a module of Python's own, or a program; "
                "expected one that has environments, wrappers, encoders, losses, optimizers, intrinsic "
                f"rewards or hooks, or {knob} given anew where it is yours"
            )
        named.setdefault(module, f"{knob}={path}")
    _check_writers(config, source)
    lines = [f"importing {module}, which {source} names ({setting})" for module, setting in named.items()]
    return lines + [
        f"the run is sent to {place}, which {source} names (hooks={name})" for name, place in sent
    ]


def check_names(config: Config) -> None:
    """Raises ConfigError where a module of the user's has a name that no stored config may import."""
    for path, knob in (*_import_paths(config), *_of_training(config)):
        module = _module(path, knob)
        if _is_pythons(module):
            name = module.partition(".")[0]
            raise ConfigError(
                f"{knob}={path}: {name} is the name of a module of Python's own, which no run that is saved "
                "may import; give yours another name"
            )


def _module(path: str, knob: str) -> str:
    return path.rpartition(":")[0] if knob == "env.id" else path.replace(":", ".").rpartition(".")[0]


def _is_pythons(module: str) -> bool:
    return module.partition(".")[0] in (*sys.stdlib_module_names, "test") and module != "__main__"


def _import_paths(config: Config) -> Iterator[tuple[str, str]]:
    """Every import path in a config that environments and policies need, and the knob that holds it."""
    if ":" in config.env.id:
        yield config.env.id, "env.id"
    for entry in config.env.wrappers:
        yield from _if_path(entry["name"], "env.wrappers")
    yield from _encoder_paths(config.network.encoders, "network.encoders")
    yield from _encoder_paths(config.network.critic.encoders, "network.critic.encoders")


def _encoder_paths(tree: Mapping[str, Any], knob: str) -> Iterator[tuple[str, str]]:
    """Those of a tree of encoders, whose keys are nested where the observation's are."""
    for key, value in tree.items():
        name = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(name, str):
            yield from _if_path(name, f"{knob}.{key}")
        elif isinstance(value, Mapping):
            yield from _encoder_paths(value, f"{knob}.{key}")


def _of_training(config: Config) -> Iterator[tuple[str, str]]:
    """The import paths that only training needs."""
    yield from _if_path(config.objective, "objective")
    yield from _if_path(config.value_loss, "value_loss")
    for entry in config.extra_losses:
        yield from _if_path(entry["name"], "extra_losses")
    yield from _if_path(config.optimizer, "optimizer")
    yield from _if_path(config.intrinsic, "intrinsic")
    for entry in config.hooks:
        yield from _if_path(entry["name"], "hooks")


def _if_path(name: str, knob: str) -> Iterator[tuple[str, str]]:
    if "." in name or ":" in name:
        yield name, knob


def _check_writers(config: Config, source: object) -> None:
    for entry in config.env.wrappers:
        name = str(entry["name"]).replace(":", ".").rpartition(".")[2]
        for argument in WRITERS.get(name, ()):
            path = Path(str(entry.get(argument, "")))
            if not path.resolve().is_relative_to(Path.cwd().resolve()):  # links resolved
                raise ConfigError(
                    f"{source} has a {name} with {argument}={path}, outside the current folder: type "
                    "env.wrappers=[...] yourself if you trust it"
                )
