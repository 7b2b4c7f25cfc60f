"""From a checked config to the objects of a run; the one place that unpacks it."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from gymnasium import Env, spaces

from ppo_cli.actor_critic import make_actor_critic
from ppo_cli.agent import Hyperparameters, PPOAgent, Schedules
from ppo_cli.checkpoint import load_checkpoint
from ppo_cli.config import Config, ConfigError, from_dict
from ppo_cli.distributions import make_distribution
from ppo_cli.envs.make import EnvError, make_env, resolve_env_id
from ppo_cli.envs.spaces import check_spaces
from ppo_cli.envs.vector import spawn_seeds
from ppo_cli.normalize import ObservationNormalizer, RewardNormalizer
from ppo_cli.policy import Policy
from ppo_cli.schedules import Schedule

logger = logging.getLogger(__name__)

COMPILE_REPAYS = 20_000  # minibatch steps from which compiling (half a minute when cold) is faster in all


def check_environment(config: Config) -> tuple[Config, str | None]:
    """Makes the environment once and holds the config against it.

    Returns:
        The config with the id that runs, and a line on what differs from what was typed, if anything does.

    Raises:
        ConfigError: the environment can't be made or trained on, with one line that says why.
    """
    typed = config.env.id
    try:
        config.env.id = resolve_env_id(typed)
        env = make_env(config.env.id, config.env.kwargs)
    except EnvError as error:
        raise ConfigError(str(error)) from error
    try:
        check_spaces(env.observation_space, env.action_space)
        check_agent(config, env)
    except ValueError as error:
        raise ConfigError(f"env={config.env.id}: {error}") from error
    finally:
        env.close()
    retired = config.env.id != typed and typed.rpartition("-v")[0]
    notice = f"{typed} is retired in Gymnasium; running its successor {config.env.id}" if retired else None
    return config, notice


def check_agent(config: Config, env: Env[Any, Any]) -> None:
    """Raises ConfigError where the config asks for what this environment or machine does not have."""
    if config.use_sde and not isinstance(env.action_space, spaces.Box):
        raise ConfigError(f"use_sde=true needs a Box action space, given {env.action_space}; set use_sde=false")
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device={config.device}: PyTorch sees no CUDA device here; use device=cpu or device=auto")


def build_agent(config: Config, env: Env[Any, Any], steps_per_iteration: int) -> PPOAgent:
    """The agent of a run, with fresh weights drawn from the run's seed."""
    torch.manual_seed(spawn_seeds(config.seed, "model", 1)[0])
    model = make_actor_critic(
        env.observation_space,
        env.action_space,
        use_sde=config.use_sde,
        hidden_sizes=config.network.hidden_sizes,
        activation=config.network.activation,
        shared=config.network.shared,
        ortho_init=config.network.ortho_init,
        log_std_init=config.network.log_std_init,
    )
    generators = [
        torch.Generator().manual_seed(spawn_seeds(config.seed, stream, 1)[0]) for stream in ("action", "minibatch")
    ]
    return PPOAgent(
        model,
        make_distribution(env.action_space),
        Hyperparameters(
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            batch_size=config.batch_size,
            n_epochs=config.n_epochs,
            normalize_advantage=config.normalize_advantage,
            vf_clip_ratio=config.vf_clip_ratio,
            max_grad_norm=config.max_grad_norm,
            target_kl=config.target_kl,
            sde_sample_freq=config.sde_sample_freq,
        ),
        Schedules(
            learning_rate=Schedule(config.learning_rate, *_curve(config, "learning_rate")),
            clip_ratio=Schedule(config.clip_ratio, *_curve(config, "clip_ratio")),
            ent_coef=Schedule(config.ent_coef, *_curve(config, "ent_coef")),
            vf_coef=Schedule(config.vf_coef, *_curve(config, "vf_coef")),
        ),
        *generators,
        device=torch.device("cpu" if config.device == "auto" else config.device),
        compiled=decide_compile(config, steps_per_iteration),
    )


def _curve(config: Config, knob: str) -> tuple[Any, Any]:
    anneal = getattr(config.anneal, knob)
    return anneal.final, anneal.shape


def decide_compile(config: Config, steps_per_iteration: int) -> bool:
    """Whether to compile the update: from the config alone, so that the same run gives the same weights."""
    if config.compile == "auto":
        iterations = -(-config.total_timesteps // steps_per_iteration)
        minibatches = -(-steps_per_iteration // config.batch_size)
        wanted = iterations * config.n_epochs * minibatches >= COMPILE_REPAYS
    else:
        wanted = bool(config.compile)
    if wanted and not any(shutil.which(compiler) for compiler in ("g++", "clang++", "cl")):
        logger.warning("no C++ compiler found: the update runs uncompiled, with other rounding and more slowly")
        return False
    return wanted


def build_normalizers(
    config: Config, observation_space: spaces.Space[Any]
) -> tuple[ObservationNormalizer | None, RewardNormalizer | None]:
    """The normalisers that the config asks for; observations that are no Box have none."""
    observations = rewards = None
    if config.normalize.observations and isinstance(observation_space, spaces.Box):
        observations = ObservationNormalizer(observation_space.shape, config.normalize.clip)
    if config.normalize.rewards:
        rewards = RewardNormalizer(config.n_envs, config.gamma, config.normalize.clip)
    return observations, rewards


def load_policy(checkpoint: Path) -> tuple[Policy, Config]:
    """The policy that a checkpoint holds, and the config it was trained with.

    Raises:
        CheckpointError: the file is not an intact checkpoint.
        ConfigError: the config inside is not a valid one.
    """
    payload = load_checkpoint(checkpoint)
    config = from_dict(payload["config"])
    env = make_env(config.env.id, config.env.kwargs)
    config.device = "cpu"
    agent = build_agent(config, env, config.n_envs * config.n_steps)
    agent.model.load_state_dict(payload["model"])
    normalizer, _ = build_normalizers(config, env.observation_space)
    if normalizer is not None:
        normalizer.statistics.load_state_dict(payload["observation_statistics"])
    env.close()
    return Policy(agent.model, agent.distribution, normalizer), config
