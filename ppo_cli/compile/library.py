"""Libraries that are found again, or else built and kept."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ppo_cli.cache import find, store, trusted_folder, workshop
from ppo_cli.compile.build import build, environment
from ppo_cli.compile.cuda_graph import capture
from ppo_cli.compile.fingerprint import Function, fingerprint, operations
from ppo_cli.compile.sizes import Axis, SizesMatterError, resized

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
    pairs = zip(examples, axes, strict=False)
    if axes and all(axis is None or len(example) >= axis.least for example, axis in pairs):
        try:
            others = resized(examples, axes)
            if operations(function, others) != operations(function, examples):
                raise SizesMatterError("other lengths take another way")
            return _found_or_built(function, others, axes, folder)
        except SizesMatterError as reason:
            logger.info("what is compiled serves this batch_size, n_steps and n_envs alone: %s", reason)
    return _found_or_built(function, examples, (), folder)


def _found_or_built(
    function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], folder: Path
) -> Library:
    """The library that is in the folder, or one that is compiled now, and kept there.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    name = fingerprint(function, examples, axes)
    package = find(name, folder)
    if package is not None:
        try:
            return _load(package)
        except RuntimeError:  # whole, and yet of no use: it is compiled anew
            package.unlink(missing_ok=True)
    with workshop() as work:
        built = build(function, examples, axes, work)
        try:
            store(name, built, folder)
        except OSError as error:
            logger.warning("what is compiled can't be kept for other runs: %s", error)
        return _load(built)


def _load(package: Path) -> Library:
    """What torch._inductor.aoti_load_package calls, without importing the compiler, which takes seconds.

    It unpacks into a temporary folder, which is not needed once it is loaded: a kill later on leaves none.
    """
    with workshop() as unpacked, environment("TMPDIR", unpacked):
        loader = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", True, 1, -1)
    library: Library = loader.run
    return library
