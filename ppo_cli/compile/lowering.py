"""How operations become machine code, as far as the compiler leaves the choice: its options, and products.

The library of matrix products takes longer to be called than to multiply by a vector, and adds a bias by
copying it to every row beforehand. Compiled with what stands around them, both cost almost nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Any:  # noqa: ANN401 - NotImplemented leaves it as it is
    """[M, K] @ [K, N], where an axis of length 1 makes it products and sums of single numbers."""
    if a.shape[1] == 1:
        return a * b
    if b.shape[1] == 1:
        return (a * b.t()).sum(1, keepdim=True)
    if a.shape[0] == 1:
        return (a.t() * b).sum(0, keepdim=True)
    return NotImplemented


def product_and_bias(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:  # noqa: ANN401
    """[M, K] @ [K, N] + [N], in two steps."""
    return torch.mm(a, b) + bias if beta == alpha == 1 else NotImplemented


# As PyTorch's tracing takes them: by operator.
DECOMPOSED: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.mm.default: product,
    torch.ops.aten.addmm.default: product_and_bias,
}

# Inductor's own tanh, by way of exp, differs from the library's by 1e-7 and takes a third of the time; its
# patterns would put a product and a bias together again. Headers compiled beforehand (into a folder that
# users share) and debug lines are what one library does not repay.
OPTIONS = {
    "cpp.use_decompose_tanh": True,
    "pattern_matcher": False,
    "aot_inductor.precompile_headers": False,
    "aot_inductor.enable_line_tables": False,
}
