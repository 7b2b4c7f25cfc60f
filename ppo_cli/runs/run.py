"""One run of a checked config: trains, saves, evaluates and leaves a folder."""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from ppo_cli.agent import PPOAgent
from ppo_cli.collective import Collective
from ppo_cli.config.convert import dotted, save_yaml, to_dict
from ppo_cli.config.schema import Config
from ppo_cli.envs.backends import backend
from ppo_cli.envs.choose import available_cores
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.infos import plain_key
from ppo_cli.envs.snapshot import Lost
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import EnvError, RunError, UserCodeError
from ppo_cli.files import read_json, read_yaml, write_whole
from ppo_cli.hooks import Hook, Hooks, RunState, UserHook, telling_hooks
from ppo_cli.runs import stopping
from ppo_cli.runs.advising import Advising
from ppo_cli.runs.build import (
    Checked,
    build_agent,
    check_environment,
    wanted_infos,
)
from ppo_cli.runs.caller import COMMAND, Caller
from ppo_cli.runs.checkpoint import CheckpointError
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.checkpointing import CheckpointKeeper, begin, restore, restore_hooks
from ppo_cli.runs.diagnosing import Diagnosing
from ppo_cli.runs.environments import make_envs, make_shards
from ppo_cli.runs.evaluation import summarize
from ppo_cli.runs.folder import RunFolder, advice_for, noted_failure, own_run, repair
from ppo_cli.runs.following import lead
from ppo_cli.runs.intrinsic import make_intrinsic
from ppo_cli.runs.log import Knob, RunLog
from ppo_cli.runs.messages import (
    budget_words,
    device_words,
    network_words,
    pack,
    result_words,
    training_words,
)
from ppo_cli.runs.own_hooks import Evaluating, Signals, make_evaluating
from ppo_cli.runs.processes import Comparing, Leading, meet
from ppo_cli.runs.progress import Progress
from ppo_cli.runs.signals import StopSignal
from ppo_cli.runs.user_hooks import make_hooks
from ppo_cli.runs.watchdog import Watchdog
from ppo_cli.shards import Shards
from ppo_cli.spaces import Spaces
from ppo_cli.terminal import width
from ppo_cli.trainer import train

logger = logging.getLogger(__name__)

LINE = 80  # columns of a run's first lines

# What ends a run in a line of its own; anything else is a fault of ours.
FAULTS = (
    EnvError, EnvFaultError, CheckpointError, UserCodeError, FloatingPointError,
    OSError,
)  # fmt: skip


def run(
    config: Config,
    folder: Path,
    saved: Checkpoint | None = None,
    caller: Caller = COMMAND,
    checked: Checked | None = None,
) -> float:
    """Trains, saves and evaluates one config into an existing folder.

    Args:
        config: The config to run.
        folder: The folder that it is written to.
        saved: A checkpoint of this run to go on from.
        caller: The caller that runs it.
        checked: The findings of `check_environment` on the config, where that was asked already.

    Returns:
        The evaluation's mean return, or NaN where ``eval.episodes`` is 0.

    Raises:
        Interrupted: A signal ended it, after the running iteration and its checkpoint.
        RunError: It can't go on.
    """
    try:
        with own_run(folder):
            repair(folder, None if saved is None else saved.steps, config.checkpoint.keep)
            return run_owned(config, folder, saved, caller, checked)
    except OSError as error:
        raise RunError(str(error)) from error


def run_owned(
    config: Config,
    folder: Path,
    saved: Checkpoint | None,
    caller: Caller = COMMAND,
    checked: Checked | None = None,
    first: Checkpoint | None = None,
) -> float:
    """`run` in a folder that this process holds already, and that is in the state of ``saved``.

    Args:
        config: As for `run`.
        folder: As for `run`.
        saved: As for `run`.
        caller: As for `run`.
        checked: As for `run`.
        first: The run's checkpoint of its beginning, where it begins again: with what it took of another run.
    """
    advice = partial(advice_for, folder)
    signal = StopSignal(advice, at_once=True) if caller.owns_process else None
    watchdog = Watchdog(config.env.timeout, advice) if caller.watchdog else nullcontext()
    with signal or nullcontext(), watchdog:
        begins = saved is None and first is None
        checked = checked or check_environment(config, caller.watchdog, keep=True, begins=begins)
        if first is not None and config.init_from is not None:
            from ppo_cli.runs.init_from import whole_beginning
            from ppo_cli.runs.sources import of_checkpoint

            checked = replace(checked, beginning=whole_beginning(of_checkpoint(first, config.init_from)))
        with noted_failure(folder):  # what is refused is no failure of the run
            try:
                with closing(meet()) as collective:
                    return _run(checked, folder, saved, caller, signal, collective, first)
            except FAULTS as error:
                more = advice()
                raise RunError(f"{error}{more and f'; {more}'}") from error


def _run(
    checked: Checked,
    folder: Path,
    saved: Checkpoint | None,
    caller: Caller,
    signal: StopSignal | None,
    collective: Collective,
    first: Checkpoint | None,
) -> float:
    """The life of a run: what it needs is made, then it begins or goes on, trains, and is evaluated."""
    config = checked.config
    save_yaml(config, RunFolder(folder).config_yaml)
    collective.advise(partial(advice_for, folder))
    lead(checked, saved, collective)
    torch.set_num_threads(config.cpu_threads)
    with ExitStack() as opened:
        vectors, more = make_envs(checked, saved, collective, opened)
        agent = build_agent(config, checked.spaces, collective)
        stepped_by = vectors[0].backend
        for line in [*_first_lines(config, agent, stepped_by, caller.preset), *checked.notices, *more]:
            logger.info(line)
        _advise_threads(config, agent)
        shards = make_shards(config, agent, vectors, collective)
        if caller.watchdog:
            agent.compile_ahead(shards.collectors[0].rollout)
        hooks = _run_hooks(config, folder, saved, caller, signal, shards)
        state = RunState(folder, to_dict(config), agent, shards, config.total_timesteps, hooks.all)
        if saved is None:
            begin(state, config, checked.beginning)
            if first is not None:
                restore_hooks(hooks.users, first.hooks)
        else:
            _say_lost(restore(state, config, saved, hooks.users, hooks.keeping), config.n_envs)
        with telling_hooks(state):
            train(state)
            state.trained = True
            if state.stopped:
                logger.info("stopped at %s steps: %s", f"{state.steps:,}", state.stopped)
            if not config.eval.episodes:
                hooks.progress.stop()
                logger.info("trained %s steps · %s", f"{state.steps:,}", folder)
                return float("nan")
            evaluation = hooks.evaluating.evaluate(state)
            hooks.log.hyperparameters(_flat_hyperparameters(config), _typed_knobs(folder))
            hooks.progress.stop()
            opened.close()
            hooks.keeper.check_folder()
            _report(evaluation, config, state, hooks.progress.recent_return)
            return evaluation.mean


class RunHooks(NamedTuple):
    """All that is told of a run.

    Attributes:
        users: The user's hooks.
        keeping: The run's own that keep a state, by the name that checkpoints have for it.
        log: Writes the scalars.
        progress: Shows how far the run is.
        evaluating: Evaluates the policy.
        keeper: Writes the checkpoints.
        all: These and those of the caller, in their order.
    """

    users: list[UserHook]
    keeping: Mapping[str, Hook]
    log: RunLog
    progress: Progress
    evaluating: Evaluating
    keeper: CheckpointKeeper
    all: Hooks


def _run_hooks(
    config: Config,
    folder: Path,
    saved: Checkpoint | None,
    caller: Caller,
    signal: StopSignal | None,
    shards: Shards,
) -> RunHooks:
    """Makes the hooks of a run. What is logged is evaluated next, and what is evaluated is saved."""
    infos, envs = wanted_infos(config), shards.collectors[0].envs
    leading = [Leading(shards.collective)] if shards.collective.processes > 1 else []
    rewarding = make_intrinsic(config, Spaces(envs.single_observation_space, envs.single_action_space))
    users = make_hooks(config, caller.hooks)
    log = RunLog(
        folder, None if saved is None else saved.log, [f"info/{plain_key(key)}" for key in infos or ()]
    )
    progress = Progress(config.trained_steps, caller.live)
    evaluating = make_evaluating(config, progress.counting)
    signals = [] if signal is None else [Signals(signal, partial(advice_for, folder))]
    kept = {
        "intrinsic": rewarding,
        stopping.NAME: stopping.make_stopping(config.stop),
        "advising": Advising(),
    }
    keeping = {name: hook for name, hook in kept.items() if hook is not None}
    keeper = CheckpointKeeper(config, folder, log, users, keeping)
    diagnosing = Diagnosing(config.seed) if config.log.diagnostics else None
    told = [rewarding, diagnosing, *users, kept[stopping.NAME], kept["advising"]]
    shown = [
        *map(Comparing, leading),
        log,
        progress,
        evaluating,
        *signals,
        keeper,
        *caller.own_hooks,
        *leading,
    ]
    everyone = [*(hook for hook in told if hook is not None), *shown]
    return RunHooks(users, keeping, log, progress, evaluating, keeper, Hooks(everyone))


def _say_lost(lost: Sequence[Lost], n_envs: int) -> None:
    """A line on the environments that did not come back."""
    if lost:
        which = "all" if len(lost) == n_envs else f"{len(lost)} of {n_envs}"
        logger.info(
            "not exact from here on: %s environments begin new episodes (environment %d: %s)",
            which, lost[0].env, lost[0].why,
        )  # fmt: skip


def _advise_threads(config: Config, agent: PPOAgent) -> None:
    """Says that images and memories may want more threads than `auto`, which is the same on all machines."""
    cores = available_cores()
    if agent.keeps_outputs and config.threads == "auto" and agent.device.type == "cpu" and cores > 1:
        logger.info(
            "threads=auto is one thread; threads=%d uses this machine's cores (other rounding)", cores
        )


def _first_lines(config: Config, agent: PPOAgent, stepped_by: str, preset: str) -> list[str]:
    """What is trained: the environment and its preset, the network and what it runs on, the budget."""
    is_filled = backend(config.vectorization).fills
    lines = (
        [config.env.id, *filter(None, [preset])],
        [network_words(agent.model), stepped_by, device_words(agent.device, torch.get_num_threads())],
        [budget_words(config.total_timesteps, config.n_envs, config.n_steps, is_filled)],
    )
    columns = min(width(), LINE)
    return [line for pieces in lines for line in pack(pieces, columns)]


def _report(evaluation: Evaluation, config: Config, run: RunState, trained: float) -> None:
    """Writes eval.json, which says that a run is finished, and says its last line."""
    cut = sum(length >= config.eval.max_steps for length in evaluation.lengths)
    if cut:
        logger.warning(
            "%d episodes lasted to eval.max_steps=%d, where they are cut", cut, config.eval.max_steps
        )
    deterministic = config.eval.deterministic
    summary = summarize(evaluation, run.steps, deterministic, config.eval.seed)
    if run.stopped:
        summary["stopped"] = run.stopped
    write_whole(RunFolder(run.folder).eval_json, json.dumps(summary, indent=2) + "\n")  # whole or not at all
    why = training_words(evaluation, trained) if deterministic else ""
    result = result_words(evaluation, deterministic)
    logger.info("%s after %s steps%s · %s", result, f"{run.steps:,}", why, run.folder)


def _typed_knobs(folder: Path) -> set[str]:
    """The knobs that were typed for a run; of a sweep's job, those in which the jobs differ."""
    own, plan = RunFolder(folder).overrides_yaml, folder.parent / "jobs.json"
    with contextlib.suppress(Exception):  # whatever lies there: it only orders HPARAMS
        jobs = [dict(dotted(job["config"])) for job in read_json(plan)["jobs"]]
        if len(jobs) > 1:
            return {name for name in jobs[0] if any(job.get(name) != jobs[0][name] for job in jobs)}
    typed: list[str] = []
    with contextlib.suppress(Exception):
        typed = [str(override) for override in yaml.safe_load(read_yaml(own))]
    keys = {override.lstrip("+").partition("=")[0] for override in typed}
    return {"env.id" if key == "env" else key for key in keys}


def _flat_hyperparameters(config: Config) -> dict[str, Knob]:
    """Every knob that is a number, a switch, a word or unset, by dotted name, as HPARAMS takes them."""
    return {
        name: value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in dotted(to_dict(config))
    }
