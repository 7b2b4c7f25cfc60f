"""What a library computes, as a name to find it by: the operations that run, recorded without a compiler."""

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ppo_cli.compile.lowering import DECOMPOSED, OPTIONS
from ppo_cli.compile.sizes import Axis
from ppo_cli.seeding import are_drawn_from, global_states

Function = Callable[..., tuple[Tensor, ...]]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Feeds hashes with every primitive operation that runs, the backward pass's included.

    Attributes:
        sha: The hash of everything.
        sizeless: The hash of all but integers, which the lengths of axes are among.
    """

    def __init__(self, examples: Sequence[Tensor]) -> None:
        """Starts the hashes; the examples are the inputs of what runs."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.sha, self.sizeless = hashlib.sha256(), hashlib.sha256()
        self._names = {id(example): name for name, example in enumerate(examples)}
        self._alive: list[Tensor] = []  # an id is a name only while its tensor lives

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not: skipping it imports it."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Runs an operation and records its name, its arguments and what it returns."""
        self.feed([str(func), args, dict(kwargs or {})])
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self._name(tensor)
        return result

    def _name(self, tensor: Tensor) -> None:
        self._names[id(tensor)] = len(self._names)
        self._alive.append(tensor)

    def feed(self, value: Any) -> None:  # noqa: ANN401
        """Hashes a tree of arguments, in which tensors stand for the operations that they come from."""
        if isinstance(value, (list, tuple)):
            for item in value:
                self.feed(item)
        elif isinstance(value, Mapping):
            self.feed(list(value.items()))
        elif type(value) is int:
            self.sha.update(f"{value};".encode())
        elif not isinstance(value, Tensor):
            self._update(f"{value!r};".encode())
        elif id(value) in self._names:
            self._update(f"%{self._names[id(value)]};".encode())
        else:  # a constant that the function holds
            self._update(f"{value.dtype}{tuple(value.shape)}".encode())
            self._update(value.detach().cpu().numpy().tobytes())
            self._name(value)

    def _update(self, piece: bytes) -> None:
        self.sha.update(piece)
        self.sizeless.update(piece)


class Fingerprint(NamedTuple):
    """What tells a library from others.

    Attributes:
        name: A file name, by all that the library depends on.
        operations: A digest of what the function does, whatever its sizes are.
    """

    name: str
    operations: bytes


def fingerprint(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> Fingerprint:
    """Runs a function once, to see what it does.

    Raises:
        RuntimeError: the function draws numbers that are no operation, and would be constants.
    """
    *others, _ = global_states()
    with _Recorder(examples) as recorder:
        results = function(*examples)
    if are_drawn_from((*others, global_states()[-1])):
        raise RuntimeError("it draws from Python's or NumPy's generator; torch.rand can be compiled")
    recorder.feed(results)
    facts: list[Any] = [(tuple(e.shape), e.stride(), e.dtype, e.device.type) for e in examples]
    facts += [tuple(axes), torch.__version__, torch.get_num_threads(), platform.machine(), _processor()]
    facts += [OPTIONS, list(DECOMPOSED)]
    recorder.sha.update(repr(facts).encode())
    return Fingerprint(recorder.sha.hexdigest()[:32], recorder.sizeless.digest())


def _processor() -> str:
    """The processor's instruction sets, for which the library is built."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join(sorted(flags.partition(":")[2].split()))
