"""Sweeps: `ppo-train -m ...`, and `ppo-train sweep.resume=SWEEP_DIR`, which goes on with one.

Hydra's `multirun` makes the sweeper that ``hydra/sweeper`` chooses: ours, ``jobs``, by default. Before its
first job starts, its folder has `jobs.json`: every job, with its folder and its config. What is left to do is
read from the folders alone, so that a sweep goes on wherever it was stopped. Hydra's launchers run the jobs;
on going on, each from the config in its folder, so that nothing stored is composed.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override

from ppo_cli.config.convert import from_stored, save_yaml
from ppo_cli.config.explain import composing, explain_error
from ppo_cli.config.quoting import hydra_quoted, program_to_paste, shell_quoted, typed_path
from ppo_cli.config.trust import imports
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.files import make_folder, write_whole
from ppo_cli.runs.folder import RunFolder, lock_run
from ppo_cli.runs.new_folder import is_hydra, make_exclusive
from ppo_cli.runs.signals import StopSignal
from ppo_cli.sweeps.ending import failed_table, stoppable
from ppo_cli.sweeps.job import Job, one_line, own_folder, run_job, say_imports
from ppo_cli.sweeps.live import Board
from ppo_cli.sweeps.plan import JOBS, Sweep, check_config, load_jobs, plan_jobs, save_jobs, sweep_folder
from ppo_cli.sweeps.schema import PREFIX, SweepSettings, composed_settings


def sweep(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> None:
    """What Hydra's `multirun` has our sweeper do: plan jobs, or go on with those of a folder, and run them.

    Args:
        context: Hydra's context, which composes the jobs.
        config: The config that Hydra composed for the sweeper.
        overrides: The overrides as typed, in Hydra's own terms.

    Raises:
        ConfigError: there can't be such a sweep.
        Interrupted: a signal ended it.
        RunError: jobs failed.
    """
    settings = composed_settings(SweepSettings, config.hydra.sweeper)
    if settings.params:
        raise ConfigError(f"{PREFIX}params: type what to sweep on the command line")
    if settings.stored:
        folder = typed_path(str(config.hydra.sweep.dir))
        plan = load_jobs(folder, [override for override in overrides if is_hydra(override)])
        _check_folders(folder, plan)
        say_imports(line for job in plan.jobs for line in _imports(folder, job))
        _run(context, config, folder, plan, going_on=True)
        return
    plan = plan_jobs(overrides, None, str(config.hydra.job.config_name))
    with sweep_folder() as folder:
        save_jobs(plan, config.hydra, folder)
        _run(context, config, folder, plan)


def _imports(folder: Path, job: Job) -> list[str]:
    """Lines on what a job's stored config has imported; none where it can't be run, as the job will say."""
    own = RunFolder(folder / job.folder)
    with suppress(ConfigError):
        if own.config_yaml.exists():
            return imports(own.config, own.config_yaml)
        return imports(from_stored(job.config), folder / JOBS)
    return []


def _check_folders(folder: Path, plan: Sweep) -> None:
    """Raises ConfigError where a job's folder is a link, or holds one, through which it would write."""
    for job in plan.jobs:
        if os.path.lexists(folder / job.folder):
            own_folder(folder / job.folder)


def _prepare(folder: Path, job: Job) -> None:
    """Puts into a job's folder what it lacks to begin as it was planned: presets may have changed."""
    own = RunFolder(folder / job.folder)
    make_folder(own.path)
    if not own.config_yaml.exists():
        save_yaml(from_stored(job.config), own.config_yaml)
    if not own.hydra.exists():
        make_folder(own.hydra)
        write_whole(own.overrides_yaml, OmegaConf.to_yaml(OmegaConf.create(job.overrides)))


def _run(
    context: HydraContext, config: DictConfig, folder: Path, plan: Sweep, going_on: bool = False
) -> None:
    """Runs the jobs that are not finished, and ends with what became of them."""
    ended = ""
    with lock_run(folder), stoppable(folder, "sweep"):
        left = [job for job in plan.jobs if not RunFolder(folder / job.folder).is_finished]
        if len(left) < len(plan.jobs):
            print(f"finished already: {len(plan.jobs) - len(left)} of {len(plan.jobs)} jobs")
        if going_on:
            for job in [check_config(folder, job) for job in left]:
                _prepare(folder, job)
        _set(config, _folders(config, folder, going_on))
        try:
            _launch(context, config, folder, left, [_overrides(folder, job, going_on) for job in left])
        except ConfigError:
            raise
        except Exception as error:  # of the launcher: jobs note their own
            if not any(RunFolder(folder / job.folder).lock.exists() for job in left):  # none has begun
                raise ConfigError(explain_error(error)) from error
            ended = f"the launcher ended: {one_line(error)}; "
        failed = [job.folder for job in plan.jobs if not RunFolder(folder / job.folder).is_finished]
    finished = len(plan.jobs) - len(failed)
    if finished:
        print(f"finished: {finished} of {len(plan.jobs)} jobs · {folder}")
        print(f"next: {program_to_paste('ppo-report')} {shell_quoted(folder)}", flush=True)
    if failed or ended:
        what = f"{ended}{len(failed)} of {len(plan.jobs)} jobs failed{failed_table(folder, failed)}"
        raise RunError(f"{what}\nto try them again:\nppo-train sweep.resume={shell_quoted(folder)}")


def _folders(config: DictConfig, folder: Path, going_on: bool) -> dict[str, str]:
    """Settings of Hydra's that say where a sweep is; submitit unpickles whatever lies in its own folder."""
    places = {"hydra.sweep.dir": str(folder)}
    key = "hydra.launcher.submitit_folder"
    chosen = str(config.hydra.runtime.choices["hydra/launcher"]).startswith("submitit")
    if chosen and going_on and not any(o.startswith(f"{key}=") for o in config.hydra.overrides.hydra):
        places[key] = f"{make_exclusive(folder / '.submitit')}/%j"
    return places


def _set(config: DictConfig, settings: Mapping[str, str]) -> None:
    """Sets what is Hydra's, for the sweep and for what its jobs are composed of."""
    with flag_override(config.hydra, ["struct", "readonly"], [False, False]):
        for key, value in settings.items():
            OmegaConf.update(config, key, value)
            config.hydra.overrides.hydra.append(f"{key}={hydra_quoted(value)}")


def _launch(
    context: HydraContext,
    config: DictConfig,
    folder: Path,
    jobs: Sequence[Job],
    overrides: Sequence[list[str]],
) -> None:
    """Hands jobs to Hydra's launcher, as Hydra's own sweeper does, which can't leave out any."""
    if not jobs:
        return
    write_whole(folder / "multirun.yaml", OmegaConf.to_yaml(config))
    task = partial(run_job, watching=os.getpid())
    with composing():
        launcher = Plugins.instance().instantiate_launcher(context, task, config)
    batch = composed_settings(SweepSettings, config.hydra.sweeper).max_batch_size or len(jobs)
    with Board(folder, jobs), _launchers_silent():
        for first in range(0, len(jobs), batch):
            StopSignal.check()
            launcher.launch(overrides[first : first + batch], initial_job_idx=first)


@contextmanager
def _launchers_silent() -> Iterator[None]:
    """Leaves the launchers' own lines out meanwhile: the table says more."""
    loggers = [logging.getLogger(name) for name in ("hydra", "hydra_plugins")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _overrides(folder: Path, job: Job, going_on: bool) -> list[str]:
    """What a job is composed of; one that goes on has its whole config in its folder."""
    own = [] if going_on else list(job.overrides)
    if own and job.config["init_from"] is not None:  # as it was found when the sweep was planned
        own.append(f"init_from={hydra_quoted(job.config['init_from'])}")
    own.append(f"hydra.sweep.subdir={hydra_quoted(job.folder)}")
    if os.path.lexists(RunFolder(folder / job.folder).hydra):
        own.append("hydra.output_subdir=null")  # what it holds is how the job began
    return own
