"""The console scripts: each can be stopped by a signal before it has imported what takes a while."""

import atexit
import gc
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

from ppo_cli.cli.command import AS_MODULE, run_command
from ppo_cli.errors import ConfigError
from ppo_cli.importing import importing
from ppo_cli.runs.ranks import guarded
from ppo_cli.stop_signals import STOPPING
from ppo_cli.text import nearest

# Objects between two collections of garbage: Python's 700 look through what imports make again and again.
RARELY = 50_000
_MODULE_HELP = """\
usage: python -m ppo_cli COMMAND ...

  train     trains: one run, a sweep or a search   (ppo-train)
  eval      evaluates runs, and films them         (ppo-eval)
  export    writes a run's policy as one file      (ppo-export)
  report    compares runs, with figures            (ppo-report)

`python -m ppo_cli COMMAND --help` says more; --version says which one this is."""


def train() -> NoReturn:
    """`ppo-train`."""
    _enter("ppo-train", "ppo_cli.cli.train")


def evaluate() -> NoReturn:
    """`ppo-eval`."""
    _enter("ppo-eval", "ppo_cli.cli.evaluate")


def export() -> NoReturn:
    """`ppo-export`."""
    _enter("ppo-export", "ppo_cli.cli.export")


def report() -> NoReturn:
    """`ppo-report`."""
    _enter("ppo-report", "ppo_cli.cli.report")


def module() -> NoReturn:
    """`python -m ppo_cli COMMAND ...`."""
    commands = {"train": train, "eval": evaluate, "export": export, "report": report}
    name, *rest = sys.argv[1:] or ["--help"]
    if name in commands:
        sys.argv = [f"{AS_MODULE} {name}", *rest]
        commands[name]()
    run_command(AS_MODULE, lambda: _say_of_module(name, list(commands)), needs_output=True)


def _say_of_module(asked: str, commands: list[str]) -> None:
    """Prints the help or the version.

    Raises:
        ConfigError: neither is asked for.
    """
    if asked in ("-h", "--help", "help"):
        print(_MODULE_HELP)
        return
    if asked in ("-V", "--version"):
        from ppo_cli.versions import version_line

        print(version_line())
        return
    near = nearest(asked, commands) or f"; expected one of {', '.join(commands)}"
    raise ConfigError(f"unknown command {asked!r}{near}")


def _enter(name: str, module: str) -> NoReturn:
    def work() -> None:
        with importing(), guarded(name == "ppo-train"):
            main = import_module(module).main
        main()

    gc.set_threshold(RARELY)
    atexit.register(_ignore_all)  # first, so that it is the last to run
    try:
        run_command(name, work)
    finally:
        for number in STOPPING:  # the line is said and the status is set: what is left takes a moment
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _ending)


def _ignore_all() -> None:
    """Until the process is gone: the interpreter, as it ends, would give the signals their defaults back."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _ending(number: int, _frame: FrameType | None) -> None:
    """Lets the process end as it is about to; a further signal ends it at once."""
    signal.signal(number, signal.SIG_DFL)
