"""One run of a checked config: trains, saves, evaluates and leaves a folder."""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import yaml

from ppo_cli.agent import PPOAgent
from ppo_cli.config.convert import save_yaml, to_dict
from ppo_cli.config.schema import Config
from ppo_cli.encoders import EncoderError
from ppo_cli.envs import calls
from ppo_cli.envs.backends import backend
from ppo_cli.envs.choose import available_cores, make_vector
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.infos import Wanted, plain_key
from ppo_cli.envs.make import EnvError, EnvFn
from ppo_cli.envs.snapshot import Kind, Lost, find_kind
from ppo_cli.envs.vector import Recipe
from ppo_cli.errors import RunError
from ppo_cli.files import read_json, read_yaml, write_whole
from ppo_cli.import_path import UserCodeError
from ppo_cli.policy import Policy
from ppo_cli.runs.build import (
    Checked,
    build_agent,
    build_normalizers,
    check_environment,
    env_maker,
    on_error_of,
    wanted_infos,
)
from ppo_cli.runs.checkpoint import CheckpointError
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.runs.checkpointing import CheckpointKeeper
from ppo_cli.runs.endings import Interrupted, StopSignal
from ppo_cli.runs.evaluation import Evaluation, evaluate, summarize
from ppo_cli.runs.folder import RunFolder, advice_for, noted_failure, own_run, repair
from ppo_cli.runs.lines import budget_words, device_words, network_words, pack, result_words, training_words
from ppo_cli.runs.log import Knob, RunLog
from ppo_cli.runs.watchdog import Watchdog
from ppo_cli.seeding import seed_global_generators
from ppo_cli.terminal import width
from ppo_cli.trainer import Collector, Position, make_collector, train

logger = logging.getLogger(__name__)

LINE = 80  # columns of a run's first lines

Watch = Callable[[Position, Evaluation], None]

# What ends a run in a line of its own; anything else is a fault of ours.
FAULTS = (EnvError, EnvFaultError, CheckpointError, EncoderError, UserCodeError, FloatingPointError, OSError)


def run(
    config: Config,
    folder: Path,
    saved: Checkpoint | None = None,
    live: bool = True,
    watch: Watch | None = None,
    preset: str = "",
) -> float:
    """Trains, saves and evaluates one config into an existing folder.

    Args:
        config: what to run.
        folder: where to.
        saved: a checkpoint of this run to go on from.
        live: whether it has the terminal to itself, for a progress line.
        watch: is called with every evaluation; what it raises ends the run.
        preset: the config's, in words for the first line; nothing where it is not known.

    Returns:
        The evaluation's mean return, or NaN where ``eval.episodes`` is 0.

    Raises:
        Interrupted: a signal ended it, after the running iteration and its checkpoint.
        RunError: it can't go on.
    """
    try:
        with own_run(folder):
            repair(folder, None if saved is None else saved.steps, config.checkpoint.keep)
            return run_owned(config, folder, saved, live, watch, preset)
    except OSError as error:
        raise RunError(str(error)) from error


def run_owned(
    config: Config,
    folder: Path,
    saved: Checkpoint | None,
    live: bool = True,
    watch: Watch | None = None,
    preset: str = "",
) -> float:
    """`run` in a folder that this process holds already, and that is in the state of ``saved``."""
    stop = StopSignal(partial(advice_for, folder), at_once=True)  # while it trains, another
    with noted_failure(folder), stop:
        try:
            return _run(config, folder, saved, live, watch, preset)
        except FAULTS as error:
            advice = advice_for(folder)
            raise RunError(f"{error}{advice and f'; {advice}'}") from error


def _run(
    config: Config,
    folder: Path,
    saved: Checkpoint | None,
    live: bool,
    watch: Watch | None,
    preset: str,
) -> float:
    with Watchdog(config.env.timeout, partial(advice_for, folder)):
        checked = check_environment(config, keep=True)
        config, notices = checked.config, checked.notices
        save_yaml(config, RunFolder(folder).config_yaml)
        torch.set_num_threads(config.cpu_threads)
        make, make_evaluated = env_maker(config.env, training=True), env_maker(config.env)
        seed_global_generators(config.seed)  # for environments that draw from them, here and in workers
        infos = wanted_infos(config)
        kind, kind_notice = _snapshot_kind(checked, make, saved)
        recipe = Recipe(
            config.env.id, [make] * config.n_envs, checked.spaces,
            kind=kind, on_error=on_error_of(config.env), infos=infos,
        )  # fmt: skip
        envs, choice = make_vector(recipe, config.vectorization)
        notices += filter(None, [_batch_notice(config), choice if config.n_envs > 1 else None, kind_notice])
        seed_global_generators(config.seed)  # again: what went before may have drawn from them
        try:
            agent = build_agent(config, recipe.spaces)
            normalizers = build_normalizers(config, envs.single_observation_space)
            for line in [*_first_lines(config, agent, envs.backend, preset), *notices]:
                logger.info(line)
            _advise_threads(config, agent)
            collector = make_collector(envs, agent, config.n_steps, *normalizers)
            tags = [f"info/{plain_key(key)}" for key in infos or ()]
            begun, lengths = (0, None) if saved is None else (saved.steps, saved.log)
            with RunLog(folder, config.trained_steps, lengths, live, tags, begun) as log:
                keeper = CheckpointKeeper(folder, config, agent, collector, log)
                if saved is None:
                    position = keeper.begin()
                else:
                    position, lost = keeper.restore(saved)
                    _say_lost(lost, config.n_envs)
                policy = Policy(agent.model, agent.distribution, collector.observation_normalizer)

                def evaluation_at(position: Position, last: bool = False) -> Evaluation:
                    found = _evaluate(config, policy, make_evaluated, infos, log)
                    log.evaluation(position.steps, found.mean, found.infos)
                    best = keeper.consider(position, found.mean)
                    if not last:
                        _say_evaluation(position.steps, found, best)
                    if watch is not None:
                        watch(position, found)
                    return found

                position = _train(config, agent, collector, log, keeper, position, evaluation_at)
                if not config.eval.episodes:
                    log.stop_progress()
                    logger.info("trained %s steps · %s", f"{position.steps:,}", folder)
                    return float("nan")
                evaluation = evaluation_at(position, last=True)
                log.hyperparameters(_flat_hyperparameters(config), _typed_knobs(folder))
        finally:
            envs.close()
    keeper.check_folder()
    _report(evaluation, config, position.steps, log.recent_return, folder)
    return evaluation.mean


def _evaluate(config: Config, policy: Policy, make: EnvFn, infos: Wanted, log: RunLog) -> Evaluation:
    """Evaluates a policy as the config says, and shows how far that is."""
    settings = {key: value for key, value in vars(config.eval).items() if key != "every"}
    with log.counting(config.eval.episodes) as count:
        return evaluate(
            policy, make, **settings, on_error=on_error_of(config.env), infos=infos, progress=count
        )


def _train(
    config: Config,
    agent: PPOAgent,
    collector: Collector,
    log: RunLog,
    keeper: CheckpointKeeper,
    position: Position,
    evaluation_at: Callable[[Position], Evaluation],
) -> Position:
    """Trains to the end of the budget, or of the iteration in which a signal comes."""
    advice = partial(advice_for, keeper.folder.path)
    with StopSignal(advice, at_once=agent.compiled) as signal:

        def after_iteration(position: Position) -> None:
            signal.at_once = False
            if config.eval.every and position.iteration % config.eval.every == 0:
                evaluation_at(position)
            number = signal.number  # once: what comes from here on ends the next iteration
            keeper.save(position, position.steps >= config.total_timesteps or number is not None)
            if number is not None:
                raise Interrupted(number, advice())

        return train(agent, collector, log, config.total_timesteps, position, after_iteration)


def _snapshot_kind(checked: Checked, make: EnvFn, saved: Checkpoint | None) -> tuple[Kind, str | None]:
    """How the environments are brought back, and a line on it; a run that goes on keeps what it had.

    The environment that was tried is used up.
    """
    config, tried = checked.config, checked.env
    needs_one = saved is None and checked.kind is None and backend(config.vectorization).restores
    if tried is not None and not needs_one:
        calls.close(tried)
    if saved is not None:
        return saved.snapshot_kind, None
    kind: Kind = find_kind(make, config.checkpoint.exact, tried) if needs_one else checked.kind or "none"
    starts = {
        "replay": "an episode's start by its generator",
        "seed": "a seeded start",
        "anew": "environments made anew at the end of some episodes (checkpoint.exact=true)",
    }
    if kind != "none":
        return kind, f"snapshots: {starts[kind]}, and the actions since"
    return kind, (
        f"snapshots: none of {config.env.id} (vectorization={config.vectorization}); going on after a stop "
        "begins new episodes there, which is not exact"
    )


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


def _batch_notice(config: Config) -> str | None:
    rows = config.rollout_rows
    if config.batch_size <= rows:
        return None
    return f"batch_size={config.batch_size} is above n_envs * n_steps = {rows}: each epoch is one full batch"


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


def _say_evaluation(steps: int, evaluation: Evaluation, best: bool) -> None:
    mark = " · best so far" if best else ""
    logger.info("eval at %s steps: %s%s", f"{steps:,}", result_words(evaluation), mark)


def _report(evaluation: Evaluation, config: Config, steps: int, trained: float, folder: Path) -> None:
    cut = sum(length >= config.eval.max_steps for length in evaluation.lengths)
    if cut:
        logger.warning("%d episodes were cut at eval.max_steps=%d", cut, config.eval.max_steps)
    deterministic = config.eval.deterministic
    summary = summarize(evaluation, steps, deterministic, config.eval.seed)
    # whole or not at all: that it is there says that a run is finished
    write_whole(RunFolder(folder).eval_json, json.dumps(summary, indent=2) + "\n")
    why = training_words(evaluation, trained) if deterministic else ""
    result = result_words(evaluation, deterministic)
    logger.info("%s after %s steps%s · %s", result, f"{steps:,}", why, folder)


def _typed_knobs(folder: Path) -> set[str]:
    """The knobs that were typed for a run; of a sweep's job, those in which the jobs differ."""
    own, plan = RunFolder(folder).overrides_yaml, folder.parent / "jobs.json"
    typed: set[str] = set()
    with contextlib.suppress(Exception):  # whatever lies there: it only orders HPARAMS
        typed = {str(override) for override in yaml.safe_load(read_yaml(own))}
        jobs = [job["overrides"] for job in read_json(plan)["jobs"]]
        typed -= set(jobs[0]).intersection(*jobs[1:]) if len(jobs) > 1 else set()
    keys = {override.lstrip("+").partition("=")[0] for override in typed}
    return {"env.id" if key == "env" else key for key in keys}


def _flat_hyperparameters(config: Config) -> dict[str, Knob]:
    """Every knob that is a number, a switch, a word or unset, by dotted name, as HPARAMS takes them."""

    def flatten(values: Mapping[str, object], prefix: str) -> dict[str, Knob]:
        flat: dict[str, Knob] = {}
        for key, value in values.items():
            if isinstance(value, Mapping):
                flat.update(flatten(value, f"{prefix}{key}."))
            elif value is None or isinstance(value, (bool, int, float, str)):
                flat[f"{prefix}{key}"] = value
            elif isinstance(value, Sequence):
                flat[f"{prefix}{key}"] = str(value)
        return flat

    return flatten(to_dict(config), "")
