"""Making environments: ids, retired ids, and what is missing said in one line."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import gymnasium as gym
from gymnasium import error
from gymnasium.envs.registration import parse_env_id

from ppo_cli.envs import calls
from ppo_cli.envs.backends import ATARI
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.named import maker_of, newest_version
from ppo_cli.envs.one_of import make_one_of
from ppo_cli.envs.pack import Packed, pack
from ppo_cli.envs.wrappers import ResetArguments, wrap
from ppo_cli.errors import EnvError
from ppo_cli.spaces import Spaces
from ppo_cli.text import flat

EnvFn = Callable[[], "gym.Env[Any, Any]"]

# Well-known ids (how their names look), the package that registers them, and the install that brings it.
_PACKAGES = (
    (ATARI, "ale_py", "pip install 'ppo-cli[atari]'"),
    (re.compile(r"(MiniGrid|BabyAI)-"), "minigrid", "pip install 'ppo-cli[minigrid]'"),
    (re.compile(r"MinAtar/"), "minatar.gym", "pip install 'ppo-cli[minatar]'"),
)
_HOW_TO_NAME = "an id that a package registers is written package:Id, and a VectorEnv module:Name"


def resolve_env_id(env_id: str) -> str:
    """The id that runs when ``env_id`` is asked for: itself, or the newest version of a retired id.

    Args:
        env_id: Any Gymnasium id, ``module:Id`` and ids without a version included; or ``module:name`` of a
            `VectorEnv`, see `ppo_cli.envs.named`.

    Raises:
        EnvError: nothing of that name exists; with Gymnasium's suggestion.
    """
    module, _, name = env_id.rpartition(":")
    _register(module, name)
    if maker_of(env_id) is not None:
        return env_id
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "out of date": the caller reports the successor
            if parse_env_id(name)[2] is None and name not in gym.registry:  # no version: the newest
                name = newest_version(name) or f"{name}-v0"
            spec = gym.spec(name)
    except error.DeprecatedEnv as deprecated:
        successor = newest_version(name)
        if successor is None:
            raise EnvError(f"env.id={env_id}: {flat(deprecated)}") from deprecated
        return _join(module, successor)
    except (error.NameNotFound, error.NamespaceNotFound) as unknown:
        hint = f"nor has {module} a VectorEnv of that name" if module else _HOW_TO_NAME
        raise EnvError(f"env.id={env_id}: {flat(unknown)} ({hint})") from unknown
    except error.Error as malformed:
        raise EnvError(f"env.id={env_id}: {flat(malformed)}") from malformed
    newest = newest_version(spec.id)
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
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    action_mask: bool = False,
    *,
    training: bool = False,
    reset_options: Mapping[str, Any] | None = None,
    seed_below: int | None = None,
    packed: bool = True,
    n_envs: int = 1,
) -> "gym.Env[Any, Any]":
    """One environment in its wrappers: no rendering unless ``kwargs`` asks for it; nested spaces are packed.

    Args:
        env_id: The id that `resolve_env_id` gives.
        kwargs: The arguments of the environment.
        wrappers: The entries as `ppo_cli.envs.wrappers` describes them, the innermost first.
        action_mask: Whether the masks beside the observation become part of it.
        training: Whether wrappers with ``when: train`` are among them.
        reset_options: ``options`` of every reset.
        seed_below: The number modulo which seeds are taken; None leaves them as they are.
        packed: Whether nested spaces are packed and masks join the observation, as training has them.
        n_envs: The number of environments of a vector of which it is one, where there are no single ones.

    Raises:
        EnvError: a package is missing, or the environment or a wrapper refuses its arguments.
    """
    with calling(Call.MAKE):
        env = _make_bare(env_id, kwargs, n_envs)
        if reset_options or seed_below is not None:
            env = ResetArguments(env, reset_options or {}, seed_below)
        try:
            env = wrap(env, wrappers, training)
        except ValueError as refused:
            calls.close(env)
            raise EnvError(f"env.wrappers: {refused}") from refused
        return _pack(env, env_id, action_mask) if packed else env


def with_masks(env: "gym.Env[Any, Any]", env_id: str) -> "gym.Env[Any, Any]":
    """An environment that `make_env` made without its masks in the observation, with them.

    Raises:
        EnvError: its actions are none that masks are for.
    """
    return _pack(env.env if isinstance(env, Packed) else env, env_id, True)


def _pack(env: "gym.Env[Any, Any]", env_id: str, action_mask: bool) -> "gym.Env[Any, Any]":
    try:
        return pack(env, action_mask)
    except ValueError as unsupported:
        calls.close(env)
        raise EnvError(f"env.id={env_id}: {flat(unsupported)}") from unsupported


def spaces_of(make: EnvFn) -> Spaces:
    """The spaces of an environment that is made to see them."""
    with calls.closing(make()) as env:
        return Spaces(env.observation_space, env.action_space)


def env_fn(
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Mapping[str, Any]] = (),
    action_mask: bool = False,
    *,
    training: bool = False,
    reset_options: Mapping[str, Any] | None = None,
    seed_below: int | None = None,
    n_envs: int = 1,
) -> EnvFn:
    """`make_env` with its arguments bound."""
    return partial(
        make_env,
        env_id,
        kwargs,
        wrappers,
        action_mask,
        training=training,
        reset_options=reset_options,
        seed_below=seed_below,
        n_envs=n_envs,
    )


def _make_bare(env_id: str, kwargs: Mapping[str, Any] | None, n_envs: int) -> "gym.Env[Any, Any]":
    module, _, name = env_id.rpartition(":")
    _register(module, name)
    if (maker := maker_of(env_id)) is not None:
        return make_one_of(env_id, maker, n_envs, kwargs or {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an older version was asked for by name
            return gym.make(name, disable_env_checker=True, **dict(kwargs or {}))
    except error.DependencyNotInstalled as missing:
        raise EnvError(f"env.id={env_id} needs a package that is not installed: {flat(missing)}") from missing
    except ImportError as missing:
        hint = f": pip install {missing.name}" if missing.name else ""
        raise EnvError(f"env.id={env_id} can't be imported: {flat(missing)}{hint}") from missing
    except BaseException as refused:  # environments check their arguments in every way there is
        let_interrupt_pass(refused)
        given = f" with env.kwargs={dict(kwargs)}" if kwargs else ""
        reason = f"{type(refused).__name__}: {flat(refused)}"
        raise EnvError(f"env.id={env_id} can't be made{given}: {reason}") from refused


def _register(module: str, name: str) -> None:
    """Imports what registers an id: the module before the colon, or a well-known id's package."""
    if module:
        try:
            import_module(module)
        except ModuleNotFoundError as missing:
            raise EnvError(
                f"env.id={module}:{name}: no module named {missing.name!r}; pip install {missing.name}, "
                "or put your own module on PYTHONPATH"
            ) from missing
        except BaseException as broken:
            let_interrupt_pass(broken)
            raise EnvError(
                f"env.id={module}:{name}: importing {module} raised {type(broken).__name__}: {flat(broken)}"
            ) from broken
        return
    for looks, package, install in _PACKAGES:
        if looks.match(name):
            try:
                found: Any = import_module(package)
            except ModuleNotFoundError as missing:
                raise EnvError(f"env.id={name} needs a package that is not installed: {install}") from missing
            gym.register_envs(found)
            if package == "ale_py":  # else it prints who it is with every process
                found.ALEInterface.setLoggerMode(found.LoggerMode.Error)
            if package == "minatar.gym" and "MinAtar/Breakout-v1" not in gym.registry:
                found.register_envs()


def _join(module: str, name: str) -> str:
    return f"{module}:{name}" if module else name
