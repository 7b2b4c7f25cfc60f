"""The policy's forward pass in NumPy, where calling PyTorch costs more than the arithmetic.

Between two steps of an environment the caches are cold, and PyTorch's operators cost more than their
arithmetic; docs/performance.md has the figures.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ppo_cli.actor_critic import ActorCritic, FlattenEncoder, GaussianHead

Array = npt.NDArray[np.float32]
LogitsFn = Callable[[Array], Array]

# Largest product (rows x fan-in x fan-out) of a layer: above it NumPy's BLAS would start threads of its own,
# and the arithmetic outweighs the calls.
LARGEST_PRODUCT = 2**18
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
}


def numpy_policy(model: ActorCritic, n_rows: int) -> LogitsFn | None:
    """`ActorCritic.policy` for ``n_rows`` observations as a NumPy function that reads the live weights.

    Args:
        model: the network; its parameters may change in place afterwards.
        n_rows: number of environments N.

    Returns:
        A function from float32 observations [N, F] to logits [N, P], or None where the network is not a
        small perceptron over vectors on the CPU, whose head needs its features for nothing else.
    """
    head = model.policy_head
    linear = head.linear if isinstance(head, GaussianHead) else head
    if not isinstance(linear, nn.Linear) or linear.weight.device.type != "cpu":
        return None
    if not (isinstance(model.encoder, FlattenEncoder) and model.encoder.is_vector):
        return None
    layers = [*model.trunk.linears, linear]
    activation = ACTIVATIONS.get(model.trunk.activation_name)
    if activation is None or max(n_rows * layer.weight.numel() for layer in layers) > LARGEST_PRODUCT:
        return None
    *hidden, (head_weight, head_bias) = [(_view(layer.weight).T, _view(layer.bias)) for layer in layers]
    log_std = _view(head.log_std) if isinstance(head, GaussianHead) else None

    def logits(observations: Array) -> Array:
        x = observations
        for weight, bias in hidden:
            x = activation(x @ weight + bias)
        outputs: Array = x @ head_weight + head_bias
        if log_std is None:
            return outputs
        return np.concatenate([outputs, np.broadcast_to(log_std, outputs.shape)], axis=-1)

    probe = torch.linspace(-1, 1, n_rows * model.encoder.size).view(n_rows, -1)
    with torch.no_grad():
        expected = model.policy(probe).numpy()
    # a network that has learnt something this function does not know acts through PyTorch
    return logits if np.allclose(logits(probe.numpy()), expected, rtol=1e-3, atol=1e-5) else None


def _view(parameter: Tensor) -> Array:
    """The parameter's own memory as an array."""
    array: Array = parameter.detach().numpy()
    return array
