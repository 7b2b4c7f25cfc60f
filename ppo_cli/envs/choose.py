"""Making a vector of environments with a backend, and how `auto` chooses between backends."""

import os
import time
from contextlib import closing

import numpy as np

from ppo_cli.envs.backends import backend
from ppo_cli.envs.group import EnvFaultError
from ppo_cli.envs.infos import NOTHING
from ppo_cli.envs.vector import Array, Recipe, Vector
from ppo_cli.errors import EnvError
from ppo_cli.seeding import are_drawn_from, global_states
from ppo_cli.spaces import random_action
from ppo_cli.text import flat

TRIAL_SECONDS = 0.2  # of stepping each backend before `auto` chooses


def available_cores() -> int:
    """Processor cores that this process may use; those of one run share a machine's, as torchrun says."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def make_vector(recipe: Recipe, vectorization: str) -> tuple[Vector, str | None]:
    """A vector of environments from the named backend.

    Args:
        recipe: The recipe for it; the number of processes is that of this machine's cores.
        vectorization: ``sync`` steps them in this process, ``async`` in groups in several processes;
            both give the same results, but where environments draw from a process's global generators.
            ``auto`` times both and takes the faster, and ``sync`` there. Others are in `BACKENDS`.

    Returns:
        The vector, and a line that says what ``auto`` took and why.

    Raises:
        EnvError: the backend can't make this environment.
    """
    n = len(recipe.makes)
    recipe = recipe._replace(processes=min(available_cores(), n))
    line = None
    if vectorization == "auto":
        vectorization, why = ("sync", "one environment" if n == 1 else "one core")
        if recipe.processes > 1:
            vectorization, why = _choose(recipe)
        line = f"vectorization=auto: {vectorization} ({why})"
    made: Vector = backend(vectorization).load().of(recipe)
    return made, line


def _choose(recipe: Recipe) -> tuple[str, str]:
    """The faster one of `sync` and `async`, and why; what works in one process may not in several.

    Environments that draw from a process's global generators draw other numbers in several processes: for
    them the choice must not hang on the clock.
    """
    recipe = recipe._replace(infos=NOTHING)
    generators = global_states()
    sync = _trial("sync", recipe)
    if are_drawn_from(generators):
        return "sync", "the environments draw from the process's global generators"
    try:
        parallel = _trial("async", recipe)
    except (EnvFaultError, EnvError) as error:
        return "sync", f"async failed: {flat(error)}"
    chosen = "async" if parallel > 1.1 * sync else "sync"
    figures = f"sync {sync:,.0f}, async {parallel:,.0f}"
    return chosen, f"steps/s with random actions: {figures}; {recipe.processes} processes"


def _trial(name: str, recipe: Recipe) -> float:
    """Environment steps a second with random actions, after which the vector is closed."""
    with closing(backend(name).load().of(recipe)) as envs:
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
