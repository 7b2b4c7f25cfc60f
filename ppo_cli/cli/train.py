"""`ppo-train`: composes and checks every job, then hands over to Hydra, which runs them.

PyTorch is imported late: it takes longer than a page of help or an error should.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ppo_cli.cli.command import run_command
from ppo_cli.cli.compose import compose_jobs, expand_preset
from ppo_cli.cli.endings import Ended, RunError, no_advice
from ppo_cli.cli.help import help_text
from ppo_cli.cli.resume import resume
from ppo_cli.cli.run_dir import folder_name, make_exclusive, run_dir
from ppo_cli.cli.search.search import SWEEPER, choose_search, is_search, resume_search, start_search
from ppo_cli.cli.sweep import check_launcher, check_search, resume_sweep, run_job, start_sweep, sweep_folder
from ppo_cli.config import ConfigError, conf_dir, parse, register_schema
from ppo_cli.envs.make import resolve_env_id


def main() -> None:
    """Entry point of the console script."""
    run_command("ppo-train", lambda: _dispatch(sys.argv[1:]))


def _dispatch(arguments: list[str]) -> None:
    """Goes on with a run or a sweep, or else composes and checks every job and has Hydra run it."""
    parser = get_args_parser()
    parser.prog = "ppo-train"
    parser.error = _refuse  # type: ignore[method-assign] # Hydra's prints its usage
    args = parser.parse_args(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, whole, instead of ending the process
    register_schema()
    OmegaConf.register_new_resolver("job_dir", folder_name, replace=True)
    if args.shell_completion or args.hydra_help or args.info or args.experimental_rerun:
        _job()
        return
    for key, go_on, what in (("resume=", resume, "run"), ("sweep.resume=", _go_on, "sweep")):
        targets = [override.removeprefix(key) for override in args.overrides if override.startswith(key)]
        if len(targets) > 1 or (targets and args.multirun and what == "run"):
            raise ConfigError(f"{key} goes on with one {what}: leave out -m and name one folder")
        if targets:
            go_on(Path(targets[0].strip("'\"")), [o for o in args.overrides if not o.startswith(key)])
            return
    if args.config_path:
        raise ConfigError("--config-path: ppo-train has its own; add a folder of yours with --config-dir")
    if args.cfg and args.multirun:
        raise ConfigError("--cfg shows one job: leave out -m and give each key one value")
    _start(args, [argument for argument in arguments if argument not in args.overrides])


def _refuse(message: str) -> NoReturn:
    raise ConfigError(
        f"{message}; knobs take no dashes, clip_ratio=0.1; `ppo-train --help` lists them, "
        "`ppo-train --hydra-help` the options"
    )


def _go_on(folder: Path, overrides: Sequence[str]) -> None:
    (resume_search if is_search(folder) else resume_sweep)(folder, overrides)


def _with_search(overrides: list[str], multirun: bool) -> list[str]:
    """The overrides, with the search space that ``search=`` names.

    Raises:
        ConfigError: there is no such space, or a search without ``-m``.
    """
    if multirun:
        return choose_search(overrides)
    if SWEEPER in overrides or any(override.startswith("search=") for override in overrides):
        raise ConfigError("a search takes -m: ppo-train -m hydra/sweeper=optuna ...")
    return overrides


def _start(args: Namespace, flags: Sequence[str]) -> None:
    """Composes and checks every job, makes the folder, and has Hydra run them."""
    check_launcher(args.overrides)
    overrides = _with_search(expand_preset(args.overrides), args.multirun)
    config_name = args.config_name or "config"
    if SWEEPER in overrides and not args.help:
        start_search(args.overrides, overrides, args.config_dir, config_name)
        return
    jobs = compose_jobs(overrides, args.multirun, args.config_dir, config_name)
    if args.help:
        print(help_text(jobs[0][1]))
        return
    for _, config in jobs:
        resolve_env_id(config.env.id)  # a misspelt id is said before PyTorch is there
    from ppo_cli.cli.build import check_environment
    from ppo_cli.watchdog import Watchdog

    with Watchdog(max(config.env.timeout for _, config in jobs), no_advice):  # one for all
        checked = [check_environment(config) for _, config in jobs]
    if args.multirun and not any(override.startswith("hydra/sweeper=") for override in overrides):
        for notice in dict.fromkeys(notice for _, notice in checked if notice):
            print(notice)
        start_sweep(overrides, jobs, args.config_dir, config_name)
        return
    if args.multirun:  # another sweeper's search, which chooses its jobs on the way
        folder = sweep_folder(overrides)
        overrides.append(f"hydra.sweep.dir='{folder}'")
    elif not (args.cfg or any(override.startswith("hydra.run.dir=") for override in overrides)):
        folder = make_exclusive(run_dir(checked[0][0].env.id, args.overrides, datetime.now()))
        overrides.append(f"hydra.run.dir='{folder}'")
    sys.argv[1:] = [*flags, *overrides]
    _job()
    if args.multirun:
        check_search(folder)


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _job(composed: DictConfig) -> float:
    """One job: what Hydra calls with the composed config; its result is what a search maximises."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:  # of a sweeper that chooses the jobs itself
        return run_job(composed)
    from ppo_cli.cli.run import run

    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    try:
        if (folder / "checkpoints").exists():
            raise ConfigError(f"{folder} holds a run already; resume='{folder}' goes on with it")
        return run(parse(composed), folder)
    except (ConfigError, RunError) as error:
        raise Ended(error) from error
