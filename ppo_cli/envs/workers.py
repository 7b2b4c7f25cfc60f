"""Environments in worker processes: groups of them over shared memory, with a blocking wait."""

import contextlib
import multiprocessing as mp
import os
import random
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from multiprocessing.synchronize import Semaphore
from typing import Any

import gymnasium as gym
import numpy as np

from ppo_cli.envs.make import EnvFn
from ppo_cli.envs.vector import Array, Buffers, StepResult, Vector, reset_each, seed_list, step_each

LIVENESS_SECONDS = 1.0  # between looks at whether the silent other side is still alive


class WorkerError(RuntimeError):
    """An environment raised in its worker process, or the process died."""


class AsyncVector(Vector):
    """Steps groups of environments in parallel processes, of which this one is the first.

    Each worker owns a contiguous group and reads actions from, and writes results to, memory shared with
    this process; a semaphore each way says that they are there. This process steps a group of its own
    meanwhile, rather than sleeping through a switch in each direction. Environments get the same seeds and
    the same actions as in `SyncVector`, so the results are the same.
    """

    def __init__(self, env_fns: Sequence[EnvFn], n_processes: int) -> None:
        """Starts the workers.

        Args:
            env_fns: one constructor an environment.
            n_processes: number of processes, this one included; at most one an environment.

        Raises:
            ValueError: the system can't fork processes.
        """
        if "fork" not in mp.get_all_start_methods():
            raise ValueError(
                "vectorization=async needs a system that forks processes; use vectorization=sync"
            )
        n = len(env_fns)
        own, *groups = (slice(int(group[0]), int(group[-1]) + 1) for group in _split(n, n_processes))
        self._envs = [make() for make in env_fns[own]]
        super().__init__(n, self._envs[0].observation_space, self._envs[0].action_space)
        self._out = _shared_buffers(self.single_observation_space, n)
        sample = np.asarray(self.action_space.sample())
        self._actions = _shared(sample.shape, sample.dtype)
        context = mp.get_context("fork")  # what `RawArray` is shared through
        self._own = own
        self._own_buffers = Buffers(*(array[own] for array in self._out))
        self._workers = []
        for group in groups:
            ours, theirs = context.Pipe()
            go, done = context.Semaphore(0), context.Semaphore(0)
            buffers = Buffers(*(array[group] for array in self._out))
            arguments = (env_fns[group], self._actions[group], buffers, theirs, go, done, os.getpid())
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, group, ours, go, done))

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        seeds = seed_list(seed, self.num_envs)
        for _process, group, pipe, go, _done in self._workers:
            pipe.send((seeds[group], options))
            go.release()
        reset_each(self._envs, seeds[self._own], options, self._own_buffers)
        self._wait()
        return self._out.observations, {}

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape].

        Raises:
            WorkerError: an environment raised, or a worker died; with what the worker printed.
        """
        self._actions[:] = actions
        for *_, go, _done in self._workers:
            go.release()
        step_each(self._envs, actions[self._own], self._own_buffers)
        self._wait()
        return self._result(self._out)

    def _wait(self) -> None:
        for process, group, pipe, _go, done in self._workers:
            while not done.acquire(timeout=LIVENESS_SECONDS):
                if not process.is_alive():
                    raise WorkerError(
                        f"the worker of environments {group.start} to {group.stop - 1} died "
                        f"(exit code {process.exitcode}); vectorization=sync shows where"
                    )
            if pipe.poll():
                raise WorkerError(f"environments {group.start} to {group.stop - 1}: {pipe.recv()}")

    def close_extras(self, **_: object) -> None:
        """Ends the workers and closes this process's own environments."""
        for process, _group, pipe, go, _done in self._workers:
            with contextlib.suppress(OSError):
                pipe.send(None)
            go.release()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
            pipe.close()
        for env in self._envs:
            env.close()


def _work(
    env_fns: Sequence[EnvFn],
    actions: Array,
    out: Buffers,
    pipe: Connection,
    go: Semaphore,
    done: Semaphore,
    parent: int,
) -> None:
    """A worker's life: after each `go` it resets if the pipe says so, else steps; then it says `done`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the workers
    try:
        envs = [make() for make in env_fns]
        while True:
            while not go.acquire(timeout=LIVENESS_SECONDS):
                if os.getppid() != parent:  # it was killed: nothing will ever come
                    return
            if not pipe.poll():
                step_each(envs, actions, out)
            elif (message := pipe.recv()) is not None:
                seeds, options = message
                if seeds[0] is not None:  # for environments that draw from the global generators
                    random.seed(seeds[0])
                    np.random.seed(seeds[0])
                reset_each(envs, seeds, options, out)
            else:
                break
            done.release()
        for env in envs:
            env.close()
    except Exception:  # whatever an environment raises is the parent's to report
        pipe.send(traceback.format_exc())
        done.release()


def _split(n: int, n_processes: int) -> list[Array]:
    return np.array_split(np.arange(n), n_processes)


def _shared(shape: tuple[int, ...], dtype: Any) -> Array:  # noqa: ANN401 - NumPy's own freedom of dtypes
    """A zeroed array in memory that forked processes share."""
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(RawArray("b", size), dtype, count=int(np.prod(shape))).reshape(shape)


def _shared_buffers(space: gym.Space[Any], n: int) -> Buffers:
    shape = (n, *(space.shape or ()))
    return Buffers(
        observations=_shared(shape, space.dtype),
        rewards=_shared((n,), np.float64),
        terminated=_shared((n,), np.bool_),
        truncated=_shared((n,), np.bool_),
        final_obs=_shared(shape, space.dtype),
    )
