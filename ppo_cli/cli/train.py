"""`ppo-train`: composes and checks what is typed, once, and has it run; or goes on with what was.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override

from ppo_cli.cli.command import run_command
from ppo_cli.cli.help import MARK, help_text
from ppo_cli.cli.options import read_options
from ppo_cli.config.compose import compose_job, compose_run, parse_overrides
from ppo_cli.config.convert import parse, register_schema, to_dict
from ppo_cli.config.explain import composing
from ppo_cli.config.overrides import AUTO, CommandLine, expand_preset, read_line, read_override, text_of
from ppo_cli.config.presets import NO_PRESET, forget_successors, preset_words
from ppo_cli.config.quoting import typed_path
from ppo_cli.config.schema import conf_dir
from ppo_cli.config.user_files import with_folder
from ppo_cli.errors import ConfigError
from ppo_cli.runs.new_folder import folder_name
from ppo_cli.runs.ranks import taking_part
from ppo_cli.runs.resume import resume, resumed_config
from ppo_cli.runs.start import start_run
from ppo_cli.sweeps.schema import OPTUNA, check_extras, choose_sweeper, without_swept
from ppo_cli.terminal import width


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-train", taking_part(lambda: _dispatch(sys.argv[1:])))


def _dispatch(arguments: Sequence[str]) -> None:
    """Does what the command line asks for: run, sweep, search, go on with one of them, or show something."""
    args, parser = read_options(arguments)
    register_schema()
    forget_successors()
    OmegaConf.register_new_resolver("job_dir", folder_name, replace=True)
    if args.hydra_help or args.info or args.shell_completion:
        _ask_hydra(args, parser)
        return
    line = read_line(args.overrides)
    for key, what in (("resume", "run"), ("sweep.resume", "sweep")):
        folders = [text for text in line.targets[key] if text != AUTO or key != "resume"]
        if not folders:
            continue
        if len(folders) > 1 or args.multirun or line.goes_on:
            raise ConfigError(f"{key}= goes on with one {what}: leave out -m and name one folder")
        if not folders[0].strip("'\""):
            raise ConfigError(f"{key}=: no folder is named (an empty variable?)")
        go_on = _go_on if what == "run" else _go_on_with_sweep
        go_on(typed_path(folders[0]), _also_targets(line, key), args)
        return
    _start(line, args)


def _also_targets(line: CommandLine, key: str) -> list[str]:
    """What is typed beside the folder to go on with."""
    others = (f"{other}={text}" for other, texts in line.targets.items() if other != key for text in texts)
    return [*map(text_of, line.typed), *others]


def _ask_hydra(args: Namespace, parser: ArgumentParser) -> None:
    """Prints what Hydra says of itself, or of how a command line is composed."""
    words, name = args.overrides, args.config_name
    if args.info:
        line = read_line(words)
        if any(line.targets.values()):
            raise ConfigError("--info shows how a line is composed, which resume= is not; leave out one")
        compose_job(line.overrides, args.config_dir, name)  # before half a page is printed
        words = with_folder(line.words, args.config_dir)
    with composing(), initialize_config_dir(str(conf_dir()), "train", "1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        if args.hydra_help:
            hydra.hydra_help(name, parser, Namespace(overrides=[]))  # which are of no use to it
        elif args.info:
            hydra.show_info(args.info, name, words)
        else:
            hydra.shell_completion(name, words)


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
    from ppo_cli.sweeps import start as sweeps  # late, as below

    sweeps.resume(folder, overrides)


def _start(line: CommandLine, args: Namespace) -> None:
    """Composes and checks every job, makes the folder, and has them run; or shows what they are."""
    words = choose_sweeper(line.words)
    if OPTUNA in words and not args.multirun:
        raise ConfigError(f"a search takes -m: ppo-train -m {OPTUNA} ...")
    check_extras(words)
    if args.cfg:
        _show(_job_config(line.overrides, args), args)
    elif args.help:
        parsed = parse_overrides(words, args.config_dir) if args.multirun else line.overrides
        _help(without_swept(parsed) if args.multirun else parsed, args)
    elif args.multirun:
        from ppo_cli.sweeps import start as sweeps  # late: a run has no use for them

        sweeps.start(words, args.config_dir, args.config_name, line.goes_on)
    else:
        _say_next(start_run(line, config_dir=args.config_dir, config_name=args.config_name))


def _help(overrides: Sequence[Override], args: Namespace) -> None:
    """Prints the page of help, with a preset's values only where an environment or an experiment is typed."""
    chosen = any(override.key_or_group in ("env", "env.id", "experiment") for override in overrides)
    shown = overrides if chosen else expand_preset([*overrides, read_override("preset=none")])
    config = compose_run(shown, args.config_dir, args.config_name).config
    preset = preset_words()
    whose = "their plain defaults" if preset == NO_PRESET else f"the values of {preset}"
    others = " ".join(text_of(each) for each in overrides if each.key_or_group not in ("env", "env.id"))
    if others:
        whose += f" and {others}"
    if chosen or others:
        whose += f"; {MARK} is not the plain default"
    else:
        whose += "; `ppo-train env=ID --help` shows a preset's"
    print(help_text(config, whose, width()))


def _job_config(overrides: Sequence[Override], args: Namespace) -> DictConfig:
    """The checked config of one job: its own part, or Hydra's, or all."""
    composed = compose_job(overrides, args.config_dir, args.config_name)
    from ppo_cli.envs.make import resolve_env_id  # late: it brings Gymnasium

    resolve_env_id(parse(composed).env.id)
    hydra = composed.hydra
    OmegaConf.set_readonly(hydra, None)
    with flag_override(composed, "struct", False):
        if args.cfg == "job":
            del composed["hydra"]
    with flag_override(hydra, "struct", False):
        for page in ("help", "hydra_help"):
            del hydra[page]
    return OmegaConf.masked_copy(composed, "hydra") if args.cfg == "hydra" else composed


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


def _say_next(folder: Path) -> None:
    from ppo_cli.runs.messages import next_lines  # late: they bring PyTorch

    print(next_lines(folder))
