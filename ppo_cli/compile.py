"""The minibatch step as one library: compiled ahead of time and kept in a cache, or a CUDA graph.

The step is traced to a graph of primitive operators, backward pass and Adam included, and Inductor makes one
C++ library of it. Calling that has none of the checks that `torch.compile` makes at every call, which for
small networks take as long as the arithmetic. A library that is found again is loaded without importing the
compiler, in hundredths of a second.
"""

import hashlib
import itertools
import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ppo_cli.cache import find, store, trusted_folder, workshop
from ppo_cli.files import printable
from ppo_cli.products import DECOMPOSED
from ppo_cli.seeding import are_drawn_from, global_states

logger = logging.getLogger(__name__)

Function = Callable[..., tuple[Tensor, ...]]
Library = Callable[[list[Tensor]], Sequence[Tensor]]

# Half of the time that Inductor takes by default goes to what one library does not repay: headers compiled
# beforehand (into a folder that users share), debug lines, and trying out whether the compiler knows the
# processor's instructions. Its own tanh, by way of exp, differs from the library's by 1e-7 and takes a third
# of the time; its patterns would put a product and a bias together again.
TRIED_OUT = "cpp.vec_isa_ok"
QUICK = {
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
    "cpp.use_decompose_tanh": True,
    "pattern_matcher": False,
    TRIED_OUT: True,
}


class Axis(NamedTuple):
    """The first axis of an input, where its length may be another at each call.

    Attributes:
        name: The axes of one name have one length.
        least: The smallest length, from 2: PyTorch does not trace an axis of length 1 as one of any.
    """

    name: str
    least: int


class SizesMatterError(RuntimeError):
    """A function does something else for other lengths of an axis."""


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
        return _capture(function, examples)
    folder = trusted_folder(cache)
    pairs = zip(examples, axes, strict=False)
    if axes and all(axis is None or len(example) >= axis.least for example, axis in pairs):
        try:
            resized = _resized(examples, axes)
            if _operations(function, resized) != _operations(function, examples):
                raise SizesMatterError("other lengths take another way")
            return _found_or_built(function, resized, axes, folder)
        except SizesMatterError as reason:
            logger.info("what is compiled serves this batch_size, n_steps and n_envs alone: %s", reason)
    return _found_or_built(function, examples, (), folder)


def _resized(examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> list[Tensor]:
    """Examples whose lengths are the same whatever those of a run are, and unlike any other axis.

    While a graph is traced, axes of equal length count as one.
    """
    pairs = list(zip(examples, axes, strict=True))
    taken = {length for each, axis in pairs for length in each.shape[0 if axis is None else 1 :]}
    free = (length for length in itertools.count(61) if length not in taken)
    lengths = {axis: next(free) for axis in dict.fromkeys(axes) if axis is not None}
    return [
        example if axis is None else example.new_zeros((lengths[axis], *example.shape[1:]))
        for example, axis in pairs
    ]


def _found_or_built(
    function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], folder: Path
) -> Library:
    """The library that is in the folder, or one that is compiled now, and kept there.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    name = _fingerprint(function, examples, axes)
    package = find(name, folder)
    if package is not None:
        try:
            return _load(package)
        except RuntimeError:  # whole, and yet of no use: it is compiled anew
            package.unlink(missing_ok=True)
    with workshop() as work:
        built = _compile(function, examples, axes, work)
        try:
            store(name, built, folder)
        except OSError as error:
            logger.warning("what is compiled can't be kept for other runs: %s", error)
        return _load(built)


def _load(package: Path) -> Library:
    """What torch._inductor.aoti_load_package calls, without importing the compiler, which takes seconds.

    It unpacks into a temporary folder, which is not needed once it is loaded: a kill later on leaves none.
    """
    with workshop() as unpacked, _environment("TMPDIR", unpacked):
        loader = torch._C._aoti.AOTIModelPackageLoader(str(package), "model", True, 1, -1)
    library: Library = loader.run
    return library


def _compile(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None], work: Path) -> Path:
    """Compiles in an empty folder, and returns the file."""
    package = work / "library.pt2"
    # Inductor's sources and objects too lie where nobody else can write to
    with warnings.catch_warnings(), _environment("TORCHINDUCTOR_CACHE_DIR", work / "inductor"):
        warnings.simplefilter("ignore")  # PyTorch's about its own internals
        exported = _export(function, examples, axes)
        build = partial(torch._inductor.aoti_compile_and_package, exported, package_path=str(package))
        options = {name: QUICK[name] for name in QUICK if name in torch._inductor.list_options()}
        try:
            build(inductor_configs=options)
        except Exception:  # an older compiler than the processor
            options.pop(TRIED_OUT, None)
            build(inductor_configs=options)
    return package


def _export(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> Any:  # noqa: ANN401
    """The function's graph of primitive operations, the backward pass's included.

    Raises:
        SizesMatterError: one library does not serve every length of ``axes``.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    trace = partial(make_fx, function, DECOMPOSED, _allow_non_fake_inputs=True)
    graph = trace(tracing_mode="symbolic" if axes else "fake")(*examples)
    if not axes:
        return torch.export.export(graph, tuple(examples))
    _check_sizes(graph, axes)
    lengths = {axis: torch.export.Dim(axis.name, min=axis.least) for axis in axes if axis}
    shapes = tuple(None if axis is None else {0: lengths[axis]} for axis in axes)
    try:
        return torch.export.export(graph, tuple(examples), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds
        raise SizesMatterError(explain_failure(error)) from error


def _check_sizes(graph: Any, axes: Sequence[Axis | None]) -> None:  # noqa: ANN401
    """Raises SizesMatterError where a branch was taken while tracing that another length would not take."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    lengths = {}  # the symbol of each length, and lengths to try
    for node, axis in zip(inputs, axes, strict=True):
        if axis is None:
            continue
        length = node.meta["val"].shape[0]
        if isinstance(length, int) or length.node.expr.is_number:
            raise SizesMatterError(f"it is made for {length} {axis.name}")
        lengths[length.node.expr] = [axis.least + more for more in (0, 1, 1000, 10**6)]
    for guard in graph.shape_env.guards:
        for tried in itertools.product(*lengths.values()):
            if guard.expr.subs(dict(zip(lengths, tried, strict=True))) == False:  # noqa: E712 - SymPy's
                raise SizesMatterError(f"it asks whether {guard.expr}")


@contextmanager
def _environment(name: str, folder: Path) -> Iterator[None]:
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


def _capture(function: Function, examples: Sequence[Tensor]) -> Library:
    """The function as one CUDA graph: for small networks launching its kernels one by one is the cost.

    A graph reads and writes fixed memory, so inputs are copied in (unless they are those of the last call,
    as a rollout's columns are) and results are copied out.
    """
    fixed = [example.clone() for example in examples]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are chosen and memory is allocated at the first calls
            function(*fixed)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*fixed)
    last: list[Tensor] = [torch.empty(0)] * len(fixed)

    def replay(inputs: list[Tensor]) -> Sequence[Tensor]:
        for place, given, before in zip(fixed, inputs, last, strict=True):
            if given is not before:
                place.copy_(given)
        last[:] = inputs
        graph.replay()
        return [result.clone() for result in results]

    return replay


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Feeds a hash with every primitive operation that runs, the backward pass's included."""

    def __init__(self, examples: Sequence[Tensor], sizes: bool = True) -> None:
        """Starts a hash.

        Args:
            examples: The inputs of what runs.
            sizes: Whether integers count, which the lengths of axes are among.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.sha = hashlib.sha256()
        self._ignored: tuple[type, ...] = () if sizes else (int,)
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
        elif type(value) in self._ignored:
            pass
        elif not isinstance(value, Tensor):
            self.sha.update(f"{value!r};".encode())
        elif id(value) in self._names:
            self.sha.update(f"%{self._names[id(value)]};".encode())
        else:  # a constant that the function holds
            self.sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
            self.sha.update(value.detach().cpu().numpy().tobytes())
            self._name(value)


def _operations(function: Function, examples: Sequence[Tensor]) -> bytes:
    """A digest of what the function does with the examples, whatever their sizes are."""
    with _Recorder(examples, sizes=False) as recorder:
        recorder.feed(function(*examples))
    digest: bytes = recorder.sha.digest()
    return digest


def _fingerprint(function: Function, examples: Sequence[Tensor], axes: Sequence[Axis | None]) -> str:
    """What the compiled library depends on, as a file name.

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
    facts += [QUICK, list(DECOMPOSED)]
    recorder.sha.update(repr(facts).encode())
    name: str = recorder.sha.hexdigest()[:32]
    return name


def _processor() -> str:
    """The processor's instruction sets, for which the library is built."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    return next(
        (
            line
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if line.startswith(("flags", "Features"))
        ),
        "",
    )
