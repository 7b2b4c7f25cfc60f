"""What a user's config names by its import path: found, held against its arguments, and called."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from ppo_cli.errors import UserCodeError
from ppo_cli.text import flat, nearest

T = TypeVar("T")


def load_object(path: str, names: Sequence[str], what: str, kind: str) -> Any:  # noqa: ANN401
    """What is at ``package.module.thing`` or ``package.module:thing``, a module included.

    Args:
        path: The import path.
        names: The short names that would have been taken too, for the message.
        what: A word for what is looked for, for the message.
        kind: A word for what stands behind ``package.module.`` in the message.

    Raises:
        ValueError: there is none; one line that says why.
    """
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name:
        allowed = " or ".join(filter(None, [", ".join(names), f"package.module.{kind}"]))
        raise ValueError(f"no {what} {path!r}: expected {allowed}{nearest(path, names)}")
    module = _imported(module_name)
    if hasattr(module, name):
        return getattr(module, name)
    if hasattr(module, "__path__") and find_spec(f"{module_name}.{name}") is not None:
        return _imported(f"{module_name}.{name}")
    raise ValueError(f"{module_name} has no {name!r}{nearest(name, vars(module))}")


def load_class(path: str, base: type[T], names: Sequence[str], what: str) -> type[T]:
    """The class at an import path.

    Args:
        path: The import path, as for `load_object`.
        base: The class that it must be a subclass of; nothing else is ever called.
        names: The short names, as for `load_object`.
        what: The word for it, as for `load_object`.

    Raises:
        ValueError: there is none; one line that says why.
    """
    found = load_object(path, names, what, "Class")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{path} is no subclass of {base.__module__}.{base.__name__}")
    return found


def check_options(
    function: Callable[..., Any], name: str, given: Sequence[str], options: Collection[str]
) -> None:
    """Holds options against the arguments that a function takes.

    Its first arguments must have their names, so that a stored config can have nothing called that was not
    written to be called so.

    Args:
        function: The function, which is called with what is ``given``, by position, and the options by name.
        name: The name of the function, for the message.
        given: The names of its first arguments.
        options: The names of the options.

    Raises:
        ValueError: it takes no such option, lacks one, or takes other arguments; one line.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:  # written in C
        raise ValueError(f"{name} does not tell its arguments: expected ({', '.join(given)}, ...)") from error
    parameters = list(signature.parameters.values())
    if list(signature.parameters)[: len(given)] != list(given):
        raise ValueError(f"{name} takes {signature}: expected ({', '.join(given)}, ...)")
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [each.name for each in parameters[len(given) :] if each.kind in named]
    is_open = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    for option in () if is_open else options:
        if option not in taken:
            allowed = ", ".join(taken) or "none"
            raise ValueError(f"{name} takes no option {option!r}: it takes {allowed}{nearest(option, taken)}")
    try:
        signature.bind(*given, **dict.fromkeys(options))
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


@contextmanager
def calling(name: str, options: Mapping[str, Any], tensors: Sequence[Any] = ()) -> Iterator[None]:
    """While something of a config's is called, has it blamed for what is raised.

    Args:
        name: The name of what is called, for the message.
        options: The options that it is given, likewise.
        tensors: that it is given and has to leave as they are.

    Raises:
        UserCodeError: something was raised, or a tensor was changed.
    """
    before = _versions(tensors)
    try:
        yield
    except Exception as error:
        given = f" with {dict(options)}" if options else ""
        raise UserCodeError(f"{name}{given} raised {type(error).__name__}: {flat(error)}") from error
    if _versions(tensors) != before:
        raise UserCodeError(f"{name} changes in place what it is given: expected a pure function; clone() it")


def _versions(tensors: Sequence[Any]) -> list[int]:
    """How often each tensor has been changed in place."""
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def _imported(name: str) -> Any:  # noqa: ANN401
    try:
        return import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module of the user's raises
        raise ValueError(f"importing {name} raised {type(error).__name__}: {flat(error)}") from error
