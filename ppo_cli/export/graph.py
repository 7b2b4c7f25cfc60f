"""Policies as one graph: what an environment gives goes in, what it takes comes out.

`Graph` holds everything that acting needs: normaliser, network, mode or sample, and the way to the
environment's own actions. `write_onnx` and `write_torchscript` put it into files that run without this
package, `load` runs such a file.
"""

import copy
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor, nn

from ppo_cli.actor_critic import ActorCritic, masked
from ppo_cli.distributions import Distribution
from ppo_cli.encoders import PackedEncoder
from ppo_cli.normalize import EPSILON, ObservationNormalizer
from ppo_cli.policy import BatchPolicy
from ppo_cli.spaces import PackedActions, PackedObservations, given_order, leaves_of, walk
from ppo_cli.text import flat

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Run = Callable[[Arrays], Arrays]

OPSET = 18  # the exporter writes this one itself; others it converts to, and may fail
METADATA = "ppo_cli"  # key of the JSON in an ONNX file; a TorchScript file holds it as ppo_cli.json
EXAMPLE_ROWS = 3  # a batch of one or two could be taken for a fixed size, or for another axis


class ExportError(ValueError):
    """A policy can't be exported; the message is one line that says why."""


@dataclass(frozen=True)
class Port:
    """An input or output of the graph.

    Attributes:
        name: The name in the graph.
        dtype: NumPy's name of it.
        shape: The shape behind the batch axis.
        meaning: The meaning of it, in a few words.
        path: The keys and indices that lead to it in a nested observation or action.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Ports:
    """All inputs and outputs: of the observation and the action in the order of their spaces' leaves."""

    observation: tuple[Port, ...]
    state: Port | None
    noise: Port | None
    action: tuple[Port, ...]
    next_state: Port | None

    @property
    def inputs(self) -> list[Port]:
        """The inputs in the order of the graph."""
        return [*self.observation, *(port for port in (self.state, self.noise) if port is not None)]

    @property
    def outputs(self) -> list[Port]:
        """The outputs in the order of the graph."""
        return [*self.action, *([] if self.next_state is None else [self.next_state])]


def make_ports(
    policy: BatchPolicy, observations: spaces.Space[Any], actions: spaces.Space[Any], sample: bool
) -> Ports:
    """Names, dtypes and shapes of what goes in and out.

    Args:
        policy: The policy that is exported.
        observations: The space of a single environment, packed where it is nested.
        actions: The space of its actions, likewise.
        sample: Whether the noise is an input.
    """
    size = policy.model.state_size
    state = next_state = noise = None
    if size:
        state = Port("state", "float32", (size,), "the memory; zeros at an episode's start")
        next_state = Port("next_state", "float32", (size,), "the state of the next step")
    if sample:
        noise = Port("noise", "float32", (policy.distribution.noise_size,), _noise(policy.distribution))
    outs = _leaf_ports("action", actions, (), "to be sent to the environment")
    taken = [port.name for port in (*outs, state, next_state, noise) if port is not None]
    ins = _leaf_ports("", observations, taken, "as the environment gives it")
    return Ports(ins, state, noise, outs, next_state)


def _leaf_ports(
    prefix: str, space: spaces.Space[Any], taken: Iterable[str], meaning: str
) -> tuple[Port, ...]:
    """A port a leaf of a packed space, or the only one of a simple space."""
    if not isinstance(space, (PackedObservations, PackedActions)):
        name = prefix or "observation"
        return (Port(name, str(space.dtype), tuple(space.shape or ()), meaning),)
    used = set(taken)
    ports: list[Port] = []
    for path, leaf in walk(space.original):
        dotted = ".".join([prefix, *map(str, path)] if prefix else map(str, path))
        safe = unique = re.sub(r"[^A-Za-z0-9_.]", "_", dotted) or "_"
        number = 1
        while unique in used:
            number += 1
            unique = f"{safe}_{number}"
        used.add(unique)
        ports.append(Port(unique, str(leaf.dtype), tuple(leaf.shape or ()), meaning, path))
    return tuple(ports)


def _noise(distribution: Distribution) -> str:
    """Which numbers the noise is made of, part by part: ``normal[0:2], gumbel[2:5]``."""
    found, start = [], 0
    for part in distribution.parts:
        found.append(f"{part.noise_kind}[{start}:{start + part.noise_size}]")
        start += part.noise_size
    return f"independent standard numbers: {', '.join(found)}; zeros give the most probable action"


class Graph(nn.Module):
    """Observation, memory and noise to action and memory; a pure function of tensors.

    It holds copies: the policy stays as it is.
    """

    def __init__(
        self, policy: BatchPolicy, observations: spaces.Space[Any], actions: spaces.Space[Any], sample: bool
    ) -> None:
        """Takes over what acting needs, on the CPU.

        Args:
            policy: The policy to be exported.
            observations: The space of a single environment, packed where it is nested.
            actions: The space of its actions, likewise.
            sample: Whether actions are drawn, with the input ``noise``, or the most probable ones.
        """
        super().__init__()
        self.ports = make_ports(policy, observations, actions, sample)
        model = _own(policy.model)
        self.encoder, self.memory = model.encoder, model.memory
        self.trunk, self.policy_head = model.trunk, model.policy_head
        self.distribution = policy.distribution
        self.sample = sample
        self.read = _Read(observations, policy.normalizer)
        self.to_env = nn.ModuleList(part.to_env_module() for part in policy.distribution.parts)
        given = [leaves_of(observations)[place].space for place in given_order(observations)]
        self._offsets = [np.asarray(getattr(space, "start", 0), space.dtype) for space in given]
        self.requires_grad_(False)
        self.eval()

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by their names, each [B, *shape], to outputs by theirs."""
        leaves = self.read([inputs[port.name] for port in self.ports.observation])
        mask = None
        if isinstance(self.encoder, PackedEncoder):
            features = self.encoder.encode_leaves(leaves)
            mask = self.encoder.mask_of_leaves(leaves)
        else:
            features = self.encoder(leaves[0])
        outputs: dict[str, Tensor] = {}
        if self.ports.state is not None:
            features, outputs["next_state"] = self.memory(features, inputs["state"])
        logits = masked(self.policy_head(self.trunk(features)), mask)
        if self.sample:
            stored = self.distribution.sample(logits, inputs["noise"])
        else:
            stored = self.distribution.mode(logits)
        sizes = [math.prod(part.action_shape) for part in self.distribution.parts]
        columns = stored.split(sizes, dim=-1) if len(sizes) > 1 else (stored,)
        actions = [convert(column) for convert, column in zip(self.to_env, columns, strict=True)]
        # the action first, as the ports say
        return dict(zip((port.name for port in self.ports.action), actions, strict=True)) | outputs

    def example(self) -> dict[str, Tensor]:
        """Inputs of the right kinds: zeros, or the first index."""
        values = {port.name: np.zeros((EXAMPLE_ROWS, *port.shape), port.dtype) for port in self.ports.inputs}
        for port, offset in zip(self.ports.observation, self._offsets, strict=True):
            values[port.name] += offset
        return {name: torch.from_numpy(value) for name, value in values.items()}


def _own(model: ActorCritic) -> ActorCritic:
    """A copy on the CPU whose parameters are no longer views of one vector, which files would hold whole."""
    model = copy.deepcopy(model).cpu()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


class _Scale(nn.Module):
    """`ObservationNormalizer` as a graph, in float64 as in training."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Array, var: Array, clip: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean.copy()))
        self.register_buffer("deviation", (torch.from_numpy(var.copy()) + EPSILON).sqrt())
        self.clip = clip

    def forward(self, values: Tensor) -> Tensor:
        """[B, *shape] -> [B, *shape] float32."""
        scaled = (values.to(torch.float64) - self.mean) / self.deviation
        return scaled.clamp(-self.clip, self.clip).to(torch.float32)


class _Read(nn.Module):
    """The leaves of an observation as the network takes them, in the order in which they are kept."""

    def __init__(self, space: spaces.Space[Any], normalizer: ObservationNormalizer | None) -> None:
        super().__init__()
        self.positions = np.argsort(given_order(space)).tolist()
        self.scales = nn.ModuleList()
        self.dtypes = []
        for leaf in leaves_of(space):
            statistics = None if normalizer is None else normalizer.of(leaf)
            clip = 0.0 if normalizer is None else normalizer.clip
            self.scales.append(nn.Identity() if statistics is None else _Scale(*statistics, clip))
            self.dtypes.append(getattr(torch, leaf.dtype))

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Each [B, *shape], in the order of the space -> in that in which they are kept."""
        kept = [values[place].to(dtype) for place, dtype in zip(self.positions, self.dtypes, strict=True)]
        read = [scale(value) for scale, value in zip(self.scales, kept, strict=True)]
        return [value.to(torch.float32) if value.dtype == torch.float64 else value for value in read]


def describe(ports: Ports, about: Mapping[str, Any]) -> str:
    """The JSON that a file holds: ``about``, and every input and output."""
    listed = {"inputs": ports.inputs, "outputs": ports.outputs}
    return json.dumps({**about, **{key: [asdict(port) for port in each] for key, each in listed.items()}})


def write_onnx(graph: Graph, path: Path, about: Mapping[str, Any]) -> None:
    """Writes the graph as one ONNX file.

    Raises:
        ExportError: an encoder of the user's own can't be exported.
    """
    example = graph.example()
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                kwargs={"inputs": example},
                dynamic_shapes={"inputs": {name: {0: batch} for name in example}},
                input_names=list(example),
                output_names=[port.name for port in graph.ports.outputs],
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever an encoder makes the exporter raise
        reason = flat(error.__cause__ or error)[:300]
        raise ExportError(f"PyTorch can't export this policy to ONNX: {reason}") from error
    if program is None:
        raise ExportError("PyTorch exported no ONNX program")
    _rename_inner(program.model.graph)
    program.model.metadata_props[METADATA] = describe(graph.ports, about)
    program.save(path)


def _rename_inner(graph: Any) -> None:  # noqa: ANN401 - of onnx_ir, an extra
    """Gives what lies inside names that no key of an observation can have."""
    ends = {id(value) for value in graph.outputs}
    for node in graph.all_nodes():
        for value in node.outputs:
            if id(value) not in ends and value.name:
                value.name = f"inner/{value.name}"


def write_torchscript(graph: Graph, path: Path, about: Mapping[str, Any]) -> None:
    """Writes the graph as a TorchScript file.

    Raises:
        ExportError: an encoder of the user's own can't be traced.
    """
    try:
        with _quiet(), torch.no_grad():
            # not strict: the outputs are a dict, whose keys are the same in every call
            traced = torch.jit.trace(graph, (graph.example(),), strict=False, check_trace=False)
            torch.jit.save(traced, path, _extra_files={f"{METADATA}.json": describe(graph.ports, about)})
    except Exception as error:  # whatever an encoder makes the tracer raise
        reason = flat(error)[:300]
        raise ExportError(f"PyTorch can't trace this policy: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences PyTorch while it exports.

    It warns that torch.jit is deprecated, of its own use of deprecated functions, and that torchvision is not
    installed; nothing of that is the user's business. What a trace may get wrong, the parity check finds.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load(path: Path, kind: str) -> Run:
    """A function that runs an exported file on arrays by name.

    Args:
        path: The path of the file.
        kind: ``onnx`` or ``torchscript``.
    """
    if kind == "onnx":
        # on being imported it writes a device id below the home folder, and tells its makers of its use
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime  # late: an extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # small batches: threads would only wait for each other
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda arrays: dict(zip(names, session.run(None, arrays), strict=True))
    with _quiet():
        module = torch.jit.load(path, map_location="cpu")

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = module({name: torch.from_numpy(array) for name, array in arrays.items()})
        return {name: output.numpy() for name, output in outputs.items()}

    return run
