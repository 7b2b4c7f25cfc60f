"""What the commands share: what is wrong ends in one line on stderr and a status.

Nothing is imported here that takes a while.
"""

import argparse
import contextlib
import errno
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from ppo_cli.errors import ConfigError, EnvError, RunError
from ppo_cli.files import printable
from ppo_cli.runs.signals import Interrupted, StopSignal, end_children, no_advice
from ppo_cli.runs.streams import lasting_streams, output_failure
from ppo_cli.terminal import replace_unprintable, wrapped_error
from ppo_cli.text import flat, words_in

AS_MODULE = "python -m ppo_cli"


def typed_program(name: str) -> str:
    """The program as it was typed: a console script's name, or what `python -m ppo_cli` made of it."""
    return sys.argv[0] if sys.argv[0].startswith(AS_MODULE) else name


def run_command(name: str, work: Callable[[], int | None], needs_output: bool = False) -> NoReturn:
    """Does a command's work and ends the process.

    The status is what the work returns (None for 0), 2 for input that can't be worked with, 1 for what went
    wrong on the way, 128 + n for signal n.

    Args:
        name: The name of the command.
        work: The function that does its work.
        needs_output: Whether what it prints is what it is for. If that can't be written, the status is 1 and
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
                say_error(f"{typed_program(name)}: {line}")
    finally:
        logging.raiseExceptions = before
    sys.exit(status)


def say_error(text: str) -> None:
    """Prints on standard error what is wrong, or what a command does that its user may not expect."""
    shown = "\n".join(map(printable, text.splitlines()))
    print(wrapped_error(shown), file=sys.stderr, flush=True)


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
    """The status of an error that a line explains; None for any other."""
    if isinstance(error, (ConfigError, EnvError)):
        return 2
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # NumPy's, and PyTorch's
        return 1
    return 1 if isinstance(error, (RunError, OSError)) else None


class _ShowVersion(argparse.Action):
    """Prints the versions and ends; they are looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ppo_cli.versions import version_line

        print(version_line())
        parser.exit()


class _Page(argparse.RawDescriptionHelpFormatter):
    """A page of help whose text fits: paragraphs are filled, and commands, indented, go on as in a shell."""

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:  # noqa: ANN401
        """The arguments; the options are listed below anyway."""
        if usage is None:  # it is not where options may stand between arguments: then this made it before
            given = (
                self._format_args(action, action.dest) for action in actions if not action.option_strings
            )
            usage = f"%(prog)s {' '.join(given)} [options]"
        return super()._format_usage(usage, actions, groups, prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = re.split(r"\n(?=[ \n])", text.strip("\n"))
        return "\n".join(indent + line for each in paragraphs for line in _filled(each, width - len(indent)))


def _filled(paragraph: str, width: int) -> list[str]:
    if not paragraph.startswith(" "):
        return words_in(" ".join(paragraph.split()), width)
    *lines, last = words_in(paragraph, width - 2, 0, 6)
    return [*(f"{line} \\" for line in lines), last]


class Parser(argparse.ArgumentParser):
    """A parser of options; what is wrong with them is a `ConfigError`, in one line."""

    def __init__(self, prog: str, **settings: Any) -> None:  # noqa: ANN401
        """Makes the parser of a command; it has `--version`.

        Args:
            prog: The name of the console script.
            settings: Further ones of `argparse.ArgumentParser`.
        """
        settings.setdefault("formatter_class", _Page)
        super().__init__(prog=typed_program(prog), **settings)
        self.add_argument("-V", "--version", action=_ShowVersion, nargs=0, help="print versions and stop")

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage."""
        raise ConfigError(f"{message}; `{self.prog} --help` lists the options")
