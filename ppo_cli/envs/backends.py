"""The backends of `vectorization`: where each lies, and what it can't do.

A backend is a file with a class that is made of a `ppo_cli.envs.vector.Recipe`, and a line in `BACKENDS`.
This table imports none of them, so that whoever only asks what a backend can need not wait for Gymnasium.
"""

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

ATARI = re.compile(r"ALE/|.*(NoFrameskip|Deterministic)-v[04]$")  # how the ids of Atari's games look


@dataclass(frozen=True)
class Backend:
    """A backend, and what it can.

    Attributes:
        path: The import path of its class.
        kwargs: Whether it takes arguments of environments.
        wrappers: Whether environments are in our wrappers, and there can be more of them.
        masks: From where it gives masks that stand beside observations, see `ppo_cli.envs.pack.MaskSource`.
        resets: Whether each reset takes options and a seed.
        restarts: Whether an environment that fails can be made anew.
        restores: Whether environments can be brought back to where they were.
        fills: Whether it resets in a step of its own, whose row is no transition.
        has_atari: Whether it has Atari's arguments and wrappers as its own, though it takes none.
        steps: Whose environments it steps: backends of the same ones give the same results.
    """

    path: str
    kwargs: bool = True
    wrappers: bool = True
    masks: tuple[str, ...] = ("info", "method", "step")
    resets: bool = True
    restarts: bool = True
    restores: bool = True
    fills: bool = False
    has_atari: bool = False
    steps: str = "Gymnasium's"

    def can(self, need: str, env_id: str) -> bool:
        """Whether it can what the attribute of that name says, with an environment of that id."""
        is_atari = self.has_atari and ATARI.match(env_id) is not None
        return bool(getattr(self, need)) or (is_atari and need in ("kwargs", "wrappers"))

    def load(self) -> Any:  # noqa: ANN401 - a class of `ppo_cli.envs.vector.Vector`
        """The class."""
        module, _, name = self.path.rpartition(".")
        return getattr(import_module(module), name)


BACKENDS = {
    "sync": Backend("ppo_cli.envs.vector.SyncVector"),
    "async": Backend("ppo_cli.envs.workers.AsyncVector"),
    "envpool": Backend(
        "ppo_cli.envs.pool.EnvPoolVector", kwargs=False, wrappers=False, masks=(), resets=False,
        restarts=False, restores=False, fills=True, has_atari=True, steps="EnvPool's",
    ),
    "entry_point": Backend(
        "ppo_cli.envs.entry_point.EntryPointVector", wrappers=False, masks=("info",), resets=False,
        restarts=False, restores=False, fills=True, steps="the entry point's",
    ),
}  # fmt: skip
REFUSALS = {
    "kwargs": "takes no arguments of environments",
    "wrappers": "takes no wrappers",
    "masks": "gives no masks",
    "resets": "gives environments their seeds at once and no options",
    "restarts": "can't restart an environment",
    "restores": "can't bring environments back",
}


def backend(vectorization: str) -> Backend:
    """The backend of that name; of ``auto`` one that can what it can, whichever it will be."""
    return BACKENDS.get(vectorization, BACKENDS["sync"])
