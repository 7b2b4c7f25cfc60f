"""From a function to a library: traced to a graph, which Inductor makes C++ of."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ppo_cli.compile.fingerprint import Function
from ppo_cli.compile.lowering import DECOMPOSED, OPTIONS
from ppo_cli.compile.shortcuts import environment, shortcuts
from ppo_cli.compile.sizes import Axis, SizesMatterError, check_sizes
from ppo_cli.files import printable

TRIED_OUT = {"cpp.vec_isa_ok": True}  # whether the compiler knows the processor's instructions


def build(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], work: Path) -> Path:
    """Compiles in an empty folder, and returns the file.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    path = work / "library.pt2"
    # Inductor's sources and objects too lie where nobody else can write to
    with _quietly(), environment("TORCHINDUCTOR_CACHE_DIR", str(work / "inductor")):
        graph = _trace(function, examples, axes)
        try:
            from torch._inductor.package.package import package_aoti

            with shortcuts(work):
                files: Any = torch._inductor.aot_compile(
                    graph,
                    tuple(examples),
                    options=_known(OPTIONS | TRIED_OUT | {"aot_inductor.package": True}),
                )
                package_aoti(str(path), files)
        except Exception:  # an older compiler than the processor, or another PyTorch than the shortcuts know
            exported = _export(_trace(function, examples, axes), examples, axes)
            torch._inductor.aoti_compile_and_package(
                exported, package_path=str(path), inductor_configs=_known(OPTIONS)
            )
    return path


@contextmanager
def _quietly() -> Iterator[None]:
    """Leaves out PyTorch's warnings about its own internals, and the lines that it logs before it raises."""
    compiler = logging.getLogger("torch._inductor")
    before = compiler.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiler.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            compiler.setLevel(before)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Those of Inductor's options that this version has."""
    return {name: options[name] for name in options if name in torch._inductor.list_options()}


def _trace(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> Any:  # noqa: ANN401
    """The function's graph of primitive operations, the backward pass's included.

    Raises:
        SizesMatterError: it was traced for the examples' lengths alone.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    trace = partial(make_fx, function, DECOMPOSED, _allow_non_fake_inputs=True)
    graph = trace(tracing_mode="symbolic" if axes else "fake")(*examples)
    if axes:
        check_sizes(graph, axes)
    return graph


def _export(graph: Any, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> Any:  # noqa: ANN401
    """The graph as PyTorch's documented way takes it, which traces it once more.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    if not axes:
        return torch.export.export(graph, tuple(examples))
    lengths = {axis: torch.export.Dim(axis.name, min=axis.least) for axis in axes if axis}
    shapes = tuple(None if axis is None else {0: lengths[axis]} for axis in axes)
    try:
        return torch.export.export(graph, tuple(examples), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds
        raise SizesMatterError(explain_failure(error)) from error


def explain_failure(error: BaseException) -> str:
    """Why compiling failed, in a line: what the compiler said, or else the innermost error's first line."""
    text = str(error)
    said = text.partition("\nOutput:\n")[2].splitlines()  # of the compiler, behind its command
    errors = [line for line in said if "error" in line.lower()] or [line for line in said if line.strip()]
    while not errors and error.__cause__ is not None:
        error = error.__cause__
    lines = errors or str(error).splitlines() or [type(error).__name__]
    return printable(" ".join(lines[0].split()))[:300]
