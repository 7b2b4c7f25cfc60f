"""What is around a run: a terminal or none, a process of its own or somebody else's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ppo_cli.hooks import Hook  # brings PyTorch


class Surroundings(NamedTuple):
    """What is around a run, and is no knob of it.

    Attributes:
        live: Whether it has the terminal to itself, for a progress line.
        preset: The config's, in words for the first line; nothing where it is not known.
        hooks: Objects from Python, beside the hooks that the config names; told after those.
        own_hooks: Hooks of the caller's that are told last, as the run's own are.
        signals: Whether a signal ends the run when it has been saved. It needs the process's main thread.
        watchdog: Whether a process is forked that ends this one where an environment hangs.
    """

    live: bool = True
    preset: str = ""
    hooks: Sequence["Hook"] = ()
    own_hooks: Sequence["Hook"] = ()
    signals: bool = True
    watchdog: bool = True


COMMAND = Surroundings()  # a process to itself, and the terminal
