"""A run's policy evaluated again: with the settings of the run's own evaluation, or with others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ppo_cli import statistics
from ppo_cli.config.schema import Config
from ppo_cli.envs.group import EnvFaultError, explain
from ppo_cli.episodes import Evaluation
from ppo_cli.errors import RunError, UserCodeError
from ppo_cli.runs.build import evaluation_plan
from ppo_cli.runs.checkpoint import CheckpointError, load_newest, load_run
from ppo_cli.runs.evaluation import evaluate, mean_interval, summarize
from ppo_cli.runs.film import candidates, check_pictures, choose_episode, film, film_name, short_path
from ppo_cli.runs.folder import RunFolder
from ppo_cli.runs.policy import Policy, restore_policy
from ppo_cli.seeding import spawn_seeds

Say = Callable[[str], None]

DEFAULT_EPISODES = 20  # where the run itself asked for none


@dataclass(frozen=True)
class EvaluationOptions:
    """How a policy is evaluated; None is as the run's own evaluation was.

    Attributes:
        episodes: The number of episodes.
        seed: The seed of the evaluation.
        deterministic: Whether to take the most probable actions.
        env_kwargs: The arguments of the environment over the run's own.
        reset_options: The options of every reset over the run's own.
        video: The folder that a film of one episode is put into; None for no film.
        video_episode: Which episode that is, as `ppo_cli.runs.film.choose_episode` takes it.
    """

    episodes: int | None = None
    seed: int | None = None
    deterministic: bool | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    reset_options: Mapping[str, Any] = field(default_factory=dict)
    video: Path | None = None
    video_episode: str | None = None


def evaluate_checkpoint(
    checkpoint: Path, is_named: bool, options: EvaluationOptions, say: Say
) -> tuple[dict[str, Any], str]:
    """Evaluates the policy of a checkpoint, and films it where that is asked for.

    Args:
        checkpoint: The path of the file.
        is_named: Whether that checkpoint was asked for, or else the run's newest.
        options: How it is evaluated.
        say: A function that is told what is imported, and what is not as one may expect.

    Returns:
        What was found, and a line on the film, or nothing.

    Raises:
        ConfigError: There is no such episode to film, or the network does not fit its environment.
        EnvError: The environment can't be made, or not be filmed.
        RunError: The checkpoint is damaged, or an episode failed.
    """
    checkpoint, policy = load_intact(checkpoint, is_named, options.env_kwargs, say)
    config = policy.config
    reset_options = {**config.env.reset_options, **options.reset_options}
    config = replace(config, env=replace(config.env, reset_options=reset_options))
    torch.set_num_threads(config.cpu_threads)  # other sums, other bits
    own, which = config.eval, options.video_episode or "first"
    episodes = options.episodes or own.episodes or DEFAULT_EPISODES
    seed = own.seed if options.seed is None else options.seed
    deterministic = own.deterministic if options.deterministic is None else options.deterministic
    actions: dict[int, list[Any]] = {}
    if options.video is not None:
        actions = {episode: [] for episode in candidates(which, episodes)}
        check_pictures(config.env)  # before the evaluation, not after
        options.video.mkdir(parents=True, exist_ok=True)
    evaluation = play_episodes(policy, config, episodes, seed, deterministic, actions)
    cut = sum(length >= own.max_steps for length in evaluation.lengths)
    if cut:
        say(f"{checkpoint}: {cut} episodes lasted to eval.max_steps={own.max_steps}, where they are cut")
    line = ""
    if options.video is not None:
        episode = choose_episode(which, evaluation.returns)
        path = options.video / film_name(checkpoint, episode)
        begun = spawn_seeds(seed, "eval", episodes)[episode]
        shown, expected = film(config.env, begun, actions[episode], path), evaluation.returns[episode]
        if shown != expected:
            other = f"another episode, with return {shown:g} instead of {expected:g}"
            say(f"{checkpoint}: the film shows {other}")
        line = f"{short_path(path)} (episode {episode}, return {shown:.2f})"
    summary = summarize(evaluation, policy.steps, deterministic, seed)
    interval = mean_interval(evaluation.returns, seed) if statistics.has_scipy() else None
    return {**summary, "checkpoint": str(checkpoint), "interval": interval}, line


def play_episodes(
    policy: Policy,
    config: Config,
    episodes: int,
    seed: int,
    deterministic: bool,
    actions: dict[int, list[Any]] | None = None,
) -> Evaluation:
    """Evaluates a policy in the environment that a config says.

    Args:
        policy: The policy.
        config: The config of its run.
        episodes: The number of episodes.
        seed: The seed of the evaluation.
        deterministic: Whether to take the most probable actions.
        actions: Lists, by episode, that the actions of those episodes are put into.

    Raises:
        RunError: An episode failed.
    """
    try:
        plan = evaluation_plan(config)._replace(episodes=episodes, seed=seed, deterministic=deterministic)
        return evaluate(policy.batch, plan, actions, parts=config.shards)
    except (EnvFaultError, UserCodeError, FloatingPointError) as error:
        raise RunError(f"{config.env.id}: {error}") from error
    except Exception as error:  # observations of another shape, where arguments have changed them
        raise RunError(f"{config.env.id} {explain(error)}") from error


def load_intact(
    checkpoint: Path, is_named: bool, env_kwargs: Mapping[str, Any] | None, say: Say
) -> tuple[Path, Policy]:
    """The policy of a checkpoint, or of the newest intact one where the run's last is damaged.

    Args:
        checkpoint: The path of the file.
        is_named: Whether that checkpoint was asked for: then no other takes its place.
        env_kwargs: The arguments of the environment over the run's own.
        say: A function that is told what is imported, and which other checkpoint is taken.

    Returns:
        The file that was read, and the policy.

    Raises:
        RunError: The checkpoint is damaged, and was asked for by name or is the only one; or it is no run's.
    """
    try:
        try:
            saved = load_run(checkpoint)
        except CheckpointError as damage:
            if checkpoint.parent.name != RunFolder.checkpoints.name:
                raise
            newest, _ = load_newest(checkpoint.parent)
            if newest is None:
                raise
            other = checkpoint.with_name(f"{newest.steps}.pt")
            if is_named:
                raise RunError(f"{damage}; the newest intact one is {other.name}") from damage
            say(f"{damage}; evaluating {other.name}, the newest that is intact")
            checkpoint, saved = other, newest
        return checkpoint, restore_policy(saved, checkpoint, env_kwargs, say)
    except CheckpointError as error:
        raise RunError(error if str(checkpoint) in str(error) else f"{checkpoint}: {error}") from error
