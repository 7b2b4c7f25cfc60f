"""A run of several processes for who is none of them: a Python program, or a sweep that runs its job."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from ppo_cli.config.convert import save_yaml
from ppo_cli.config.quoting import hydra_quoted
from ppo_cli.config.schema import Config
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.runs.caller import COMMAND, Caller
from ppo_cli.runs.folder import RunFolder, advice_for
from ppo_cli.runs.ranks import are_many, world_size
from ppo_cli.runs.signals import Interrupted, StopSignal

COMMAND_BESIDE = (  # which ends with the process that has started it, however that ends
    "import sys; from ppo_cli.envs.workers import end_with_parent; end_with_parent(); "
    "from ppo_cli.cli.entry import train; sys.argv[0] = 'ppo-train'; train()"
)


def runs_beside(config: Config, caller: Caller) -> bool:
    """Whether a run takes more processes than that of its caller, which has one.

    Raises:
        ConfigError: The caller has hooks that can only be told in its own process, or is one of several.
    """
    if caller is COMMAND:
        return False
    if are_many():
        raise ConfigError(
            f"this program is one of {world_size()} processes (WORLD_SIZE), of which each would begin a run: "
            "torchrun starts `-m ppo_cli env=ID` as one; a program takes processes="
        )
    if config.processes in ("auto", 1):
        return False
    if caller.hooks or caller.own_hooks:
        raise ConfigError(
            f"processes={config.processes}: a hook that is an object is told of runs of one process; use "
            "processes=1, or name the hook by its import path"
        )
    return True


def run_beside(config: Config, folder: Path, caller: Caller, overrides: Sequence[str] = ()) -> float:
    """Has a `ppo-train` beside this process run what is missing in a folder, and waits for it.

    Args:
        config: The config of a run that begins.
        folder: The run's folder, which exists.
        caller: The caller that has it run.
        overrides: Knobs to change in a run that goes on.

    Returns:
        The evaluation's mean return, or NaN where there is none.

    Raises:
        ConfigError: It can't be run like that.
        Interrupted: A signal ended it; it can go on.
        RunError: It could not go on.
    """
    run = RunFolder(folder)
    if not run.is_run:
        save_yaml(config, run.config_yaml)
    path = os.pathsep.join(filter(None, sys.path))  # what this program can import
    words = [sys.executable, "-c", COMMAND_BESIDE, f"resume={hydra_quoted(folder)}", *overrides]
    end = StopSignal(partial(advice_for, folder), at_once=True) if caller.owns_process else nullcontext()
    with (
        end,
        subprocess.Popen(
            words,
            env={**os.environ, "PYTHONPATH": path},
            stdout=None if caller.live else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process, which passes it on
        ) as command,
    ):
        try:
            _, told = command.communicate()
        except KeyboardInterrupt as error:
            command.send_signal(error.number if isinstance(error, Interrupted) else signal.SIGINT)
            command.communicate()
            raise
    if command.returncode:
        line = " ".join(told.split()).rpartition("ppo-train: ")[2] or f"status {command.returncode}"
        raise (ConfigError if command.returncode == 2 else RunError)(line)
    return float((run.evaluation or {}).get("mean", "nan"))
