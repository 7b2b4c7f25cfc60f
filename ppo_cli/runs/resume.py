"""`ppo-train resume=RUN_DIR`: a run goes on where its newest intact checkpoint left it."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_cli.config.compose import override_config
from ppo_cli.config.convert import dotted, from_stored, to_dict
from ppo_cli.config.overrides import read_override
from ppo_cli.config.quoting import shell_quoted
from ppo_cli.config.schema import KL, KNOBS, Config
from ppo_cli.config.trust import imports
from ppo_cli.envs.backends import backend
from ppo_cli.errors import ConfigError, RunError
from ppo_cli.importing import importing
from ppo_cli.runs.beside import run_beside, runs_beside
from ppo_cli.runs.caller import COMMAND, Caller
from ppo_cli.runs.folder import RunFolder, advice_for, own_run, repair
from ppo_cli.runs.launch import launch_others
from ppo_cli.runs.signals import StopSignal
from ppo_cli.runs.streams import logging_to

if TYPE_CHECKING:
    from ppo_cli.runs.checkpoint_schema import Checkpoint

logger = logging.getLogger(__name__)


def resume(folder: Path, overrides: Sequence[str], caller: Caller = COMMAND) -> None:
    """Goes on with the run in ``folder``, or says that it is finished.

    Args:
        folder: The folder of a run.
        overrides: Knobs to change, as on any command line.
        caller: Who runs it; a job that hasn't the terminal to itself only warns there.

    Raises:
        ConfigError: the folder holds no run, or an override can't be taken.
        RunError: there are checkpoints, and none is intact; or the run can't go on.
    """
    typed = [read_override(override).key_or_group for override in overrides]
    config = override_config(_stored_config(folder), overrides)
    if caller is COMMAND:
        launch_others(config)
    if runs_beside(config, caller):
        run_beside(config, folder, caller, overrides)
        return
    _resume(folder, lambda before: override_config(before, overrides), caller, typed)


def resume_as(folder: Path, config: Config, caller: Caller = COMMAND) -> None:
    """`resume` with all knobs as ``config`` has them.

    Args:
        folder: The folder of a run.
        config: The config of the run from now on.
        caller: The caller that runs it.

    Raises:
        ConfigError: one differs that can't change any more.
        RunError: as `resume`.
    """
    _resume(folder, lambda _: config, caller)


def resumed_config(folder: Path, overrides: Sequence[str]) -> Config:
    """The config that `resume` would go on with.

    Raises:
        ConfigError: as `resume`.
    """
    before = _stored_config(folder)
    after = override_config(before, overrides)
    _differences(folder, before, after)
    return after


def _stored_config(folder: Path) -> Config:
    RunFolder(folder).check("resume=")
    return RunFolder(folder).config


def _resume(
    folder: Path, change: Callable[[Config], Config], caller: Caller, typed: Sequence[str] = ()
) -> None:
    before = _stored_config(folder)
    signal = StopSignal(partial(advice_for, folder), at_once=True) if caller.owns_process else nullcontext()
    with signal, own_run(folder):
        _go_on(folder, before, change, caller, typed)


def _go_on(
    folder: Path,
    before: Config,
    change: Callable[[Config], Config],
    caller: Caller,
    typed: Sequence[str],
) -> None:
    with importing(caller.owns_process):  # late: they bring PyTorch
        from ppo_cli.runs.checkpoint import CheckpointError
        from ppo_cli.runs.run import run_owned

    run = RunFolder(folder)
    try:
        saved, damage = run.newest()
    except CheckpointError as error:
        raise RunError(f"{error}; no older checkpoint is intact") from error
    if saved is None and run.has_trained:
        raise RunError(
            f"{folder} has trained, and its checkpoints are gone: put {run.checkpoints} back to go on, or "
            "start a new run; what it logged stays as it is"
        )
    if saved is not None:
        _check_same_run(folder, before, from_stored(saved.config))
    after = change(before)
    lines = [f"{line}; going on from the one before" for line in damage]
    lines += _differences(folder, before, after)
    lines += imports(after, run.config_yaml, typed=typed)
    first = None
    if saved is not None and not saved.iteration:
        first, saved = saved, None  # nothing is trained: beginning is exact whatever the environments are
    elif saved is None and after.init_from is not None:
        lines.append(f"reading the weights of {after.init_from}, which {run.config_yaml} names (init_from)")
    repair(folder, None if saved is None else saved.steps, after.checkpoint.keep)

    with logging_to(run.train_log, verbose=caller.live):
        for line in lines:
            logger.info(line)
        if saved is None:
            logger.info("%s has trained nothing yet: it starts from the beginning", folder)
        else:
            stopped = _still_stopped(saved, after, caller)
            saved = replace(saved, stopped=stopped, steered=_still_steered(saved, after))
            if run.has_reached(saved, after):
                logger.info(
                    "%s is finished: %s of total_timesteps=%s%s extends it",
                    folder, f"{saved.steps:,}", f"{after.total_timesteps:,}", _remedy(saved),
                )  # fmt: skip
                return
            logger.info("going on from step %s in %s", f"{saved.steps:,}", folder)
        run_owned(after, folder, saved, caller, first=first)


def _still_stopped(saved: "Checkpoint", after: Config, caller: Caller) -> str:
    """Why a hook stopped the run, where its hooks and ``stop`` are what they were then; else nothing.

    A larger budget has a run go on that a hook of the user's has stopped, and not one that ``stop`` has: what
    it asks for is reached.
    """
    from ppo_cli.runs.user_hooks import hook_names

    before = from_stored(saved.config)
    names = [hook["name"] for hook in saved.hooks]
    same = before.hooks == after.hooks and names == hook_names(after, caller.hooks)
    same = same and before.stop == after.stop
    lasts = _reached(saved) or before.total_timesteps >= after.total_timesteps
    return saved.stopped if same and lasts else ""


def _reached(saved: "Checkpoint") -> str:
    """The knob ``stop.*`` that has stopped the run; empty where none has."""
    from ppo_cli.runs import stopping

    return stopping.reached(saved.own_hooks.get(stopping.NAME, {}))


def _remedy(saved: "Checkpoint") -> str:
    """What a finished run was stopped by, if it was, and what has it go on."""
    if not saved.stopped:
        return "; a larger total_timesteps="
    knob = _reached(saved)
    if knob:
        return f" ({saved.stopped}); another {knob}="
    return f" ({saved.stopped}); other hooks= or a larger total_timesteps="


def _still_steered(saved: "Checkpoint", after: Config) -> dict[str, float]:
    """Where the update has steered knobs to, but for those that are given another start."""
    before = from_stored(saved.config)
    return {
        name: value
        for name, value in saved.steered.items()
        if getattr(before, name, None) == getattr(after, name, None)
    }


def _check_same_run(folder: Path, run: Config, checkpoint: Config) -> None:
    """Raises RunError where the checkpoint is of a run on something else than the folder's config."""
    old, new = (dict(dotted(to_dict(config), KNOBS)) for config in (checkpoint, run))
    for key in new:
        if KNOBS[key].fixed and new[key] != old[key]:
            raise RunError(
                f"the newest checkpoint in {folder} is of another run: its {key} is {old[key]}, "
                f"config.yaml says {new[key]}"
            )


def _differences(folder: Path, before: Config, after: Config) -> list[str]:
    """A line on each knob that changes, and on what that means for annealed ones.

    Raises:
        ConfigError: a knob can't change any more.
    """
    old, new = (dict(dotted(to_dict(config), KNOBS)) for config in (before, after))
    changed = [key for key in new if new[key] != old.get(key)]
    for key in changed:
        if KNOBS[key].fixed:
            raise ConfigError(
                f"{key} can't change on resuming: it was {old.get(key)}, given {new[key]}; "
                f"init_from={shell_quoted(folder)} starts a new run with its weights"
            )
        if key == "vectorization" and (was := backend(old[key]).steps) != (
            new_ones := backend(new[key]).steps
        ):
            raise ConfigError(
                f"vectorization can't change on resuming from {was} environments to {new_ones}: it was "
                f"{old[key]}, given {new[key]}"
            )
    lines = [f"{key}: {old.get(key)} -> {new[key]}" for key in changed]
    curves = {name: getattr(after.anneal, name) for name in vars(after.anneal)}
    annealed = [
        name
        for name, curve in curves.items()
        if curve.shape != KL and (curve.final is not None or curve.warmup)
    ]
    if "total_timesteps" in changed and annealed:
        lines.append(f"the schedule of {', '.join(annealed)} follows total_timesteps: its value changes here")
    return lines
