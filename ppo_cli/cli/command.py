"""What the commands share: what is wrong ends in one line on stderr and a status."""

import argparse
import io
import sys
from collections.abc import Callable
from typing import NoReturn

from ppo_cli.cli.endings import Interrupted, RunError
from ppo_cli.config import ConfigError
from ppo_cli.envs.make import EnvError


def run_command(name: str, work: Callable[[], int | None]) -> NoReturn:
    """Does a command's work and ends the process.

    The status is what the work returns (None for 0), 2 for input that can't be worked with, 1 for what went
    wrong on the way, 128 + n for signal n.
    """
    line: object = None
    replace_unprintable()
    try:
        status = work() or 0
    except (ConfigError, EnvError) as error:
        line, status = error, 2
    except Interrupted as interrupted:
        line, status = interrupted, 128 + interrupted.number
    except KeyboardInterrupt:
        line, status = "interrupted", 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        sys.exit(141)
    except (RunError, OSError) as error:
        line, status = error, 1
    if line is not None:
        print(f"{name}: {line}", file=sys.stderr)
    sys.exit(status)


def replace_unprintable() -> None:
    """Has this process print ``?`` for what the output's encoding lacks (ε, ±, a name's bytes), and go on."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # not closed, and no stand-in; stderr escapes by itself
        sys.stdout.reconfigure(errors="replace")


class Parser(argparse.ArgumentParser):
    """Of options; what is wrong with them is a `ConfigError`, in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage."""
        raise ConfigError(f"{message}; `{self.prog} --help` lists the options")
