"""PPO experiments from the command line, or from Python: fast, exact and easy to trust.

    >>> import ppo_cli
    >>> run = ppo_cli.train(env="CartPole-v1", clip_ratio=0.1)

docs/python.md shows what there is. What takes long is imported when a name of it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppo_cli.api import Run, evaluate, load, read, resume, train
    from ppo_cli.episodes import Evaluation
    from ppo_cli.errors import ConfigError, EnvError, RunError, UserCodeError
    from ppo_cli.hooks import Hook
    from ppo_cli.intrinsic import IntrinsicReward
    from ppo_cli.runs.policy import Policy

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "EnvError",
    "Evaluation",
    "Hook",
    "IntrinsicReward",
    "Policy",
    "Run",
    "RunError",
    "UserCodeError",
    "evaluate",
    "load",
    "read",
    "resume",
    "train",
]

_HOMES = {
    "ConfigError": "errors",
    "EnvError": "errors",
    "Evaluation": "episodes",
    "Hook": "hooks",
    "IntrinsicReward": "intrinsic",
    "Policy": "runs.policy",
    "RunError": "errors",
    "UserCodeError": "errors",
}


def __dir__() -> list[str]:
    """What there is, for those who look or complete."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """A name of the face, from the module that it lives in."""
    if name not in __all__:
        raise AttributeError(f"module 'ppo_cli' has no attribute {name!r}")
    return getattr(import_module(f"ppo_cli.{_HOMES.get(name, 'api')}"), name)
