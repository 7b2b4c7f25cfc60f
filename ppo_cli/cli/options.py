"""What `ppo-train` takes on a command line beside overrides: those of Hydra's options that mean something."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from ppo_cli.cli.command import Parser
from ppo_cli.errors import ConfigError

# What Hydra does instead of running: options of which a line has one.
INSTEAD = ("help", "hydra_help", "cfg", "info", "shell_completion")


def read_options(arguments: Sequence[str]) -> tuple[Namespace, ArgumentParser]:
    """The options, with the ``overrides`` as typed, and the parser, which can print its own help.

    Raises:
        ConfigError: An option is unknown, can't be taken, or does not go with another.
    """
    parser = _parser()
    _check_letters(arguments)
    args = parser.parse_intermixed_args(arguments)
    _take_mode(args)
    _check_options(args)
    args.config_name = args.config_name or "config"
    return args, parser


def _check_letters(arguments: Sequence[str]) -> None:
    """Raises ConfigError where an argument holds bytes that are no letters, which no file could be told."""
    for argument in arguments:
        if not argument.isprintable():
            given = argument.encode("unicode_escape", "surrogateescape").decode("ascii")
            raise ConfigError(
                f"{given!r} holds what can't be printed, or letters that this terminal's encoding "
                f"({sys.getfilesystemencoding()}) lacks; in a UTF-8 locale (LC_ALL=C.UTF-8) all can be typed"
            )


def _parser() -> ArgumentParser:
    theirs = get_args_parser()  # whose --version would be Hydra's
    parser = Parser("ppo-train", parents=[theirs], add_help=False, conflict_handler="resolve")
    parser.error = _refuse  # type: ignore[method-assign] # knobs are no options
    return parser


def _refuse(message: str) -> NoReturn:
    raise ConfigError(
        f"{message}; knobs take no dashes, clip_ratio=0.1; `ppo-train --help` lists them, "
        "`ppo-train --hydra-help` the options"
    )


def _take_mode(args: Namespace) -> None:
    """Takes ``hydra.mode=MULTIRUN`` for the ``-m`` that it means."""
    modes = {"hydra.mode=MULTIRUN": True, "hydra.mode=RUN": False}
    typed = [override for override in args.overrides if override in modes]
    args.overrides = [override for override in args.overrides if override not in modes]
    if len(set(typed)) > 1 or (args.multirun and "hydra.mode=RUN" in typed) or (args.run and args.multirun):
        raise ConfigError("-m (hydra.mode=MULTIRUN) and --run (hydra.mode=RUN): give one of them")
    args.multirun = args.multirun or any(modes[override] for override in typed)


def _check_options(args: Namespace) -> None:
    """Raises ConfigError where options do not go together, or can't be taken."""
    given = [f"--{name.replace('_', '-')}" for name in INSTEAD if getattr(args, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")
    if args.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun: to go on with a run, type resume=RUN_DIR; to repeat one, what its "
            ".hydra/overrides.yaml lists"
        )
    for name in ("config_name", "config_dir"):
        if getattr(args, name) == "":
            raise ConfigError(f"--{name.replace('_', '-')}: no name is given (an empty variable?)")
    if args.config_path:
        raise ConfigError("--config-path: ppo-train has its own; add a folder of yours with --config-dir")
    if args.multirun and given and not args.help:
        raise ConfigError(f"{given[0]} shows one job: leave out -m and give each key one value")
    for name in ("resolve", "package"):
        if getattr(args, name) and not args.cfg:
            raise ConfigError(f"--{name} goes with --cfg: ppo-train --cfg job --{name}")
