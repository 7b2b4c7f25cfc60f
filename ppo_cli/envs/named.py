"""Environments of which there are vectors alone: an import path's, a registered id's, one lent by Python."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from sys import modules
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import parse_env_id
from gymnasium.vector import VectorEnv, VectorWrapper

from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.errors import EnvError
from ppo_cli.text import flat

Vectors = VectorEnv[Any, Any, Any]
Maker = Callable[..., Vectors]

_lent: dict[str, Vectors] = {}  # by the id under which runs have it


class Lent(VectorWrapper):
    """A vector of somebody else's, who goes on with it: closing leaves it open."""

    def close(self, **_: Any) -> None:  # noqa: ANN401
        """Does nothing."""


@contextmanager
def lending(env_id: str, envs: Vectors | None) -> Iterator[None]:
    """Has what is made of an id be this vector, where there is one, until the end of the context."""
    if envs is not None:
        _lent[env_id] = envs
    try:
        yield
    finally:
        _lent.pop(env_id, None)


def is_lent(env_id: str) -> bool:
    """Whether there is one vector of an id, which somebody else has made."""
    return env_id in _lent


def maker_of(env_id: str) -> Maker | None:
    """What makes vectors of an id of which there are no single environments; None for any other id.

    Args:
        env_id: A Gymnasium id, or ``module:name`` of a `VectorEnv` or of a function that returns one; the
            module has been imported.

    Raises:
        EnvError: the name is that of a single environment.
    """
    if env_id in _lent:
        return partial(_lend, env_id)
    module, _, name = env_id.rpartition(":")
    if name in gym.registry:
        return partial(make_registered, name) if gym.registry[name].entry_point is None else None
    found = getattr(modules.get(module), name, None) if module else None
    if isinstance(found, type) and issubclass(found, VectorEnv):
        return found
    if not callable(found) or newest_version(name) is not None:
        return None
    if isinstance(found, type) and issubclass(found, gym.Env):
        raise EnvError(
            f"env.id={env_id} is a class of single environments: register it, as in "
            f"gymnasium.register('{name}-v0', {name}), and give that id; an import path names a VectorEnv"
        )
    return found


def newest_version(name: str) -> str | None:
    """The registered id of the same namespace and name with the highest version."""
    namespace, base, _ = parse_env_id(name)
    versions = [
        spec.version
        for spec in gym.registry.values()
        if spec.namespace == namespace and spec.name == base and spec.version is not None
    ]
    prefix = f"{namespace}/" if namespace else ""
    return f"{prefix}{base}-v{max(versions)}" if versions else None


def make_registered(env_id: str, num_envs: int, **kwargs: Any) -> Vectors:  # noqa: ANN401
    """What the vector entry point of a registered id makes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata, which are looked at later
        return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


def make_vectors(env_id: str, maker: Maker, n: int, kwargs: Mapping[str, Any]) -> Vectors:
    """A vector of N environments.

    Raises:
        EnvError: it can't be made, or is none, or has another number of environments.
    """
    try:
        with calling(Call.MAKE):
            envs = maker(num_envs=n, **dict(kwargs))
    except BaseException as refused:  # environments check their arguments in every way there is
        let_interrupt_pass(refused)
        given = f" and env.kwargs={dict(kwargs)}" if kwargs else ""
        reason = f"{type(refused).__name__}: {flat(refused)}"
        raise EnvError(f"env.id={env_id} can't be made with num_envs={n}{given}: {reason}") from refused
    if not isinstance(envs, VectorEnv):
        raise EnvError(
            f"env.id={env_id} makes a {type(envs).__name__}: expected a gymnasium.vector.VectorEnv"
        )
    lacking = [name for name in _NEEDED if not hasattr(envs, name)]
    if lacking or envs.num_envs != n:
        envs.close()
        said = (
            f"num_envs={envs.num_envs}, where n_envs / shards is {n}" if not lacking else f"no {lacking[0]}"
        )
        raise EnvError(f"env.id={env_id}: its vector has {said}")
    return envs


_NEEDED = ("num_envs", "single_observation_space", "single_action_space")


def _lend(env_id: str, num_envs: int, **kwargs: Any) -> Vectors:  # noqa: ANN401
    envs = _lent[env_id]
    if kwargs:
        raise ValueError("it is made already: give its class, or leave out env.kwargs")
    return Lent(envs)
