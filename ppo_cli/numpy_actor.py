"""Acting in NumPy, where calling PyTorch costs more than the arithmetic.

Between two steps of an environment the caches are cold, and PyTorch's operators cost more than their
arithmetic; docs/performance.md has the figures.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ppo_cli.actor_critic import ActorCritic
from ppo_cli.distributions.heads import view
from ppo_cli.encoders import FlattenEncoder
from ppo_cli.trunks import MLP

Array = npt.NDArray[np.float32]
Actor = Callable[[Array, Array], npt.NDArray[Any]]
Layers = Callable[[Array], tuple[Array, Array]]

# Largest product (rows x fan-in x fan-out) of a layer. Above it OpenBLAS, NumPy's own, computes with threads
# (its SMP_THRESHOLD_MIN 65536 times GEMM_MULTITHREAD_THRESHOLD 4), and the arithmetic outweighs the calls.
LARGEST_PRODUCT = 2**18
ACTIVATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x, out: np.maximum(x, np.float32(0), out=out),
}


def numpy_actor(model: ActorCritic, n_rows: int) -> Actor | None:
    """Policy and sampling for ``n_rows`` observations as a NumPy function that reads the live weights.

    Args:
        model: The network; its parameters may change in place afterwards.
        n_rows: The number of environments N.

    Returns:
        A function from float32 observations [N, F] and the noise [N, ...] of `PPOAgent.exploration_noise` to
        actions [N, *action_shape], or None where the network is no small perceptron over vectors on the CPU.
    """
    if model.value_head.weight.device.type != "cpu":
        return None
    head, trunk = model.policy_head.in_numpy(), model.trunk
    activation = ACTIVATIONS.get(trunk.choice.activation)
    if head is None or activation is None or not (isinstance(trunk, MLP) and _is_perceptron(model, trunk)):
        return None
    layers = [*trunk.linears, head.linear]
    if max(n_rows * layer.weight.numel() for layer in layers) > LARGEST_PRODUCT:
        return None
    forward = _perceptron(layers, activation, n_rows)
    probe = torch.linspace(-1, 1, n_rows * model.encoder.size).view(n_rows, -1)
    with torch.no_grad():
        logits = model.policy(probe)
    expected = logits[:, : head.linear.out_features].numpy()  # without log-deviations
    if not np.allclose(forward(probe.numpy())[1], expected, rtol=1e-3, atol=1e-5):
        return None  # the network does something that this function does not know
    sample = head.sample
    return lambda observations, noise: sample(*forward(observations), noise)


def _is_perceptron(model: ActorCritic, trunk: MLP) -> bool:
    """Whether nothing but linear layers and activations is between a vector and the features."""
    if model.state_size or trunk.norms is not None:
        return False
    return isinstance(model.encoder, FlattenEncoder) and model.encoder.is_vector


def _perceptron(layers: list[nn.Linear], activation: Callable[[Array, Array], Array], n_rows: int) -> Layers:
    """Linear layers with an activation between them: the last one's inputs and outputs.

    Both are overwritten by the next call.
    """
    *hidden, (head_weight, head_bias, head_out) = [
        (view(layer.weight).T, view(layer.bias), np.empty((n_rows, layer.out_features), np.float32))
        for layer in layers
    ]

    def forward(observations: Array) -> tuple[Array, Array]:
        x = observations
        for weight, bias, out in hidden:
            np.dot(x, weight, out=out)
            np.add(out, bias, out=out)
            x = activation(out, out)
        np.dot(x, head_weight, out=head_out)
        return x, np.add(head_out, head_bias, out=head_out)

    return forward
