"""`ppo-train`: composes and checks, then trains, evaluates and leaves a folder."""

import json
import logging
import os
import random
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import hydra
import numpy as np
import torch
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ppo_cli import __version__
from ppo_cli.agent import PPOAgent
from ppo_cli.checkpoint import save_checkpoint
from ppo_cli.cli.build import (
    build_agent,
    build_normalizers,
    check_environment,
)
from ppo_cli.cli.compose import compose_jobs, expand_preset
from ppo_cli.cli.help import help_text
from ppo_cli.cli.run_dir import folder_name, make_exclusive, run_dir, sweep_overrides
from ppo_cli.config import Config, ConfigError, conf_dir, parse, register_schema, save_yaml, to_dict
from ppo_cli.envs.backends import make_vector
from ppo_cli.envs.make import EnvError, env_fn
from ppo_cli.envs.vector import spawn_seeds
from ppo_cli.envs.workers import WorkerError
from ppo_cli.evaluation import Evaluation, evaluate
from ppo_cli.metrics import RunLog
from ppo_cli.policy import Policy
from ppo_cli.trainer import Collector, make_collector, train

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point of the console script: what is wrong ends in one line and a status."""
    try:
        _dispatch(sys.argv[1:])
    except (ConfigError, EnvError) as error:
        print(f"ppo-train: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        sys.stderr.close()
        sys.exit(141)
    except (FloatingPointError, WorkerError, OSError) as error:
        print(f"ppo-train: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("ppo-train: interrupted", file=sys.stderr)
        sys.exit(130)


def _dispatch(arguments: list[str]) -> None:
    """Composes and checks every job, makes the folder, and hands over to Hydra."""
    parser = get_args_parser()
    parser.prog = "ppo-train"
    args = parser.parse_args(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, whole, instead of ending the process
    register_schema()
    OmegaConf.register_new_resolver("job_dir", folder_name, replace=True)
    if args.shell_completion or args.hydra_help or args.info or args.experimental_rerun:
        _job()
        return
    if args.config_path:
        raise ConfigError("--config-path: ppo-train has its own; add a folder of yours with --config-dir")
    if args.cfg and args.multirun:
        raise ConfigError("--cfg shows one job: leave out -m and give each key one value")
    overrides = expand_preset(args.overrides)
    jobs = compose_jobs(overrides, args.multirun, args.config_dir, args.config_name or "config")
    if args.help:
        print(help_text(jobs[0][1]))
        return
    configs = [check_environment(config)[0] for _, config in jobs]
    flags = [argument for argument in arguments if argument not in args.overrides]
    if args.multirun:
        overrides += sweep_overrides([job for job, _ in jobs], datetime.now())
    elif not (args.cfg or any(override.startswith("hydra.run.dir=") for override in overrides)):
        folder = make_exclusive(run_dir(configs[0].env.id, args.overrides, datetime.now()))
        overrides.append(f"hydra.run.dir='{folder}'")
    sys.argv[1:] = [*flags, *overrides]
    _job()


@hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
def _job(composed: DictConfig) -> float:
    """One job: what Hydra calls with the composed config; its result is what a search maximises."""
    return run(parse(composed), Path(os.path.relpath(HydraConfig.get().runtime.output_dir)))


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
