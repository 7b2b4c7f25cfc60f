"""The environments of a run, cut into shards, and how they are brought back."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

from ppo_cli.agent import PPOAgent
from ppo_cli.collective import Collective
from ppo_cli.collector import make_collector
from ppo_cli.config.schema import Config
from ppo_cli.envs import calls
from ppo_cli.envs.backends import backend
from ppo_cli.envs.choose import make_vector
from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.snapshot import SnapshotKind, find_kind
from ppo_cli.envs.vector import Recipe, Vector
from ppo_cli.runs.build import Checked, build_normalizers, env_maker, on_error_of, wanted_infos
from ppo_cli.runs.checkpoint_schema import Checkpoint
from ppo_cli.seeding import OwnGenerators, seed_global_generators, spawn_seeds, stream_generator
from ppo_cli.shards import Shards


def make_envs(
    checked: Checked, saved: Checkpoint | None, collective: Collective, opened: ExitStack
) -> tuple[list[Vector], list[str]]:
    """The environments of training, a vector for each shard of this process, and lines on them.

    Args:
        checked: The config and its environment.
        saved: The checkpoint that a run goes on from, if it does.
        collective: The processes of the run.
        opened: Closes them.
    """
    config = checked.config
    make = env_maker(config.env, training=True)
    seed_global_generators(config.seed)  # for environments that draw from them, here and in workers
    kind, notice = _snapshot_kind(checked, make, saved, collective)
    recipe = Recipe(
        config.env.id, [make] * config.shard_envs, checked.spaces,
        snapshot_kind=kind, on_error=on_error_of(config.env), infos=wanted_infos(config),
        kwargs=config.env.kwargs, wrappers=config.env.wrappers, device=config.device_name,
    )  # fmt: skip
    vectors: list[Vector] = []
    choice = None
    for generators in generators_of(config, collective):
        vectorization = vectors[0].backend if vectors else config.vectorization  # which is chosen once
        before = (collective.rank * config.shards // collective.processes + len(vectors)) * config.shard_envs
        with generators:
            envs, line = make_vector(recipe._replace(before=before), vectorization)
        opened.callback(envs.close)
        vectors.append(envs)
        choice = choice or line
    seed_global_generators(config.seed)  # again: what went before may have drawn from them
    lines = [_batch_notice(config), choice if config.n_envs > 1 else None, notice]
    return vectors, [line for line in lines if line]


def generators_of(config: Config, collective: Collective) -> list[AbstractContextManager[None]]:
    """The global generators of each shard of this process, from which some environments draw."""
    if config.shards == 1:
        return [nullcontext()]
    own = config.shards // collective.processes
    shards = range(collective.rank * own, (collective.rank + 1) * own)
    return [OwnGenerators(spawn_seeds(config.seed, "shard", 1, shard)[0]) for shard in shards]


def make_shards(config: Config, agent: PPOAgent, vectors: Sequence[Vector], collective: Collective) -> Shards:
    """The shards of this process, each with a vector of environments."""
    first = collective.rank * len(vectors)
    return Shards(
        [
            make_collector(
                envs,
                agent,
                config.n_steps,
                *build_normalizers(config, envs.single_observation_space),
                stream_generator(config.seed, "action", shard),
            )
            for shard, envs in enumerate(vectors, first)
        ],
        collective,
        generators_of(config, collective),
    )


def _snapshot_kind(
    checked: Checked, make: EnvFn, saved: Checkpoint | None, collective: Collective
) -> tuple[SnapshotKind, str | None]:
    """How the environments are brought back, and a line on it, as the first process finds out.

    The environment that was tried is used up.
    """
    kind: SnapshotKind = "none"
    notice: str | None = None
    if not collective.rank:
        kind, notice = _found_kind(checked, make, saved)
    elif checked.env is not None:
        calls.close(checked.env)
    return collective.plain_of_first(kind), notice


def _found_kind(checked: Checked, make: EnvFn, saved: Checkpoint | None) -> tuple[SnapshotKind, str | None]:
    """Finds it out; a run that goes on keeps what it had."""
    config, tried = checked.config, checked.env
    needs_one = saved is None and checked.snapshot_kind is None and backend(config.vectorization).restores
    if tried is not None and not needs_one:
        calls.close(tried)
    if saved is not None:
        return saved.snapshot_kind, None
    kind: SnapshotKind = (
        find_kind(make, config.checkpoint.exact, tried) if needs_one else checked.snapshot_kind or "none"
    )
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


def _batch_notice(config: Config) -> str | None:
    rows = config.rollout_rows
    if config.batch_size <= rows:
        return None
    return f"batch_size={config.batch_size} is above n_envs * n_steps = {rows}: each epoch is one full batch"
