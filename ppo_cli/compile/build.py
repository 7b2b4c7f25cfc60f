"""From a function to a library: traced to a graph, which Inductor makes C++ of."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppo_cli.compile.fingerprint import Function
from ppo_cli.compile.sizes import Axis, SizesMatterError, check_sizes
from ppo_cli.files import printable

# Half of the time that Inductor takes by default goes to what one library does not repay: headers compiled
# beforehand (into a folder that users share), debug lines, and trying out whether the compiler knows the
# processor's instructions.
TRIED_OUT = "cpp.vec_isa_ok"
QUICK = {
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    TRIED_OUT: True,
}


def build(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], work: Path) -> Path:
    """Compiles in an empty folder, and returns the file."""
    path = work / "library.pt2"
    # Inductor's sources and objects too lie where nobody else can write to
    with warnings.catch_warnings(), environment("TORCHINDUCTOR_CACHE_DIR", work / "inductor"):
        warnings.simplefilter("ignore")  # PyTorch's about its own internals
        exported = _export(function, examples, axes)
        package = partial(torch._inductor.aoti_compile_and_package, exported, package_path=str(path))
        options = {name: QUICK[name] for name in QUICK if name in torch._inductor.list_options()}
        try:
            package(inductor_configs=options)
        except Exception:  # an older compiler than the processor
            options.pop(TRIED_OUT, None)
            package(inductor_configs=options)
    return path


def _export(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> Any:  # noqa: ANN401
    """The function's graph of primitive operations, the backward pass's included.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    trace = partial(make_fx, function, _allow_non_fake_inputs=True)
    graph = trace(tracing_mode="symbolic" if axes else "fake")(*examples)
    if not axes:
        return torch.export.export(graph, tuple(examples))
    check_sizes(graph, axes)
    lengths = {axis: torch.export.Dim(axis.name, min=axis.least) for axis in axes if axis}
    shapes = tuple(None if axis is None else {0: lengths[axis]} for axis in axes)
    try:
        return torch.export.export(graph, tuple(examples), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds
        raise SizesMatterError(explain_failure(error)) from error


@contextmanager
def environment(name: str, folder: Path) -> Iterator[None]:
    """Has an environment variable name a folder meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def explain_failure(error: BaseException) -> str:
    """Why compiling failed, in a line: what the compiler said, or else the innermost error's first line."""
    text = str(error)
    said = text.partition("\nOutput:\n")[2].splitlines()  # of the compiler, behind its command
    errors = [line for line in said if "error" in line.lower()] or [line for line in said if line.strip()]
    while not errors and error.__cause__ is not None:
        error = error.__cause__
    lines = errors or str(error).splitlines() or [type(error).__name__]
    return printable(" ".join(lines[0].split()))[:300]
