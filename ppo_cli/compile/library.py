"""Libraries that are found again, or else built and kept."""

import atexit
import contextlib
import gc
import logging
import multiprocessing as mp
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import torch
from torch import Tensor

from ppo_cli.cache import POLL_SECONDS, Turn, find, store, trusted_folder, workshop
from ppo_cli.compile.build import build
from ppo_cli.compile.cuda_graph import capture
from ppo_cli.compile.fingerprint import Function, fingerprint
from ppo_cli.compile.shortcuts import environment
from ppo_cli.compile.sizes import Axis, SizesMatterError, is_for_all, resized
from ppo_cli.stop_signals import held_back, leave_to_parent, without_jax

logger = logging.getLogger(__name__)

Library = Callable[[list[Tensor]], Sequence[Tensor]]


def compile_function(
    function: Function, examples: Sequence[Tensor], cache: Path, axes: Sequence[Axis | None] = ()
) -> Library:
    """A library that computes what ``function`` does for inputs of the examples' shapes.

    On a GPU that is a CUDA graph, captured anew in each run, rather than compiled code.

    Args:
        function: It takes tensors and returns a tuple of them; control flow must not depend on their values.
        examples: The inputs whose shapes, dtypes and device are those of every later call.
        cache: A folder of compiled libraries, found by operations, shapes, versions and processor; where
            it can't be trusted or written to, another is used.
        axes: The first axis of each example, if its length may be another at each call; None for the others.
            On a GPU, and where the function asks how long it is, the lengths are the examples'.
    """
    if examples[0].is_cuda:
        return capture(function, examples)
    folder = trusted_folder(cache)
    alone = fingerprint(function, examples, ())
    if any(axes) and is_for_all(examples, axes):
        library = _found(alone.name, folder)
        if library is not None:  # then one for all lengths could not be made of it
            return library
        others = resized(examples, axes)
        shared = fingerprint(function, others, axes)
        try:
            if shared.operations != alone.operations:
                raise SizesMatterError("other lengths take another way")
            return _found_or_built(shared.name, function, others, axes, folder)
        except SizesMatterError as reason:
            logger.info("what is compiled serves this batch_size, n_steps and n_envs alone: %s", reason)
    return _found_or_built(alone.name, function, examples, (), folder)


def compile_ahead(
    function: Function, examples: Sequence[Tensor], cache: Path, axes: Sequence[Axis | None]
) -> None:
    """Has a process beside this one compile what `compile_function` will then find, or wait for.

    It imports the compiler and traces on a core of its own, while this one makes what else a run needs. Where
    that can't be done, or fails, `compile_function` compiles as if this had not been called.

    Args:
        function: As for `compile_function`.
        examples: As for `compile_function`.
        cache: As for `compile_function`.
        axes: As for `compile_function`; without them nothing is done.
    """
    can_fork = "fork" in mp.get_all_start_methods() and not mp.current_process().daemon
    if examples[0].is_cuda or not can_fork or not is_for_all(examples, axes):
        return
    folder, others = trusted_folder(cache), resized(examples, axes)
    axes = axes if any(axes) else ()  # one that has no length to leave open
    name = fingerprint(function, others, axes).name
    turn = Turn(name, folder)
    if find(name, folder) is not None or not turn.take():
        return
    if not turn.is_held:  # nobody could wait for it
        return
    try:
        work = _workshops.enter_context(workshop())
        process = mp.get_context("fork").Process(
            target=_compile_beside, args=(turn, function, others, axes, work, name, folder), daemon=True
        )
        with held_back(), without_jax():
            process.start()
        _begun.add(name)
    finally:
        turn.leave()


_begun: set[str] = set()  # what was compiled beside this process
_workshops = ExitStack()  # of processes that may be killed: this one clears them away
atexit.register(_workshops.close)


def _compile_beside(
    turn: Turn,
    function: Function,
    examples: Sequence[Tensor],
    axes: Sequence[Axis | None],
    work: Path,
    name: str,
    folder: Path,
) -> None:
    """What the process beside does; what fails, fails again where it is said."""
    leave_to_parent()
    os.setpgrp()  # with the compiler that it runs
    Thread(target=_end_with, args=(os.getppid(), work), daemon=True).start()
    gc.disable()  # a tenth of its time, and what it leaves ends with it
    with turn, contextlib.suppress(Exception):
        store(name, build(function, examples, axes, work), folder)
    shutil.rmtree(work, ignore_errors=True)


def _end_with(parent: int, work: Path) -> None:
    """Ends this process and its compiler once its parent is gone, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    shutil.rmtree(work, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _found_or_built(
    name: str, function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], folder: Path
) -> Library:
    """The library that is in the folder, or one that is compiled now, and kept there.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    library = _found(name, folder)
    if library is not None:
        return library
    with Turn(name, folder) as turn:
        turn.wait(quietly=name in _begun)
        library = _found(name, folder)  # another process has compiled it meanwhile
        if library is not None:
            return library
        with workshop() as work:
            built = build(function, examples, axes, work)
            try:
                store(name, built, folder)
            except OSError as error:
                logger.warning("what is compiled can't be kept for other runs: %s", error)
            return _load(built)


def _found(name: str, folder: Path) -> Library | None:
    """The library that is in the folder, if one is there."""
    package = find(name, folder)
    if package is None:
        return None
    try:
        return _load(package)
    except RuntimeError:  # whole, and yet of no use: it is compiled anew
        package.unlink(missing_ok=True)
        return None


def _load(package: Path) -> Library:
    """What torch._inductor.aoti_load_package calls, without importing the compiler, which takes seconds.

    It unpacks into a temporary folder, which is not needed once it is loaded: a kill later on leaves none.
    """
    with workshop() as unpacked, environment("TMPDIR", str(unpacked)):
        loader = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", True, 1, -1)
    library: Library = loader.run
    return library
