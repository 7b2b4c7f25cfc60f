"""From a checked config to the objects of a run; the one place that unpacks it."""

import logging
import re
import shutil
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import Env, spaces
from platformdirs import user_cache_path

from ppo_cli.actor_critic import ActorCritic, make_actor_critic
from ppo_cli.agent import PPOAgent
from ppo_cli.arrays import as_array
from ppo_cli.cache import trusted_folder
from ppo_cli.collective import ALONE, Collective
from ppo_cli.config.convert import same_named
from ppo_cli.config.idle import idle_notices
from ppo_cli.config.schema import Config, EnvConfig
from ppo_cli.config.trust import check_names
from ppo_cli.distributions import HeadChoice
from ppo_cli.encoders import EncoderChoice
from ppo_cli.envs import calls
from ppo_cli.envs.backends import backend
from ppo_cli.envs.calls import Call, calling, let_interrupt_pass
from ppo_cli.envs.group import OnError
from ppo_cli.envs.infos import Wanted, parse_keys
from ppo_cli.envs.make import EnvFn, env_fn, resolve_env_id, spaces_of, with_masks
from ppo_cli.envs.notices import (
    image_notice,
    learning_notice,
    mask_notice,
    normalization_notice,
    range_notice,
)
from ppo_cli.envs.pack import MASKABLE, MaskSource, find_mask
from ppo_cli.envs.snapshot import SnapshotKind, find_kind
from ppo_cli.envs.vector import Recipe
from ppo_cli.errors import ConfigError, EnvError
from ppo_cli.normalize import (
    ObservationNormalizer,
    RewardNormalizer,
    make_observation_normalizer,
)
from ppo_cli.parts import freeze
from ppo_cli.runs.algorithm import build_distribution, build_hyperparameters, build_schedules, try_update
from ppo_cli.runs.capacity import check_rollout, check_weights
from ppo_cli.runs.evaluation import EvaluationPlan
from ppo_cli.runs.intrinsic import try_intrinsic
from ppo_cli.runs.ranks import check_processes
from ppo_cli.runs.signals import no_advice
from ppo_cli.runs.user_hooks import check_hooks
from ppo_cli.runs.vectorization import decide_vectorization
from ppo_cli.runs.watchdog import Watchdog
from ppo_cli.seeding import spawn_seeds, stream_generator
from ppo_cli.spaces import Spaces, leaves_of
from ppo_cli.text import flat
from ppo_cli.trunks import TrunkChoice

if TYPE_CHECKING:  # what few runs begin with is imported where it is asked for
    from ppo_cli.runs.init_from import Beginning
    from ppo_cli.runs.sources import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """A config that its environment was held against, and what that found.

    Attributes:
        config: The config with the id that runs, and whether masks are obeyed.
        notices: Lines about what will not be as one may expect: another id than the one that was typed, or
            something that the environment has and a run does not follow.
        spaces: The spaces of the environment.
        snapshot_kind: The kind of snapshot, where it had to be found out.
        env: The environment that was tried, where it is handed on: whoever takes it closes it.
        beginning: What the run begins with of an earlier one, if anything.
    """

    config: Config
    notices: tuple[str, ...]
    spaces: Spaces
    snapshot_kind: SnapshotKind | None = None
    env: Env[Any, Any] | None = None
    beginning: "Beginning | None" = None


def check_environment(
    config: Config, watchdog: bool = True, keep: bool = False, begins: bool = True
) -> Checked:
    """Makes the environment and the network once, to hold the config against them.

    Args:
        config: The config to check.
        watchdog: Whether a process is forked that ends this one where the environment hangs.
        keep: Whether the environment is handed on, rather than closed.
        begins: Whether a run is to begin with it, for which what ``init_from`` names has to be there.

    Raises:
        ConfigError: the environment can't be made or trained on as the config asks; one line that says why.
    """
    if begins:
        check_names(config)
    check_hooks(config)
    check_processes(config)
    with Watchdog(config.env.timeout, no_advice) if watchdog else nullcontext():
        try:
            return _check_environment(config, keep, _find_source(config) if begins else None)
        except EnvError as error:
            raise ConfigError(str(error)) from error


def _find_source(config: Config) -> "Source | None":
    if config.init_from is None:
        return None
    from ppo_cli.runs.sources import find_source

    return find_source(config.init_from)


def _check_environment(config: Config, keep: bool, start: "Source | None") -> Checked:
    typed = config.env.id
    env_id = resolve_env_id(typed)
    config, vectors = decide_vectorization(config, env_id)
    env = _try_environment(env_id, replace(config.env, action_mask=False), config.shard_envs)
    with ExitStack() as opened:
        opened.callback(lambda: calls.close(env))  # whichever it is by then
        source = _mask_source(config, env)
        notices = [_id_notice(typed, env_id), vectors, learning_notice(env)]
        notices.append(image_notice(env.observation_space))
        masked = _decide_mask(config, env, source)
        if config.env.action_mask is not False:
            notices.append(mask_notice(env, source))
        if masked:
            env = with_masks(env, env_id)
        spaces = Spaces(env.observation_space, env.action_space)
        makes = [env_maker(config.env)] * config.shard_envs
        wanted = Recipe(env_id, makes, spaces, kwargs=config.env.kwargs, wrappers=config.env.wrappers)
        backend(config.vectorization).load().check(wanted, env)
        notices += _notices(config, spaces)
        config = replace(config, env=replace(config.env, id=env_id, action_mask=masked))
        model = check_network(config, spaces)
        beginning = None
        if start is not None:
            from ppo_cli.runs.init_from import plan_beginning

            normalizers = build_normalizers(config, spaces.observation_space)
            beginning = plan_beginning(config, model, start, normalizers)
            notices += beginning.notices
            config = replace(config, init_from=beginning.name)
        if keep or config.checkpoint.exact:
            opened.pop_all()
    notices += idle_notices(config, *spaces)
    checked = Checked(config, tuple(line for line in notices if line), spaces, beginning=beginning)
    if config.checkpoint.exact:
        return replace(checked, snapshot_kind=_exact_kind(config.env, env))
    return replace(checked, env=env) if keep else checked


def _notices(config: Config, spaces: Spaces) -> list[str | None]:
    """Lines on bounds and on what normalisation leaves out."""
    is_clipped = config.box_policy == "gaussian" and not config.squash_actions
    ranges = range_notice(spaces.action_space, config.network.log_std_init) if is_clipped else None
    normalized = config.normalize.observations
    return [ranges, normalization_notice(spaces.observation_space) if normalized else None]


def check_network(config: Config, spaces: Spaces) -> ActorCritic:
    """A fresh network of those that the config asks for, with which the update was tried.

    Raises:
        ConfigError: it, or what it is trained on, can't be as the config asks.
    """
    try:
        check_rollout(config, spaces)
        check_weights(config)
        model = build_model(config, spaces)
        check_rollout(config, spaces, model.state_size)  # which nothing but a model says
        try_update(config, spaces, model)
        try_intrinsic(config, spaces)
        return model
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"env={config.env.id}: {flat(error)}") from error


def _id_notice(typed: str, env_id: str) -> str | None:
    """That another id runs than the one that was typed."""
    if env_id == typed:
        return None
    if not re.search(r"-v\d+$", typed):
        return f"{typed} names no version; running the newest, {env_id}"
    return f"{typed} is retired in Gymnasium; running its successor {env_id}"


def _exact_kind(config: EnvConfig, env: Env[Any, Any]) -> SnapshotKind:
    """The kind of snapshot that brings the environment back.

    Raises:
        EnvError: nothing does.
    """
    kind = find_kind(env_maker(config, training=True), exact=True, first=env)
    if kind == "none":
        raise EnvError(
            f"checkpoint.exact=true: {config.id} does not give the same observations when it is made anew, "
            "seeded and given the same actions; leave it out, and a run that goes on begins new episodes"
        )
    return kind


def _mask_source(config: Config, env: Env[Any, Any]) -> MaskSource | None:
    """Where the environment's masks are, beside its observation; only where that is of interest."""
    places = backend(config.vectorization).masks
    source = find_mask(env) if places and config.env.action_mask is not False else "none"
    return source if source is None or source in places else "none"


def _decide_mask(config: Config, env: Env[Any, Any], source: MaskSource | None) -> bool:
    """Whether the masks beside the observation are obeyed.

    Raises:
        EnvError: they should be, and there are none.
    """
    asked, is_maskable = config.env.action_mask, isinstance(env.action_space, MASKABLE)
    has_key = any(leaf.is_mask for leaf in leaves_of(env.observation_space))
    if asked is True and is_maskable and source == "none":
        raise EnvError(
            f"env.action_mask=true: {config.env.id} has neither an 'action_mask' in its infos nor a method "
            "action_masks(); use auto (a key 'action_mask' of a Dict observation is obeyed in any case)"
        )
    if asked == "auto":
        return is_maskable and (source == "info" or (source in ("method", "step") and not has_key))
    return bool(asked)


def env_maker(config: EnvConfig, training: bool = False, n_envs: int = 1) -> EnvFn:
    """The constructor of the environment, in training or in evaluation.

    Args:
        config: The knobs ``env``.
        training: Whether it is for training.
        n_envs: The number of environments of a vector of which it is one, where there are no single ones.
    """
    masked = (
        config.action_mask is True
    )  # auto has become true or false, but in runs from before there were masks
    return env_fn(
        config.id,
        config.kwargs,
        config.wrappers,
        masked,
        training=training,
        reset_options=config.reset_options,
        seed_below=config.seed_below,
        n_envs=n_envs,
    )


def wanted_infos(config: Config) -> Wanted:
    """The keys of ``info`` that are logged; None: those that the environment turns out to have."""
    keys = config.log.info_keys
    return None if keys == "auto" else parse_keys(keys or [])


def on_error_of(config: EnvConfig) -> OnError:
    """What a fault of the environment does."""
    return "restart" if config.on_error == "restart" else "stop"


def evaluation_plan(config: Config) -> EvaluationPlan:
    """The episodes that a run is evaluated over."""
    own, make = config.eval, env_maker(config.env, n_envs=config.shard_envs)
    return EvaluationPlan(
        make, own.episodes, own.seed, own.deterministic, own.max_steps,
        on_error_of(config.env), wanted_infos(config),
    )  # fmt: skip


def _try_environment(env_id: str, config: EnvConfig, n_envs: int) -> Env[Any, Any]:
    """The environment of training; where it has wrappers, it is tried out, since many refuse only at a reset.

    Raises:
        EnvError: it can't be made, or its wrappers do not go together.
    """
    config = replace(config, id=env_id)
    if not config.wrappers:
        return env_maker(config, training=True, n_envs=n_envs)()
    only_training = any(wrapper.get("when") == "train" for wrapper in config.wrappers)
    # evaluation's first and on its own, since of some there may be only one
    evaluated = spaces_of(env_maker(config)) if only_training else None
    env = env_maker(config, training=True)()
    try:
        with calling(Call.RESET):
            observation = env.reset(seed=0)[0]
        space = env.observation_space
        inside = space.contains(observation) or space.contains(as_array(observation))  # a tensor, perhaps
    except BaseException as error:
        calls.close(env)
        let_interrupt_pass(error)
        reason = f"{type(error).__name__}: {flat(error)}"
        raise EnvError(f"env.wrappers: the wrapped environment can't be reset: {reason}") from error
    if evaluated not in (None, Spaces(env.observation_space, env.action_space)):
        raise EnvError("env.wrappers: those with when=train change the spaces, which evaluation shares")
    if not inside:
        raise EnvError("env.wrappers: the observations do not lie in the space that the wrappers promise")
    return env


def build_model(config: Config, env: Env[Any, Any] | Spaces) -> ActorCritic:
    """The network for an environment's spaces, with weights drawn from torch's global generator.

    Raises:
        ValueError: the network does not go with the spaces, or lacks a part that is to be frozen.
    """
    model = make_actor_critic(
        env.observation_space,
        env.action_space,
        squash_actions=config.squash_actions,
        encoders=EncoderChoice(
            config.network.image_encoder,
            config.network.encoders,
            config.network.actor.observations,
            config.network.critic.observations,
            config.network.critic.encoders,
        ),
        box_policy=config.box_policy,
        action_bins=config.action_bins,
        shared=config.network.shared,
        ortho_init=config.network.ortho_init,
        memory=config.network.memory,
        memory_size=config.network.memory_size,
        value_loss=config.value_loss,
        normalize_values=config.normalize.values,
        critic_hidden_sizes=config.network.critic.hidden_sizes,
        intrinsic=config.has_intrinsic,
        **same_named(config, HeadChoice),
        **same_named(config.network, HeadChoice),
        **same_named(config.network, TrunkChoice),
    )
    freeze(model, config.freeze)
    return model


def build_agent(config: Config, env: Env[Any, Any] | Spaces, collective: Collective = ALONE) -> PPOAgent:
    """The agent of a run, with fresh weights drawn from the run's seed."""
    torch.manual_seed(spawn_seeds(config.seed, "model", 1)[0])
    return PPOAgent(
        build_model(config, env),
        build_distribution(config, env.action_space),
        build_hyperparameters(config),
        build_schedules(config),
        [stream_generator(config.seed, "minibatch", shard) for shard in range(config.shards)],
        n_envs=config.shard_envs,
        device=torch.device(config.device_name),
        compile_cache=compile_cache() if decide_compile(config) else None,
        collective=collective,
    )


def decide_compile(config: Config) -> bool:
    """Whether to compile the update: where the config wants it and this machine can."""
    on_cpu = not config.device_name.startswith("cuda")
    if (
        config.wants_compile
        and on_cpu
        and not any(shutil.which(compiler) for compiler in ("g++", "clang++", "cl"))
    ):
        logger.warning(
            "no C++ compiler found: the update runs uncompiled, with other rounding and more slowly"
        )
        return False
    return config.wants_compile


def compile_cache() -> Path:
    """The folder in the platform's cache where later runs and sweeps find what was compiled."""
    return trusted_folder(user_cache_path("ppo-cli") / "compiled")


def build_normalizers(
    config: Config, observation_space: spaces.Space[Any]
) -> tuple[ObservationNormalizer | None, RewardNormalizer | None]:
    """The normalisers that the config asks for; images in a known range and what is no number have none."""
    observations = rewards = None
    clip, waits = config.normalize.clip, config.shards > 1
    if config.normalize.observations:
        observations = make_observation_normalizer(observation_space, clip, waits)
    if config.normalize.rewards:
        rewards = RewardNormalizer(config.shard_envs, config.gamma, clip, waits)
    return observations, rewards
