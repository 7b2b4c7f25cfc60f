"""Matrix products as the compiler is given them."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from ppo_cli.compile.lowering import DECOMPOSED

aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.addmm.default)
SHAPES = [(5, 1, 7), (5, 7, 1), (1, 5, 7), (1, 5, 1), (5, 6, 7)]


def traced(function, *inputs):
    """The function in primitive operations, and the matrix products among them."""
    graph = make_fx(function, DECOMPOSED)(*inputs)
    calls = [node for node in graph.graph.nodes if node.target in PRODUCTS]
    return graph, calls


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_has_the_same_value_and_calls_the_library_only_where_no_axis_is_one_long(shape):
    m, k, n = shape
    a, b, bias = torch.randn(m, k), torch.randn(k, n), torch.randn(n)
    for function, inputs in ((torch.mm, (a, b)), (torch.addmm, (bias, a, b))):
        graph, calls = traced(function, *inputs)
        torch.testing.assert_close(graph(*inputs), function(*inputs))
        assert len(calls) == (1 not in shape)


def test_a_layer_calls_the_library_three_times_and_its_bias_is_added_outside():
    layer = torch.nn.Linear(6, 7)

    def gradients(x, weight, bias):
        y = torch.nn.functional.linear(x, weight, bias).tanh()
        return torch.autograd.grad(y.sum(), (x, weight, bias))

    x = torch.randn(5, 6, requires_grad=True)
    _, calls = traced(gradients, x, layer.weight, layer.bias)
    assert [call.target for call in calls] == 3 * [aten.mm.default]


def test_a_scaled_sum_is_left_to_the_library():
    a, b, bias = torch.randn(5, 6), torch.randn(6, 7), torch.randn(7)
    _, (call,) = traced(lambda bias, a, b: torch.addmm(bias, a, b, beta=0.5), bias, a, b)
    assert call.target is aten.addmm.default
