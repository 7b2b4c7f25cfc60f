"""A policy as one file, which is kept only if it acts as the policy does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces

from ppo_cli.export.graph import Graph, load, write_onnx, write_torchscript
from ppo_cli.export.parity import check_parity
from ppo_cli.files import written_aside
from ppo_cli.policy import BatchPolicy

WRITERS = {"onnx": write_onnx, "torchscript": write_torchscript}


def write_policy(
    path: Path,
    kind: str,
    policy: BatchPolicy,
    observations: spaces.Space[Any],
    actions: spaces.Space[Any],
    about: Mapping[str, Any],
    sample: bool = False,
) -> str:
    """Writes a policy beside its place, checks it, and only then puts it there.

    Args:
        path: The path of the file; what lies there is replaced.
        kind: ``onnx`` or ``torchscript``.
        policy: The policy.
        observations: The space of its environment's observations.
        actions: The space of its environment's actions.
        about: The facts that the file tells of itself.
        sample: Whether it draws its actions, from an input ``noise``.

    Returns:
        What goes in, what comes out, and how far from the policy it is, in a line.

    Raises:
        ExportError: The policy can't be exported, or the file acts otherwise.
    """
    with written_aside(path, f".{os.getpid()}") as aside:
        graph = Graph(policy, observations, actions, sample)
        WRITERS[kind](graph, aside, about)
        parity = check_parity(load(aside, kind), graph.ports, policy, observations, actions)
    ties = f", {parity.ties} choices between equals differ" if parity.ties else ""
    ins, outs = (", ".join(port.name for port in each) for each in (graph.ports.inputs, graph.ports.outputs))
    return (
        f"{ins} -> {outs}; largest difference on {parity.observations:,} observations "
        f"{parity.difference:.1e}{ties}"
    )
