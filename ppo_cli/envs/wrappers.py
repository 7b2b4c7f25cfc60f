"""Wrappers named in a config: looked up, held against their arguments, and put around an environment.

An entry is a mapping: ``name``, ``when`` (``train`` leaves it out of evaluation) and the wrapper's arguments.
A short name is one of Gymnasium's wrappers or of ours, `ppo_cli.envs.atari` and `ppo_cli.envs.minatar`;
``module.Class`` or ``module:Class`` is anybody's own.
"""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym

from ppo_cli.envs import atari, minatar
from ppo_cli.envs.calls import let_interrupt_pass
from ppo_cli.import_path import load_class
from ppo_cli.text import flat, nearest

Env = gym.Env[Any, Any]
WrapperClass = type[gym.Wrapper[Any, Any, Any, Any]]

# Running statistics by their attributes' names, which Gymnasium, Baselines and what followed them share.
_STATISTICS = re.compile(r"_*((obs|observation|ret|return|rew|reward|state)s?_rms|running_(mean|var|std)\w*)")


class ResetArguments(gym.Wrapper[Any, Any, Any, Any]):
    """Has every reset take options of its own, and only seeds that the environment takes.

    It is innermost, so that whoever resets, in training, evaluation, films and snapshots, does it alike.
    """

    def __init__(self, env: Env, options: Mapping[str, Any], seed_below: int | None) -> None:
        """Notes what resets get.

        Args:
            env: The environment that is wrapped.
            options: The options of every reset, below those that it is given.
            seed_below: The number modulo which seeds are taken; None leaves them.
        """
        super().__init__(env)
        self._options, self._seed_below = options, seed_below

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets, with the options and a seed in the range."""
        if seed is not None and self._seed_below is not None:
            seed %= self._seed_below
        own = copy.deepcopy(dict(self._options))  # an environment may take it apart
        return self.env.reset(seed=seed, options={**own, **(options or {})} or None)


def wrap(env: Env, wrappers: Sequence[Mapping[str, Any]], training: bool) -> Env:
    """Puts wrappers around ``env``, the first one innermost.

    Args:
        env: The environment that is wrapped.
        wrappers: The entries as above.
        training: Whether those with ``when: train`` are among them.

    Raises:
        ValueError: a name is no wrapper's, or a wrapper refuses its arguments or the environment, or learns;
            one line.
    """
    for entry in wrappers:
        arguments = {key: _tupled(value) for key, value in entry.items() if key not in ("name", "when")}
        if training or entry.get("when") != "train":
            inner, env = env, _construct(env, str(entry["name"]), arguments)
            if layers := learning_layers(env, inner):
                raise ValueError(
                    f"{entry['name']} learns, and evaluation, checkpoints and exported policies would lack "
                    f"the running statistics of {', '.join(layers)}; normalize.observations=true and "
                    "normalize.rewards=true keep them with the weights"
                )
    return env


def learning_layers(env: Env, below: Env | None = None) -> list[str]:
    """Names of the layers of ``env`` that keep running statistics of what goes through them.

    Each copy of such a layer learns for itself: those of evaluation, of worker processes and of a policy that
    was loaded know nothing of what the ones in training saw.

    Args:
        env: The stack, from its outermost layer.
        below: The layer at which to stop; None looks at all, the environment itself too.
    """
    found, layer = [], env
    while layer is not below:
        if _learns(layer):
            found.append(type(layer).__name__)
        if not isinstance(layer, gym.Wrapper):
            break
        layer = layer.env
    return found


def _learns(layer: Env) -> bool:
    if getattr(layer, "update_running_mean", True) is False:  # Gymnasium's switch: they stay as they are
        return False
    known = (gym.wrappers.NormalizeObservation, gym.wrappers.NormalizeReward)
    if isinstance(layer, known) or (isinstance(layer, gym.Wrapper) and _is_running_mean(layer)):
        return True
    kept = {name: value for name, value in vars(layer).items() if value is not None}
    return any(_STATISTICS.fullmatch(name) or _is_running_mean(value) for name, value in kept.items())


def _is_running_mean(value: Any) -> bool:  # noqa: ANN401
    """Whether an object is some `RunningMeanStd`: a mean, a spread and a count, none of them a method."""
    return all(
        any(not callable(inspect.getattr_static(value, name, len)) for name in names)
        for names in (("mean",), ("var", "std"), ("count", "n"))
    )


def find_wrapper(name: str) -> WrapperClass:
    """The class of that name.

    Raises:
        ValueError: there is none; with the nearest spelling of a short name.
    """
    if "." in name.replace(":", "."):
        return load_class(name, gym.Wrapper, (), "wrapper")
    known = short_names()
    if name not in known:
        hint = nearest(name, known)
        raise ValueError(
            f"{name}: no wrapper of gymnasium.wrappers or ppo-cli{hint} (your own is module.Class)"
        )
    return known[name]


def short_names() -> dict[str, WrapperClass]:
    """The wrappers that need no module: Gymnasium's for single environments, and our own."""
    return {
        name: value
        for module in (gym.wrappers, atari, minatar)
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
    space = flat(env.observation_space)
    return f"an environment with observations {space if len(space) <= 60 else space[:57] + '...'}"


def _tupled(value: Any) -> Any:  # noqa: ANN401
    """YAML knows no tuples, which Gymnasium's wrappers ask for where they take a shape."""
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
