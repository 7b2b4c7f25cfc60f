"""The minibatch step as one library: compiled ahead of time and kept in a cache, or a CUDA graph.

The step is traced to a graph of primitive operators, backward pass and Adam included, and Inductor makes one
C++ library of it. Calling that has none of the checks that `torch.compile` makes at every call, which for
small networks take as long as the arithmetic. A library that is found again is loaded without importing the
compiler, in hundredths of a second.
"""

from ppo_cli.compile.build import explain_failure
from ppo_cli.compile.library import Library, compile_ahead, compile_function
from ppo_cli.compile.sizes import Axis

__all__ = ["Axis", "Library", "compile_ahead", "compile_function", "explain_failure"]
