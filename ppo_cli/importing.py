"""Imports of a command that take a while, without Python looking through what they make for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(owns_process: bool = True) -> Iterator[None]:
    """Collects no garbage meanwhile, and leaves what is there at the end out of every later collection.

    Modules stay until the process ends. Looking through those of PyTorch again and again, last of all when
    the interpreter ends, takes a fifth of a short run. What is made later is collected as ever, so that files
    that user code leaves open are still closed. Once PyTorch is there, nothing is changed: what remains
    is imported soon, and runs may have left garbage by then.

    Args:
        owns_process: Whether the process is a command's own; what lives in any other is its own business.
    """
    if not owns_process or "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
