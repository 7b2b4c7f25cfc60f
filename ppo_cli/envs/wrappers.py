"""Wrappers named in a config: looked up, held against their arguments, and put around an environment.

An entry is a mapping: ``name``, ``when`` (``train`` leaves it out of evaluation) and the wrapper's arguments.
A short name is one of Gymnasium's wrappers or of `ppo_cli.envs.atari`; ``module.Class`` or ``module:Class``
is anybody's own.
"""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from ppo_cli.envs import atari
from ppo_cli.envs.calls import let_interrupt_pass
from ppo_cli.imports import load_class
from ppo_cli.text import flat

Env = gym.Env[Any, Any]
WrapperClass = type[gym.Wrapper[Any, Any, Any, Any]]


def wrap(env: Env, wrappers: Sequence[Mapping[str, Any]], training: bool) -> Env:
    """Puts wrappers around ``env``, the first one innermost.

    Args:
        env: what is wrapped.
        wrappers: entries as above.
        training: whether those with ``when: train`` are among them.

    Raises:
        ValueError: a name is no wrapper's, or a wrapper refuses its arguments or the environment; one line.
    """
    for entry in wrappers:
        arguments = {key: _tupled(value) for key, value in entry.items() if key not in ("name", "when")}
        if training or entry.get("when") != "train":
            env = _construct(env, str(entry["name"]), arguments)
    return env


def find_wrapper(name: str) -> WrapperClass:
    """The class of that name.

    Raises:
        ValueError: there is none; with the nearest spelling of a short name.
    """
    if "." in name.replace(":", "."):
        return load_class(name, gym.Wrapper, (), "wrapper")
    known = short_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{name}: no wrapper of gymnasium.wrappers or ppo-cli{hint} (your own is module.Class)"
        )
    return known[name]


def short_names() -> dict[str, WrapperClass]:
    """The wrappers that need no module: Gymnasium's for single environments, and our own."""
    return {
        name: value
        for module in (gym.wrappers, atari)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gym.Wrapper) and value is not gym.Wrapper
    }


def _construct(env: Env, name: str, arguments: dict[str, Any]) -> Env:
    wrapper = find_wrapper(name)
    try:
        return wrapper(env, **arguments)
    except BaseException as refused:  # wrappers check what they are given in every way there is
        let_interrupt_pass(refused)
        given = f" with {arguments}" if arguments else ""
        reason = f"{type(refused).__name__}: {flat(refused)}"
        raise ValueError(f"{name}{given} can't wrap {_shown(env)}: {reason}") from refused


def _shown(env: Env) -> str:
    """What a wrapper stands on, in a few words."""
    space = " ".join(str(env.observation_space).split())
    return f"an environment with observations {space if len(space) <= 60 else space[:57] + '...'}"


def _tupled(value: Any) -> Any:  # noqa: ANN401
    """YAML knows no tuples, which Gymnasium's wrappers ask for where they take a shape."""
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
