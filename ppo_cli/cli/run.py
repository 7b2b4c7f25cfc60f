"""One run of a checked config: trains, saves, evaluates and leaves a folder."""

import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ppo_cli import __version__
from ppo_cli.agent import PPOAgent
from ppo_cli.checkpoint import save_checkpoint
from ppo_cli.cli.build import build_agent, build_normalizers, check_environment
from ppo_cli.config import Config, save_yaml, to_dict
from ppo_cli.envs.backends import make_vector
from ppo_cli.envs.make import env_fn
from ppo_cli.envs.vector import spawn_seeds
from ppo_cli.evaluation import Evaluation, evaluate
from ppo_cli.metrics import RunLog
from ppo_cli.policy import Policy
from ppo_cli.trainer import Collector, make_collector, train

logger = logging.getLogger(__name__)


def run(config: Config, folder: Path) -> float:
    """Trains, saves and evaluates one config into an existing folder.

    Returns:
        The evaluation's mean return, or NaN where ``eval.episodes`` is 0.
    """
    config, notice = check_environment(config)
    save_yaml(config, folder / "config.yaml")
    torch.set_num_threads(1 if config.threads == "auto" else int(config.threads))
    make = env_fn(config.env.id, config.env.kwargs)
    random.seed(config.seed)  # for environments that draw from the global generators, here and in workers
    np.random.seed(config.seed)
    envs, choice = make_vector(config.env.id, make, config.n_envs, config.vectorization)
    for line in filter(None, [notice, _batch_notice(config), choice]):
        logger.info(line)
    random.seed(config.seed)  # again: choosing a backend may have drawn from them
    np.random.seed(config.seed)
    try:
        env = make()
        agent = build_agent(config, env)
        normalizers = build_normalizers(config, env.observation_space)
        env.close()
        collector = make_collector(envs, agent, config.n_steps, *normalizers)
        collector.reset(spawn_seeds(config.seed, "env", config.n_envs))
        with RunLog(folder, config.total_timesteps) as log:
            steps = train(agent, collector, log, config.total_timesteps)
            _save(folder, config, agent, collector, steps)
            log.stop_progress()
            if not config.eval.episodes:
                logger.info("trained %s steps · %s", f"{steps:,}", folder)
                return float("nan")
            policy = Policy(agent.model, agent.distribution, collector.observation_normalizer)
            evaluation = evaluate(policy, make, **vars(config.eval))
            cut = sum(length >= config.eval.max_steps for length in evaluation.lengths)
            if cut:
                logger.warning("%d episodes were cut at eval.max_steps=%d", cut, config.eval.max_steps)
            log.evaluation(steps, evaluation.mean, _flat_hyperparameters(config))
    finally:
        envs.close()
    _save_evaluation(folder / "eval.json", evaluation, config, steps)
    kind = "deterministic" if config.eval.deterministic else "sampled"
    logger.info(
        "return %.1f ± %.1f over %d %s episodes after %s steps · %s",
        evaluation.mean, evaluation.std, len(evaluation.returns), kind, f"{steps:,}", folder,
    )  # fmt: skip
    return evaluation.mean


def _batch_notice(config: Config) -> str | None:
    rows = config.n_envs * config.n_steps
    if config.batch_size <= rows:
        return None
    return f"batch_size={config.batch_size} is above n_envs * n_steps = {rows}: each epoch is one full batch"


def _save(folder: Path, config: Config, agent: PPOAgent, collector: Collector, steps: int) -> None:
    """Writes the checkpoint of these steps, and the same as the last one."""
    payload = {
        **agent.state_dict(),
        "steps": steps,
        "config": to_dict(config),
        "versions": {"ppo-cli": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    if collector.observation_normalizer is not None:
        payload["observation_statistics"] = collector.observation_normalizer.statistics.state_dict()
    if collector.reward_normalizer is not None:
        payload["reward_statistics"] = collector.reward_normalizer.statistics.state_dict()
    for name in (f"{steps}.pt", "last.pt"):
        save_checkpoint(folder / "checkpoints" / name, payload)


def _save_evaluation(path: Path, evaluation: Evaluation, config: Config, steps: int) -> None:
    summary = {
        "mean": evaluation.mean,
        "std": evaluation.std,
        "iqm": evaluation.iqm,
        "episodes": len(evaluation.returns),
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
        "steps": steps,
        "deterministic": config.eval.deterministic,
        "seed": config.eval.seed,
    }
    path.write_text(json.dumps(summary, indent=2) + "\n")


def _flat_hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Every knob that is a number, a switch or a word, by dotted name, as HPARAMS takes them."""

    def flatten(values: dict[str, object], prefix: str) -> dict[str, bool | int | float | str]:
        flat: dict[str, bool | int | float | str] = {}
        for key, value in values.items():
            if isinstance(value, dict):
                flat.update(flatten(value, f"{prefix}{key}."))
            elif isinstance(value, (bool, int, float, str)):
                flat[f"{prefix}{key}"] = value
            elif isinstance(value, Sequence):
                flat[f"{prefix}{key}"] = str(value)
        return flat

    return flatten(to_dict(config), "")
