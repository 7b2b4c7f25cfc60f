"""Classes that a user's YAML names by their import path."""

from collections.abc import Sequence
from importlib import import_module
from typing import TypeVar

from ppo_cli.text import flat, nearest

T = TypeVar("T")


def load_class(path: str, base: type[T], names: Sequence[str], what: str) -> type[T]:
    """The class at ``package.module.Class`` or ``package.module:Class``.

    Args:
        path: where it is.
        base: what it must be a subclass of; nothing else is ever called.
        names: short names that would have been taken too, for the message.
        what: what is looked for, for the message.

    Raises:
        ValueError: there is none; one line that says why.
    """
    module_name, _, class_name = path.replace(":", ".").rpartition(".")
    if not module_name:
        hint = nearest(path, names)
        raise ValueError(f"no {what} {path!r}: expected {', '.join(names)} or package.module.Class{hint}")
    try:
        module = import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module of the user's raises
        raise ValueError(f"importing {module_name} raised {type(error).__name__}: {flat(error)}") from error
    if not hasattr(module, class_name):
        raise ValueError(f"{module_name} has no {class_name!r}{nearest(class_name, vars(module))}")
    found = getattr(module, class_name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{path} is no subclass of {base.__module__}.{base.__name__}")
    return found
