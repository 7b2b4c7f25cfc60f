"""How a run starts: it is composed and checked once, gets a folder, and runs there."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from ppo_cli.config.compose import Composed, compose_run, fixed_folder, given_folder
from ppo_cli.config.overrides import CommandLine, text_of
from ppo_cli.config.presets import forget_successors, preset_words
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.config.running import run_composed
from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError
from ppo_cli.importing import importing
from ppo_cli.runs.beside import run_beside, runs_beside
from ppo_cli.runs.caller import COMMAND, Caller
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.launch import launch_others
from ppo_cli.runs.new_folder import new_folder, run_dir
from ppo_cli.runs.resume import resume_as
from ppo_cli.runs.streams import logging_to


def start_run(
    line: CommandLine,
    caller: Caller = COMMAND,
    config_dir: str | None = None,
    config_name: str = "config",
) -> Path:
    """Starts a run in a folder of its own, or with ``resume=auto`` goes on with the one that is there.

    Args:
        line: The command line that is typed, or given from Python.
        caller: The caller that runs it.
        config_dir: A folder of the user's own files, or None.
        config_name: The name of the primary config.

    Returns:
        The run's folder.

    Raises:
        ConfigError: It can't be run like that; nothing is left behind then.
        RunError: It could not go on.
    """
    forget_successors()
    job = compose_run(line.overrides, config_dir, config_name)
    from ppo_cli.envs.make import resolve_env_id  # late: it brings Gymnasium

    resolve_env_id(job.config.env.id)  # a misspelt id is said before PyTorch is there
    if caller is COMMAND:
        launch_others(job.config)
    with importing(caller.owns_process):
        import ppo_cli.runs.build
        import ppo_cli.runs.run  # noqa: F401

    # In a frame of its own: what importing leaves for good may hold this one, and all that is named in it.
    return _start(job, line, caller, config_name)


def _start(job: Composed, line: CommandLine, caller: Caller, config_name: str) -> Path:
    """Starts the run that was composed; see `start_run`."""
    from ppo_cli.runs.build import check_environment  # late: they bring PyTorch
    from ppo_cli.runs.run import run

    given = fixed_folder("run") if line.goes_on else given_folder("run")
    there = None if given is None else RunFolder(given)
    if there is not None and there.is_taken and not (line.goes_on and there.is_run):
        if there.checkpoints.exists():
            raise ConfigError(f"{given} holds a run already; resume={shell_quoted(given)} goes on with it")
        raise ConfigError(f"{given} has files that a run would replace; name another folder")
    is_there = line.goes_on and there is not None and there.is_run
    wanted = _with_stored_source(job.config, there) if is_there and there is not None else job.config
    beside = runs_beside(wanted, caller)
    keep = not (line.goes_on or beside)
    checked = check_environment(wanted, caller.watchdog, keep, begins=not is_there)
    config = checked.config
    typed = [text_of(override) for override in line.typed]
    folder = run_dir(config.env.id, typed, datetime.now()) if given is None else given
    if is_there:
        resume_as(folder, config, caller)
        return folder
    caller = caller._replace(preset=preset_words())
    with new_folder(folder, exclusive=given is None) as folder:
        work = partial(run, config, folder, caller=caller, checked=checked)
        if beside:
            work = partial(run_beside, config, folder, caller)
        if caller.owns_process:
            run_composed(job, folder, work, config_name)
        else:
            with logging_to(RunFolder(folder).train_log, verbose=caller.live):
                run_composed(job, folder, work, config_name, log=False)
    return folder


def _with_stored_source(config: Config, run: RunFolder) -> Config:
    """A config that names the weights it began with as the run there does, where both are the same."""
    from ppo_cli.runs.sources import is_same_source

    stored = run.config.init_from
    return replace(config, init_from=stored) if is_same_source(config.init_from, stored) else config
