"""The backends of `vectorization`, and how `auto` chooses between them."""

import os
import time
from collections.abc import Sequence

from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.vector import SyncVector, Vector
from ppo_cli.envs.workers import AsyncVector

TRIAL_SECONDS = 0.2  # of stepping each backend before `auto` chooses


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_vector(env_fns: Sequence[EnvFn], vectorization: str) -> tuple[Vector, str | None]:
    """A vector environment of the named backend.

    Args:
        env_fns: one constructor an environment.
        vectorization: ``sync`` steps them in this process, ``async`` in groups in processes of their own;
            both give the same results. ``auto`` times both and takes the faster.

    Returns:
        The vector, and a line that says what ``auto`` took and why.
    """
    if vectorization == "sync":
        return SyncVector(env_fns), None
    workers = min(available_cores(), len(env_fns))
    if vectorization == "async":
        return AsyncVector(env_fns, workers), None
    if workers == 1:
        why = "one environment" if len(env_fns) == 1 else "one core"
        return SyncVector(env_fns), f"vectorization=auto: sync ({why})"
    rates = {name: _trial(make_vector(env_fns, name)[0]) for name in ("sync", "async")}
    chosen = "async" if rates["async"] > 1.1 * rates["sync"] else "sync"
    figures = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
    line = f"vectorization=auto: {chosen} (steps/s with random actions: {figures}; {workers} workers)"
    return make_vector(env_fns, chosen)[0], line


def _trial(envs: Vector) -> float:
    """Environment steps a second with random actions."""
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(16)]
    envs.step(actions[0])
    steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < TRIAL_SECONDS:
        envs.step(actions[steps % len(actions)])
        steps += 1
    envs.close()
    return steps * envs.num_envs / elapsed
