"""Making environments: ids, retired ids, and what is missing said in one line."""

import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import parse_env_id

from ppo_cli.envs.packed import pack

EnvFn = Callable[[], "gym.Env[Any, Any]"]

# Packages that register well-known ids, and the install that brings each.
_NAMESPACES = {"ALE": ("ale_py", 'pip install "gymnasium[atari]"')}
_ATARI_NAME = re.compile(r"(NoFrameskip|Deterministic)-v[04]$")


class EnvError(ValueError):
    """An environment can't be made; the message is one line that says why and what to do."""


def resolve_env_id(env_id: str) -> str:
    """The id that runs when ``env_id`` is asked for: itself, or the newest version of a retired id.

    Args:
        env_id: any Gymnasium id, ``module:Id`` and ids without a version included.

    Raises:
        EnvError: nothing of that name exists; with Gymnasium's suggestion.
    """
    module, _, name = env_id.rpartition(":")
    _register(module, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "out of date": the caller reports the successor
            if parse_env_id(name)[2] is None and name not in gym.registry:  # no version: the newest
                name = _newest_version(name) or f"{name}-v0"
            spec = gym.spec(name)
    except error.DeprecatedEnv as deprecated:
        successor = _newest_version(name)
        if successor is None:
            raise EnvError(f"env.id={env_id}: {_one_line(deprecated)}") from deprecated
        return _join(module, successor)
    except (error.NameNotFound, error.NamespaceNotFound) as unknown:
        hint = "" if module else " (an id that a package registers is written package:Id)"
        raise EnvError(f"env.id={env_id}: {_one_line(unknown)}{hint}") from unknown
    except error.Error as malformed:
        raise EnvError(f"env.id={env_id}: {_one_line(malformed)}") from malformed
    newest = _newest_version(spec.id)
    if newest is None or newest == spec.id or not callable(spec.entry_point):
        return _join(module, spec.id)
    try:  # ids like HalfCheetah-v2 are registered with an entry point that only raises
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gym.make(spec.id, disable_env_checker=True).close()
    except ImportError:
        return _join(module, newest)
    return _join(module, spec.id)


def make_env(
    env_id: str, kwargs: Mapping[str, Any] | None = None, action_mask: bool = False
) -> "gym.Env[Any, Any]":
    """One environment as it is trained in: no rendering unless ``kwargs`` asks for it.

    Nested spaces are packed; with ``action_mask`` the masks in ``info`` become part of the observation.

    Raises:
        EnvError: a package is missing, or the environment refuses its arguments.
    """
    module, _, name = env_id.rpartition(":")
    _register(module, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an older version was asked for by name
            env = gym.make(name, disable_env_checker=True, **dict(kwargs or {}))
    except error.DependencyNotInstalled as missing:
        raise EnvError(
            f"env.id={env_id} needs a package that is not installed: {_one_line(missing)}"
        ) from missing
    except ImportError as missing:
        hint = f": pip install {missing.name}" if missing.name else ""
        raise EnvError(f"env.id={env_id} can't be imported: {_one_line(missing)}{hint}") from missing
    except Exception as refused:  # environments check their arguments in every way there is
        given = f" with env.kwargs={dict(kwargs)}" if kwargs else ""
        reason = f"{type(refused).__name__}: {_one_line(refused)}"
        raise EnvError(f"env.id={env_id} can't be made{given}: {reason}") from refused
    try:
        return pack(env, action_mask)
    except ValueError as unsupported:
        raise EnvError(f"env.id={env_id}: {_one_line(unsupported)}") from unsupported


def env_fn(env_id: str, kwargs: Mapping[str, Any] | None = None, action_mask: bool = False) -> EnvFn:
    """`make_env` with its arguments bound."""
    return partial(make_env, env_id, kwargs, action_mask)


def _register(module: str, name: str) -> None:
    """Imports what registers an id: the module before the colon, or a well-known namespace's package."""
    if module:
        try:
            import_module(module)
        except ModuleNotFoundError as missing:
            raise EnvError(
                f"env.id={module}:{name}: no module named {missing.name!r}; pip install {missing.name}, "
                "or put your own module on PYTHONPATH"
            ) from missing
        except Exception as broken:
            raise EnvError(
                f"env.id={module}:{name}: importing {module} raised "
                f"{type(broken).__name__}: {_one_line(broken)}"
            ) from broken
        return
    package = _package_of(name)
    if package is not None:
        try:
            gym.register_envs(import_module(package[0]))
        except ModuleNotFoundError as missing:
            raise EnvError(f"env.id={name} needs a package that is not installed: {package[1]}") from missing


def _package_of(name: str) -> tuple[str, str] | None:
    if _ATARI_NAME.search(name):
        return _NAMESPACES["ALE"]
    return _NAMESPACES.get(name.partition("/")[0]) if "/" in name else None


def _newest_version(name: str) -> str | None:
    """The registered id of the same namespace and name with the highest version."""
    namespace, base, _ = parse_env_id(name)
    versions = [
        spec.version
        for spec in gym.registry.values()
        if spec.namespace == namespace and spec.name == base and spec.version is not None
    ]
    prefix = f"{namespace}/" if namespace else ""
    return f"{prefix}{base}-v{max(versions)}" if versions else None


def _join(module: str, name: str) -> str:
    return f"{module}:{name}" if module else name


def _one_line(exception: BaseException) -> str:
    return " ".join(str(exception).split())
