"""The console scripts: each can be stopped by a signal before it has imported what takes a while."""

import atexit
import signal
from importlib import import_module
from types import FrameType
from typing import NoReturn

from ppo_cli.cli.command import run_command
from ppo_cli.signals import STOPPING


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


def _enter(name: str, module: str) -> NoReturn:
    def work() -> None:
        import_module(module).main()

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
