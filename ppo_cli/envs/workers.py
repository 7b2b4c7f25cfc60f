"""Environments in worker processes: groups of them over shared memory, with a blocking wait."""

import contextlib
import ctypes
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from multiprocessing.synchronize import Semaphore
from typing import Any, NamedTuple

import numpy as np

from ppo_cli.envs import calls
from ppo_cli.envs.buffers import allocate
from ppo_cli.envs.group import EnvFaultError, EnvGroup, OnError, explain, make_all
from ppo_cli.envs.infos import NOTHING, Wanted
from ppo_cli.envs.make import EnvFn, spaces_of
from ppo_cli.envs.snapshot import Lost, SnapshotKind
from ppo_cli.envs.vector import Array, Recipe, StepResult, Vector, seed_list
from ppo_cli.errors import EnvError
from ppo_cli.seeding import seed_global_generators
from ppo_cli.spaces import Spaces
from ppo_cli.stop_signals import held_back, leave_to_parent
from ppo_cli.text import flat

PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a process gets when its parent dies
LIVENESS_SECONDS = 1.0  # between looks at whether the silent other side is still alive


class WorkerError(EnvFaultError):
    """A worker process died."""


class _Worker(NamedTuple):
    """A process that steps a group of environments.

    Attributes:
        process: The process.
        group: The place of its environments among all.
        pipe: The pipe that carries calls to it, and what they return.
        go: The semaphore that says that actions or a call are there.
        done: The semaphore that says that results are.
    """

    process: mp.process.BaseProcess
    group: slice
    pipe: Connection
    go: Semaphore
    done: Semaphore


class AsyncVector(Vector):
    """Steps groups of environments in parallel processes, of which this one is the first.

    Each worker owns a contiguous group and reads actions from, and writes results to, memory shared with
    this process; a semaphore each way says that they are there. This process steps a group of its own
    meanwhile, rather than sleeping through a switch in each direction. Environments get the same seeds and
    the same actions as in `SyncVector`, so the results are the same.
    """

    backend = "async"

    def __init__(
        self,
        env_fns: Sequence[EnvFn],
        n_processes: int,
        snapshot_kind: SnapshotKind = "none",
        on_error: OnError = "stop",
        infos: Wanted = NOTHING,
        spaces: Spaces | None = None,
        before: int = 0,
    ) -> None:
        """Starts the workers.

        Args:
            env_fns: A constructor for each environment.
            n_processes: The number of processes, this one included; at most one an environment.
            snapshot_kind: The kind of snapshot.
            on_error: The effect of a fault of an environment.
            infos: The keys of ``info`` that are followed.
            spaces: The spaces of a single environment; None for those of one that is made to see them.
            before: The number of the run's environments before these, for messages.

        Raises:
            ValueError: the system can't fork processes.
        """
        if "fork" not in mp.get_all_start_methods():
            raise ValueError(
                "vectorization=async needs a system that forks processes; use vectorization=sync"
            )
        n = len(env_fns)
        super().__init__(n, spaces or spaces_of(env_fns[0]), snapshot_kind)
        self._out = allocate(self.single_observation_space, n, _shared)
        sample = np.asarray(self.action_space.sample())
        self._actions = _shared(sample.shape, sample.dtype)
        self._calling = _shared((1,), np.bool_)  # whether the next `go` means a call, not a step
        context = mp.get_context("fork")  # what `RawArray` is shared through
        self._workers: list[_Worker] = []
        self._before, settings = before, (snapshot_kind, on_error, infos, before)
        self._slices = [
            slice(int(part[0]), int(part[-1]) + 1) for part in np.array_split(range(n), n_processes)
        ]
        for number, group in enumerate(self._slices[1:], 1):
            ours, theirs = context.Pipe()
            go, done = context.Semaphore(0), context.Semaphore(0)
            arguments = (env_fns[group], self._out.rows(group), group.start, *settings)
            process = context.Process(
                target=_work,
                args=(arguments, self._actions[group], self._calling, theirs, go, done, os.getpid(), number),
                daemon=True,
            )
            with held_back():
                process.start()
            theirs.close()
            self._workers.append(_Worker(process, group, ours, go, done))
        own = self._slices[0]
        try:
            envs = make_all(env_fns[own])
            self._group = EnvGroup(envs, env_fns[own], self._out.rows(own), 0, *settings)
        except BaseException:
            self._end_workers()
            raise

    @classmethod
    def of(cls, recipe: Recipe) -> "AsyncVector":
        """The vector that a recipe describes."""
        _, makes, spaces, processes, snapshot_kind, on_error, infos, *_ = recipe
        return cls(makes, processes, snapshot_kind, on_error, infos, spaces, recipe.before)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts a new episode in each environment, with a seed each."""
        self._forget()
        seeds = seed_list(seed, self.num_envs)
        self._call("reset", [(seeds[group], options) for group in self._slices])
        return self._out.observations, {}

    def step(self, actions: Array) -> StepResult:
        """Steps every environment with its action, [N, *shape].

        Raises:
            EnvFaultError: an environment raised, or returned what is no step.
            WorkerError: a worker died.
        """
        self._actions[:] = actions
        for worker in self._workers:
            worker.go.release()
        self._group.step(actions[self._slices[0]])
        for worker in self._workers:
            self._wait(worker)
            if worker.pipe.poll():
                raise self._receive(worker)
        return self._result(self._out, actions)

    def snapshot(self) -> dict[str, Any]:
        """Where every environment is, as plain values, for `restore`."""
        states = self._call("state", [() for _ in self._slices])
        starts, seeds, infos = ([item for state in states for item in state[k]] for k in range(3))
        return self._snapshot(self._out, starts, seeds, infos)

    def restore(self, snapshot: Mapping[str, Any], seeds: Sequence[int]) -> list[Lost]:
        """Brings fresh environments to a snapshot, or to new episodes where they do not come back."""
        record = self._recall(self._out, snapshot)
        calls = [(record.rows(group), seeds[group]) for group in self._slices]
        return self._mark_lost([lost for group in self._call("restore", calls) for lost in group])

    def take_infos(self) -> list[dict[str, float]]:
        """What the infos of episodes that ended came to since the last call, environment by environment."""
        if not self._out.has_infos.any():  # the workers need not be asked
            return []
        groups = self._call("take_infos", [() for _ in self._slices])
        return [numbers for group in groups for numbers in group]

    @property
    def observations(self) -> Array:
        """What each environment returned last, [N, *shape]."""
        return self._out.observations

    def _call(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Calls a method of every `EnvGroup`, each with its own arguments; what they return, in order."""
        own, *others = arguments
        self._calling[0] = True
        for worker, theirs in zip(self._workers, others, strict=True):
            worker.go.release()
            with contextlib.suppress(OSError):  # of a worker that ended: why is said where it should answer
                worker.pipe.send((method, theirs))
        results = [getattr(self._group, method)(*own)]
        for worker in self._workers:
            while not worker.pipe.poll(LIVENESS_SECONDS):
                self._check_alive(worker)
            results.append(self._receive(worker))
            self._wait(worker)
        self._calling[0] = False
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def _wait(self, worker: _Worker) -> None:
        while not worker.done.acquire(timeout=LIVENESS_SECONDS):
            self._check_alive(worker)

    def _receive(self, worker: _Worker) -> Any:  # noqa: ANN401
        """What a worker sent; where it ended without a word, this says how."""
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(LIVENESS_SECONDS)
            self._check_alive(worker)
            raise

    def _check_alive(self, worker: _Worker) -> None:
        if not worker.process.is_alive():
            ending = _ending(worker.process.exitcode or 0)
            raise WorkerError(f"the worker process of {_numbered(worker.group, self._before)} {ending}")

    def close_extras(self, **_: object) -> None:
        """Ends the workers and closes this process's own environments."""
        self._end_workers()
        self._group.close()

    def _end_workers(self) -> None:
        self._calling[0] = True
        for worker in self._workers:
            worker.go.release()
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
            worker.pipe.close()


def _numbered(group: slice, before: int) -> str:
    first, last = before + group.start, before + group.stop - 1
    return f"environment {first}" if first == last else f"environments {first} to {last}"


def _ending(exit_code: int) -> str:
    """How a process ended that should not have."""
    if exit_code >= 0:
        return f"died with exit code {exit_code}: an environment ended it"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"died of {name}: an environment crashed it, or the system ended it"


def _work(
    arguments: tuple[Any, ...],
    actions: Array,
    calling: Array,
    pipe: Connection,
    go: Semaphore,
    done: Semaphore,
    parent: int,
    number: int,
) -> None:
    """A worker's life: after each `go` it steps, or calls what the pipe says; then it says `done`."""
    leave_to_parent()  # signals: it closes the workers
    end_with_parent()  # an environment that hangs never gets to see that it is gone
    calls.use_slot(number)
    try:
        makes, *others = arguments
        group = EnvGroup(make_all(makes), makes, *others)
        while True:
            while not go.acquire(timeout=LIVENESS_SECONDS):
                if os.getppid() != parent:  # it was killed: nothing will ever come
                    return
            if not calling[0]:
                group.step(actions)
            elif (message := pipe.recv()) is not None:
                method, values = message
                if method == "reset" and values[0][0] is not None:
                    seed_global_generators(values[0][0])  # for environments that draw from them
                pipe.send(getattr(group, method)(*values))
            else:
                break
            done.release()
        group.close()
    except EnvFaultError as error:  # one line, for the parent to raise
        pipe.send(error)
        done.release()
    except EnvError as error:
        pipe.send(EnvFaultError(f"{flat(error)}, in a worker process; vectorization=sync has none"))
        done.release()
    except BaseException as error:
        pipe.send(EnvFaultError(f"an environment {explain(error)} in a worker process"))
        done.release()


def end_with_parent() -> None:
    """Has the system end this process when its parent ends, also by `kill -9`; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _shared(shape: tuple[int, ...], dtype: Any) -> Array:  # noqa: ANN401 - NumPy's own freedom of dtypes
    """A zeroed array in memory that forked processes share."""
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(RawArray("b", size), dtype, count=int(np.prod(shape))).reshape(shape)
