"""Who runs a run: a command with a terminal and a process to itself, or a program that goes on after it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ppo_cli.hooks import Hook  # brings PyTorch


class Caller(NamedTuple):
    """What a run is told of its caller, which is no knob of it.

    Attributes:
        live: Whether it has the terminal to itself, for a progress line.
        preset: The config's preset, in words for the first line; nothing where it is not known.
        hooks: Objects from Python, beside the hooks that the config names; told after those.
        own_hooks: Hooks of the caller's that are told last, as the run's own are.
        owns_process: Whether the process is the run's own: then a signal ends the run when it has been saved,
            and logging is set up as Hydra does it. Else the program or notebook around keeps its signal
            handlers and its loggers.
        watchdog: Whether processes are forked: one that ends this one where an environment hangs, and one
            that compiles the update beside it.
    """

    live: bool = True
    preset: str = ""
    hooks: Sequence["Hook"] = ()
    own_hooks: Sequence["Hook"] = ()
    owns_process: bool = True
    watchdog: bool = True


COMMAND = Caller()  # a process to itself, and the terminal
