"""What the commands share: what is wrong ends in one line on stderr and a status.

Nothing is imported here that takes a while.
"""

import argparse
import contextlib
import errno
import io
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from ppo_cli.cli.endings import Interrupted, RunError, StopSignal, end_children, no_advice
from ppo_cli.cli.streams import lasting_streams, output_failure
from ppo_cli.files import printable
from ppo_cli.text import flat, register_spelling


def run_command(name: str, work: Callable[[], int | None], needs_output: bool = False) -> NoReturn:
    """Does a command's work and ends the process.

    The status is what the work returns (None for 0), 2 for input that can't be worked with, 1 for what went
    wrong on the way, 128 + n for signal n.

    Args:
        name: of the command.
        work: what it does.
        needs_output: whether what it prints is what it is for. If that can't be written, the status is 1 and
            a line says so, or 141 where the reader of a pipe, such as head, has seen enough.
    """
    before, logging.raiseExceptions = logging.raiseExceptions, False  # no pages of what can't be logged
    try:
        with lasting_streams():
            replace_unprintable()
            line, status = _outcome(work)
            with contextlib.suppress(ValueError):  # an environment may have closed it
                sys.stdout.flush()
            failure = output_failure()
            if failure is not None and needs_output and status == 0:
                gone = failure.errno == errno.EPIPE
                line, status = (None, 141) if gone else (f"standard output: {failure.strerror}", 1)
            if line is not None:
                shown = "\n".join(map(printable, f"{name}: {line}".splitlines()))
                print(shown, file=sys.stderr, flush=True)
    finally:
        logging.raiseExceptions = before
    sys.exit(status)


def _outcome(work: Callable[[], int | None]) -> tuple[object, int]:
    """What to say at the end, or None, and the status."""
    try:
        with StopSignal(no_advice, at_once=True):
            return None, work() or 0
    except Interrupted as interrupted:
        end_children()
        return interrupted, 128 + interrupted.number
    except Exception as error:
        status = _status(error)
        if status is None:
            raise
        return (flat(error) if status == 2 else error), status  # a sweep's failure has a table below its line


def _status(error: BaseException | None) -> int | None:
    """Of an error that a line explains; None for any other."""
    from ppo_cli.config import ConfigError
    from ppo_cli.envs.make import EnvError

    if isinstance(error, (ConfigError, EnvError)):
        return 2
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # NumPy's, and PyTorch's
        return 1
    return 1 if isinstance(error, (RunError, OSError)) else None


def replace_unprintable() -> None:
    """Has this process spell or escape what the output's encoding lacks (ε, ±, a name's bytes), and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not closed, and no stand-in
            stream.reconfigure(errors=register_spelling())


class Parser(argparse.ArgumentParser):
    """Of options; what is wrong with them is a `ConfigError`, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage."""
        from ppo_cli.config import ConfigError

        raise ConfigError(f"{message}; `{self.prog} --help` lists the options")
