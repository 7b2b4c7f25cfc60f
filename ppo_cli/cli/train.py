"""`ppo-train`: composes and checks every job, then hands over to Hydra, which runs them.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, flag_override

from ppo_cli.cli.command import Parser, run_command
from ppo_cli.cli.help import MARK, help_text
from ppo_cli.config.compose import (
    compose_job,
    compose_jobs,
    composing,
    expand_preset,
    fixed_folder,
    given_folder,
    parse_overrides,
    quote_folders,
    with_folder,
)
from ppo_cli.config.convert import parse, register_schema, to_dict
from ppo_cli.config.presets import NO_PRESET, forget_successors, preset_words
from ppo_cli.config.quoting import hydra_quoted, shell_quoted, typed_path
from ppo_cli.config.schema import Config, ConfigError, conf_dir
from ppo_cli.envs.make import resolve_env_id
from ppo_cli.runs.endings import Ended, no_advice
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.resume import resume, resume_as, resumed_config
from ppo_cli.runs.run_dir import folder_name, new_folder, run_dir
from ppo_cli.runs.surroundings import Surroundings
from ppo_cli.sweeps import start as sweeps
from ppo_cli.sweeps.schema import OPTUNA
from ppo_cli.terminal import width

if TYPE_CHECKING:
    from ppo_cli.runs.build import Checked

# What Hydra does instead of running: options of which a line has one.
INSTEAD = ("help", "hydra_help", "cfg", "info", "shell_completion")
AUTO = "resume=auto"
AUTO_QUOTED = ("resume='auto'", 'resume="auto"')


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-train", lambda: _dispatch(sys.argv[1:]))


def _dispatch(arguments: list[str]) -> None:
    """Does what the command line asks for: run, sweep, search, go on with one of them, or show something."""
    parser = _parser()
    _check_letters(arguments)
    args = parser.parse_intermixed_args(arguments)
    args.overrides = quote_folders([AUTO if o in AUTO_QUOTED else o for o in args.overrides])
    _take_mode(args)
    _check_options(args)
    register_schema()
    forget_successors()
    OmegaConf.register_new_resolver("job_dir", folder_name, replace=True)
    if args.hydra_help or args.info or args.shell_completion:
        _ask_hydra(args, parser)
        return
    for key, what in (("resume=", "run"), ("sweep.resume=", "sweep")):
        targets = [o.removeprefix(key) for o in args.overrides if o.startswith(key) and o != AUTO]
        if not targets:
            continue
        if len(targets) > 1 or args.multirun or AUTO in args.overrides:
            raise ConfigError(f"{key} goes on with one {what}: leave out -m and name one folder")
        if not targets[0].strip("'\""):
            raise ConfigError(f"{key}: no folder is named (an empty variable?)")
        folder = typed_path(targets[0])
        overrides = [override for override in args.overrides if not override.startswith(key)]
        (_go_on if what == "run" else _go_on_with_sweep)(folder, overrides, args)
        return
    _start(args)


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


def _ask_hydra(args: Namespace, parser: ArgumentParser) -> None:
    """Prints what Hydra says of itself, or of how a command line is composed."""
    overrides = args.overrides if args.shell_completion else with_folder(args.overrides, args.config_dir)
    name = args.config_name or "config"
    if args.info:
        if any(override.startswith(("resume=", "sweep.resume=")) for override in args.overrides):
            raise ConfigError("--info shows how a line is composed, which resume= is not; leave out one")
        compose_job(expand_preset(args.overrides), args.config_dir, name)  # before half a page is printed
    with composing(), initialize_config_dir(str(conf_dir()), "train", "1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        if args.hydra_help:
            hydra.hydra_help(name, parser, Namespace(overrides=[]))  # which are of no use to it
        elif args.info:
            hydra.show_info(args.info, name, expand_preset(overrides))
        else:
            hydra.shell_completion(name, overrides)


def _go_on(folder: Path, overrides: Sequence[str], args: Namespace) -> None:
    """Goes on with a run, or shows the config that it would have."""
    if not (args.help or args.cfg):
        resume(folder, overrides)
        _say_next(folder)
        return
    config = resumed_config(folder, overrides)
    if args.help:
        print(help_text(config, f"the values of {folder}; {MARK} is not the plain default", width()))
    elif args.cfg == "job":
        _show(OmegaConf.create(to_dict(config)), args)
    else:
        raise ConfigError(
            f"--cfg {args.cfg}: a run that goes on has no config of Hydra's; --cfg job shows it"
        )


def _go_on_with_sweep(folder: Path, overrides: Sequence[str], args: Namespace) -> None:
    if args.help or args.cfg:
        raise ConfigError(
            f"{'--help' if args.help else '--cfg'}: sweep.resume= goes on with many configs, which are in "
            f"{folder / 'jobs.json'}; leave the option out to go on"
        )
    sweeps.resume(folder, overrides)


def _start(args: Namespace) -> None:
    """Composes and checks every job, makes the folder, and has them run; or shows what they are."""
    auto = AUTO in args.overrides
    typed = [override for override in args.overrides if override != AUTO]
    overrides = sweeps.choose_sweeper(expand_preset(typed))
    if OPTUNA in overrides and not args.multirun:
        raise ConfigError(f"a search takes -m: ppo-train -m {OPTUNA} ...")
    sweeps.check_extras(overrides)
    name = args.config_name or "config"
    if args.cfg:
        _show(_job_config(overrides, args.config_dir, name, args.cfg), args)
    elif args.help:
        _help(_of_all_jobs(overrides, args.config_dir) if args.multirun else overrides, args.config_dir, name)
    elif args.multirun:
        sweeps.start(overrides, args.config_dir, name, auto)
    else:
        _start_run(typed, overrides, args.config_dir, name, auto)


def _help(overrides: list[str], config_dir: str | None, name: str) -> None:
    """Prints the page of help, with a preset's values only where an environment or an experiment is typed."""
    chosen = any(o.startswith(("env=", "env.id=", "experiment=", "~env")) for o in overrides)
    typed = overrides if chosen else expand_preset([*overrides, "preset=none"])
    ((_, config),) = compose_jobs(typed, False, config_dir, name)
    preset = preset_words()
    whose = "their plain defaults" if preset == NO_PRESET else f"the values of {preset}"
    others = " ".join(o for o in overrides if not o.startswith(("env=", "preset=", "env.id=", "~env")))
    if others:
        whose += f" and {others}"
    if chosen or others:
        whose += f"; {MARK} is not the plain default"
    else:
        whose += "; `ppo-train env=ID --help` shows a preset's"
    print(help_text(config, whose, width()))


def _of_all_jobs(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """The overrides without those that differ from job to job."""
    parsed = parse_overrides(overrides, config_dir)
    return [str(override.input_line) for override in parsed if not override.is_sweep_override()]


def _job_config(overrides: Sequence[str], config_dir: str | None, name: str, which: str) -> DictConfig:
    """The checked config of one job: its own part, or Hydra's, or all."""
    composed = compose_job(overrides, config_dir, name)
    resolve_env_id(parse(composed).env.id)
    hydra = composed.hydra
    OmegaConf.set_readonly(hydra, None)
    with flag_override(composed, "struct", False):
        if which == "job":
            del composed["hydra"]
    with flag_override(hydra, "struct", False):
        for page in ("help", "hydra_help"):
            del hydra[page]
    return OmegaConf.masked_copy(composed, "hydra") if which == "hydra" else composed


def _show(config: DictConfig, args: Namespace) -> None:
    """Prints a config as YAML, or the part of it that ``--package`` names."""
    with composing():
        shown = config if args.package in (None, "_global_") else OmegaConf.select(config, args.package)
        if shown is None:
            raise ConfigError(f"--package {args.package}: the config has no such part")
        if not OmegaConf.is_config(shown):
            print(shown)
            return
        if args.resolve:
            OmegaConf.resolve(shown)
        text = OmegaConf.to_yaml(shown)
    print(f"# @package {args.package}\n{text}" if args.package else text, end="")


def _check_environments(jobs: Sequence[tuple[list[str], Config]]) -> "list[Checked]":
    """`check_environment` of every job's config."""
    for _, config in jobs:
        resolve_env_id(config.env.id)  # a misspelt id is said before PyTorch is there
    from ppo_cli.runs.build import check_environment
    from ppo_cli.runs.watchdog import Watchdog

    with Watchdog(max(config.env.timeout for _, config in jobs), no_advice):  # one for all
        return [check_environment(config) for _, config in jobs]


def _start_run(
    typed: Sequence[str], overrides: list[str], config_dir: str | None, name: str, auto: bool
) -> None:
    """Starts a run in a folder of its own, or goes on with the one that is there."""
    jobs = compose_jobs(overrides, False, config_dir, name)
    (checked,) = _check_environments(jobs)
    config = checked.config
    given = fixed_folder("run") if auto else given_folder("run")
    folder = run_dir(config.env.id, typed, datetime.now()) if given is None else given
    if auto and RunFolder(folder).is_run:
        resume_as(folder, config)
        _say_next(folder)
        return
    if given is not None and RunFolder(folder).has_checkpoints:
        raise ConfigError(f"{folder} holds a run already; resume={shell_quoted(folder)} goes on with it")
    with new_folder(folder, exclusive=given is None) as folder:
        _run_in_hydra(_with_dir(overrides, "hydra.run.dir", folder), config_dir, name)
    _say_next(folder)


def _say_next(folder: Path) -> None:
    from ppo_cli.runs.lines import next_lines  # late: they bring PyTorch

    print(next_lines(folder))


def _with_dir(overrides: Sequence[str], key: str, folder: Path) -> list[str]:
    """The overrides, a setting of Hydra's being the folder that was made."""
    return [*(o for o in overrides if not o.startswith(f"{key}=")), f"{key}={hydra_quoted(folder)}"]


def _run_in_hydra(overrides: Sequence[str], config_dir: str | None, name: str) -> None:
    """Has Hydra compose once more and run one job.

    Raises:
        ConfigError: a setting of Hydra's is none, or the job's own is raised.
    """
    overrides = with_folder([*overrides, "hydra.mode=RUN"], config_dir)
    try:
        with composing(), initialize_config_dir(str(conf_dir()), "train", "1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            hydra.run(name, _job, list(overrides))
    except Ended as ended:
        raise ended.error from ended.error.__cause__


def _job(composed: DictConfig) -> float:
    """A run: what Hydra calls with the composed config."""
    from ppo_cli.runs.run import run

    try:
        folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
        return run(parse(composed), folder, around=Surroundings(preset=preset_words()))
    except Exception as error:
        raise Ended(error) from error
