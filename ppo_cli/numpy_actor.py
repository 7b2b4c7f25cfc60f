"""Acting in NumPy, where calling PyTorch costs more than the arithmetic.

Between two steps of an environment the caches are cold, and PyTorch's operators cost more than their
arithmetic; docs/performance.md has the figures.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ppo_cli.actor_critic import ActorCritic, GaussianHead, PolicyHead, StateDependentHead
from ppo_cli.distributions import Bernoulli, Categorical, Distribution, MultiCategorical
from ppo_cli.encoders import FlattenEncoder

Array = npt.NDArray[np.float32]
Actor = Callable[[Array, Array], npt.NDArray[Any]]
Layers = Callable[[Array], tuple[Array, Array]]
Sampler = Callable[[Array, Array, Array], npt.NDArray[Any]]

# Largest product (rows x fan-in x fan-out) of a layer: above it NumPy's BLAS would start threads of its own,
# and the arithmetic outweighs the calls.
LARGEST_PRODUCT = 2**18
ACTIVATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x, out: np.maximum(x, np.float32(0), out=out),
}


def numpy_actor(model: ActorCritic, distribution: Distribution, n_rows: int) -> Actor | None:
    """Policy and sampling for ``n_rows`` observations as a NumPy function that reads the live weights.

    Args:
        model: the network; its parameters may change in place afterwards.
        distribution: of the environment's action space.
        n_rows: number of environments N.

    Returns:
        A function from float32 observations [N, F] and the noise [N, ...] of `PPOAgent.exploration_noise` to
        actions [N, *action_shape], or None where the network is no small perceptron over vectors on the CPU.
    """
    layers = _small_layers(model, n_rows)
    activation = ACTIVATIONS.get(model.trunk.activation_name)
    if layers is None or activation is None:
        return None
    forward = _perceptron(layers, activation, n_rows)
    probe = torch.linspace(-1, 1, n_rows * model.encoder.size).view(n_rows, -1)
    with torch.no_grad():
        expected = model.policy(probe)[:, : layers[-1].out_features].numpy()
    if not np.allclose(forward(probe.numpy())[1], expected, rtol=1e-3, atol=1e-5):
        return None  # the network does something that this function does not know
    sample = _sampler(model.policy_head, distribution)
    return lambda observations, noise: sample(*forward(observations), noise)


def _small_layers(model: ActorCritic, n_rows: int) -> list[nn.Linear] | None:
    """The layers from observation vector to action, or None where they are something else, or large."""
    head = model.policy_head
    linear = head.linear if isinstance(head, (GaussianHead, StateDependentHead)) else head
    if not isinstance(linear, nn.Linear) or linear.weight.device.type != "cpu":
        return None
    if not (isinstance(model.encoder, FlattenEncoder) and model.encoder.is_vector):
        return None
    if model.memory is not None or model.trunk.norms is not None:
        return None
    layers = [*model.trunk.linears, linear]
    return layers if max(n_rows * layer.weight.numel() for layer in layers) <= LARGEST_PRODUCT else None


def _perceptron(layers: list[nn.Linear], activation: Callable[[Array, Array], Array], n_rows: int) -> Layers:
    """Linear layers with an activation between them: the last one's inputs and outputs.

    Both are overwritten by the next call.
    """
    *hidden, (head_weight, head_bias, head_out) = [
        (_view(layer.weight).T, _view(layer.bias), np.empty((n_rows, layer.out_features), np.float32))
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


def _sampler(head: PolicyHead, distribution: Distribution) -> Sampler:
    """The distribution's `sample` in NumPy, of the features, the head's linear outputs and the noise."""
    if isinstance(head, StateDependentHead):
        log_std = _view(head.log_std)  # [F, A]; the noise is one matrix an environment, [N, F, A]
        return lambda features, means, noise: (
            means + np.einsum("nf,nfa->na", features, np.exp(log_std) * noise)
        )
    if isinstance(head, GaussianHead):
        log_std = _view(head.log_std)
        return lambda _, means, noise: means + np.exp(log_std) * noise
    if isinstance(distribution, Categorical):
        return lambda _, logits, noise: (logits + noise).argmax(-1)
    if isinstance(distribution, MultiCategorical):
        cuts = np.cumsum(distribution.nvec)[:-1]
        return lambda _, logits, noise: np.stack(
            [part.argmax(-1) for part in np.split(logits + noise, cuts, -1)], -1
        )
    if isinstance(distribution, Bernoulli):
        return lambda _, logits, noise: (logits + noise > 0).astype(np.float32)
    raise TypeError(f"no sampler for {type(distribution).__name__}")


def _view(parameter: Tensor) -> Array:
    """The parameter's own memory as an array."""
    array: Array = parameter.detach().numpy()
    return array
