"""The minibatch step compiled ahead of time into one library, kept in a cache across runs.

The step is traced to a graph of primitive operators, backward pass and Adam included, and Inductor makes one
C++ library of it. Calling that has none of the checks that `torch.compile` makes at every call, which for
small networks take as long as the arithmetic, and loading it takes hundredths of a second.
"""

import hashlib
import os
import platform
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]
Library = Callable[[list[Tensor]], Sequence[Tensor]]


def compile_function(function: Function, examples: Sequence[Tensor], cache: Path) -> Library:
    """A library that computes what ``function`` does for inputs of the examples' shapes.

    Args:
        function: takes tensors, returns a tuple of tensors; its control flow must not depend on their values.
        examples: inputs whose shapes, dtypes and device are those of every later call.
        cache: folder of compiled libraries, found again by graph, shapes, versions and processor.
    """
    graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
    package = cache / f"{_fingerprint(graph, examples)}.pt2"
    if not package.exists():
        cache.mkdir(parents=True, exist_ok=True)
        aside = package.with_name(f"{package.stem}-{os.getpid()}.pt2")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's about its own internals
            exported = torch.export.export(graph, tuple(examples))
            torch._inductor.aoti_compile_and_package(exported, package_path=str(aside))
        aside.replace(package)  # whole or not at all: jobs of a sweep may compile the same step at once
    library: Library = torch._inductor.aoti_load_package(str(package)).loader.run
    return library


def _fingerprint(graph: GraphModule, examples: Sequence[Tensor]) -> str:
    """What the compiled library depends on, as a file name."""
    sha = hashlib.sha256(graph.code.encode())
    constants = [*graph.named_buffers(), *graph.named_parameters()]
    for _, constant in sorted(constants, key=lambda item: item[0]):
        sha.update(constant.detach().cpu().numpy().tobytes())
    facts: list[Any] = [(tuple(e.shape), e.stride(), e.dtype, e.device.type) for e in examples]
    facts += [torch.__version__, torch.get_num_threads(), platform.machine(), _processor()]
    sha.update(repr(facts).encode())
    return sha.hexdigest()[:32]


def _processor() -> str:
    """The processor's instruction sets, for which the library is built."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    return next(
        (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), ""
    )
