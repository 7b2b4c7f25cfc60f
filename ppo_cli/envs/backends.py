"""The backends of `vectorization`, and how `auto` chooses between them."""

import os
import time
from contextlib import closing

import numpy as np

from ppo_cli.envs import calls
from ppo_cli.envs.group import EnvFaultError, OnError
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.make import EnvError, EnvFn
from ppo_cli.envs.pool import EnvPoolVector
from ppo_cli.envs.snapshot import Kind
from ppo_cli.envs.vector import Array, SyncVector, Vector
from ppo_cli.envs.workers import AsyncVector
from ppo_cli.seeding import are_drawn_from, global_states
from ppo_cli.spaces import random_action
from ppo_cli.text import flat

TRIAL_SECONDS = 0.2  # of stepping each backend before `auto` chooses


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def backend_of(envs: Vector) -> str:
    """The name that `vectorization` has for a vector."""
    names = {AsyncVector: "async", EnvPoolVector: "envpool"}
    return next((name for kind, name in names.items() if isinstance(envs, kind)), "sync")


def make_vector(
    env_id: str,
    make: EnvFn,
    n: int,
    vectorization: str,
    kind: Kind = "none",
    on_error: OnError = "stop",
    infos: Wanted = NOTHING,
) -> tuple[Vector, str | None]:
    """A vector of ``n`` environments from the named backend.

    Args:
        env_id: the environment's id, for EnvPool.
        make: constructs one environment.
        n: number of environments.
        vectorization: ``sync`` steps them in this process, ``async`` in groups in several processes;
            both give the same results, but where environments draw from a process's global generators.
            ``auto`` times both and takes the faster, and ``sync`` there. ``envpool`` is EnvPool.
        kind: of snapshot; EnvPool's is always ``none``.
        on_error: what a fault of an environment does.
        infos: keys of ``info`` that are followed; EnvPool's are not.

    Returns:
        The vector, and a line that says what ``auto`` took and why.

    Raises:
        EnvError: EnvPool is asked for and can't make this environment.
    """
    processes = min(available_cores(), n)
    if vectorization == "sync":
        return SyncVector([make] * n, kind, on_error, infos), None
    if vectorization == "async":
        return AsyncVector([make] * n, processes, kind, on_error, infos), None
    if vectorization == "envpool":
        env = make()
        calls.close(env)
        return EnvPoolVector(env_id, n, env, processes), None
    if processes == 1:
        chosen, why = "sync", "one environment" if n == 1 else "one core"
    else:
        chosen, why = _choose(make, n, processes, kind, on_error)
    line = f"vectorization=auto: {chosen} ({why})"
    return make_vector(env_id, make, n, chosen, kind, on_error, infos)[0], line


def _choose(make: EnvFn, n: int, processes: int, kind: Kind, on_error: OnError) -> tuple[str, str]:
    """The faster one of `sync` and `async`, and why; what works in one process may not in several.

    Environments that draw from a process's global generators draw other numbers in several processes: for
    them the choice must not hang on the clock.
    """
    generators = global_states()
    sync = _trial(SyncVector([make] * n, kind, on_error))
    if are_drawn_from(generators):
        return "sync", "the environments draw from the process's global generators"
    try:
        parallel = _trial(AsyncVector([make] * n, processes, kind, on_error))
    except (EnvFaultError, EnvError) as error:
        return "sync", f"async failed: {flat(error)}"
    chosen = "async" if parallel > 1.1 * sync else "sync"
    figures = f"sync {sync:,.0f}, async {parallel:,.0f}"
    return chosen, f"steps/s with random actions: {figures}; {processes} processes"


def _trial(envs: Vector) -> float:
    """Environment steps a second with random actions, after which the vector is closed."""
    with closing(envs):
        return _rate(envs)


def _rate(envs: Vector) -> float:
    obs, _ = envs.reset(seed=0)
    envs.single_action_space.seed(0)

    def draw() -> Array:
        spaces = (envs.single_action_space, envs.single_observation_space)
        return np.stack([random_action(*spaces, row) for row in obs])

    obs = envs.step(draw())[0]
    stepping, steps = 0.0, 0
    while stepping < TRIAL_SECONDS:
        actions = draw()
        started = time.perf_counter()
        obs = envs.step(actions)[0]
        stepping += time.perf_counter() - started
        steps += 1
    return steps * envs.num_envs / stepping
